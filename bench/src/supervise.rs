//! Processes of the systems under test: started, waited for, measured and ended by their ids alone.
//!
//! Each one is the leader of a process group of its own, so that its children end with it, and is killed
//! when the thread of the bench that started it ends. Its output goes to a file.

use crate::BenchError;
use std::fs::OpenOptions;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

mod usage;

pub use usage::{Usage, own_cpu_seconds, usage};

/// How often a condition is looked at that nobody tells.
const POLL: Duration = Duration::from_millis(5);
/// How much of a log an error shows.
const LOG_LINES_SHOWN: usize = 20;
/// How long a killed process may take to be gone.
const KILL_SECONDS_MAX: u64 = 10;

/// A running child process; dropping it kills its group.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program, with its output added to the file `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self, BenchError> {
        let doing = || format!("start {name} ({})", command.get_program().display());
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(BenchError::io(format!("open {}", log.display())))?;
        let errors = output.try_clone().map_err(BenchError::io(doing()))?;
        let doing = doing();
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        // SAFETY: prctl with these arguments touches no memory and takes no lock.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            );
        }
        let child = command.spawn().map_err(BenchError::io(doing))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that was written to its log file, also by earlier processes.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log)
            .unwrap_or_else(|error| format!("(the log could not be read: {error})"))
    }

    /// Waits until `ready` says so. A process that ends before is an error that shows its log.
    pub async fn wait_ready(
        &mut self,
        limit: Duration,
        mut ready: impl AsyncFnMut(&Self) -> bool,
    ) -> Result<(), BenchError> {
        let deadline = Instant::now() + limit;
        loop {
            if ready(self).await {
                return Ok(());
            }
            self.check_running()?;
            if Instant::now() > deadline {
                return Err(self.not_ready(limit));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// An error that shows the end of its log, if it has ended.
    pub fn check_running(&mut self) -> Result<(), BenchError> {
        let status = self.child.try_wait();
        let status = status.map_err(BenchError::io(format!("wait for {}", self.name)))?;
        match status {
            None => Ok(()),
            Some(status) => Err(BenchError::Ended {
                process: self.name.clone(),
                status,
                log: log_end(&self.log()),
            }),
        }
    }

    /// What to say of it when it was not ready in time.
    pub fn not_ready(&self, limit: Duration) -> BenchError {
        BenchError::NotReady {
            process: self.name.clone(),
            seconds: limit.as_secs(),
            log: log_end(&self.log()),
        }
    }

    /// Sends it a signal, SIGTERM for most, and waits until it has ended; after `limit` it is killed with its group.
    pub async fn stop(mut self, signal: libc::c_int, limit: Duration) -> Result<(), BenchError> {
        self.signal(self.child.id() as libc::pid_t, signal)?;
        if !self.wait_ended(limit).await? {
            self.kill_group()?;
            let limit = Duration::from_secs(KILL_SECONDS_MAX);
            if !self.wait_ended(limit).await? {
                return Err(BenchError::TooSlow {
                    doing: format!("killing {}", self.name),
                    seconds: KILL_SECONDS_MAX,
                });
            }
        }
        Ok(())
    }

    /// Ends it and its group without warning, and waits until it is gone.
    pub async fn kill(mut self) -> Result<(), BenchError> {
        self.kill_group()?;
        self.wait_ended(Duration::from_secs(KILL_SECONDS_MAX))
            .await?;
        Ok(())
    }

    async fn wait_ended(&mut self, limit: Duration) -> Result<bool, BenchError> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.child.try_wait();
            if status
                .map_err(BenchError::io(format!("wait for {}", self.name)))?
                .is_some()
            {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn kill_group(&self) -> Result<(), BenchError> {
        self.signal(-(self.child.id() as libc::pid_t), libc::SIGKILL)
    }

    /// To be called only while the child has not been waited for, so that the id is its own.
    fn signal(&self, target: libc::pid_t, number: libc::c_int) -> Result<(), BenchError> {
        // SAFETY: kill touches no memory.
        match unsafe { libc::kill(target, number) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error())
                .map_err(BenchError::io(format!("signal {}", self.name))),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Both fail only for a process that has ended already.
            let _ = self.kill_group();
            let _ = self.child.wait();
        }
    }
}

/// The last lines of a log, for an error.
fn log_end(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

/// Ports of the loopback interface that nothing listens on, outside the range that outgoing connections
/// take theirs from: a server can come back on the port it had.
pub fn free_ports<const COUNT: usize>() -> Result<[u16; COUNT], BenchError> {
    use rand::Rng;
    const TRIES: usize = 1_000;
    let mut ports = [0; COUNT];
    let mut found = 0;
    for _ in 0..TRIES {
        if found == COUNT {
            break;
        }
        let port = rand::rng().random_range(20_000..30_000);
        if !ports.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports[found] = port;
            found += 1;
        }
    }
    if found == COUNT {
        return Ok(ports);
    }
    Err(io::Error::from(io::ErrorKind::AddrInUse))
        .map_err(BenchError::io(format!("find {COUNT} free ports")))
}

#[cfg(test)]
mod tests;
