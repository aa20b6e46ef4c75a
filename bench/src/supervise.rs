//! Processes of the systems under test: started, waited for, measured and ended by their ids alone.
//!
//! Each one is the leader of a process group of its own, so that its children end with it, and is killed
//! when the thread of the bench that started it ends. Its output goes to a file.

use crate::BenchError;
use futures::future::BoxFuture;
use std::fs::OpenOptions;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

mod usage;

pub use usage::{cpu_seconds, own_cpu_seconds, resident_bytes};

/// How often a condition is looked at that nobody tells: the same for all systems, since it is a part of
/// how long a start takes.
const POLL: Duration = Duration::from_millis(5);
/// How long one look at whether a process is ready may take, such as a connection that a server accepts
/// and then says nothing on.
const TRY_LIMIT: Duration = Duration::from_secs(5);
/// How much of a log an error shows.
const LOG_LINES_SHOWN: usize = 20;
/// How long a killed process may take to be gone: one that writes to a slow disk goes when that is done.
const KILL_SECONDS_MAX: u64 = 30;

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

    /// Waits until `ready` says so; it is asked again if it does not answer in time. A process that ends
    /// before is an error that shows its log.
    pub async fn wait_ready(
        &mut self,
        limit: Duration,
        ready: impl FnMut(&Self) -> BoxFuture<'static, bool>,
    ) -> Result<(), BenchError> {
        self.wait_ready_by_tries(limit, TRY_LIMIT, ready).await
    }

    async fn wait_ready_by_tries(
        &mut self,
        limit: Duration,
        try_limit: Duration,
        mut ready: impl FnMut(&Self) -> BoxFuture<'static, bool>,
    ) -> Result<(), BenchError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Ok(true) = tokio::time::timeout(try_limit, ready(self)).await {
                return Ok(());
            }
            self.check_running()?;
            if Instant::now() > deadline {
                return Err(self.not_ready(limit));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until it has ended by itself. An end that is not a success is an error that shows its log.
    pub async fn wait_success(mut self, limit: Duration) -> Result<(), BenchError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.ended()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.end_error(status)),
                None if Instant::now() > deadline => {
                    return Err(BenchError::TooSlow {
                        doing: self.name.clone(),
                        seconds: limit.as_secs(),
                    });
                }
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// An error that shows the end of its log, if it has ended.
    fn check_running(&mut self) -> Result<(), BenchError> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(self.end_error(status)),
        }
    }

    /// How it has ended, if it has.
    fn ended(&mut self) -> Result<Option<ExitStatus>, BenchError> {
        let status = self.child.try_wait();
        status.map_err(BenchError::io(format!("wait for {}", self.name)))
    }

    fn end_error(&self, status: ExitStatus) -> BenchError {
        BenchError::Ended {
            process: self.name.clone(),
            status,
            log: log_end(&self.log()),
        }
    }

    /// What to say of it when it was not ready in time.
    fn not_ready(&self, limit: Duration) -> BenchError {
        BenchError::NotReady {
            process: self.name.clone(),
            seconds: limit.as_secs(),
            log: log_end(&self.log()),
        }
    }

    /// To be called only while the child has not been waited for, so that the id is its own.
    fn kill_group(&self) -> Result<(), BenchError> {
        // SAFETY: kill touches no memory.
        match unsafe { libc::kill(-(self.child.id() as libc::pid_t), libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error())
                .map_err(BenchError::io(format!("kill {}", self.name))),
        }
    }
}

/// Ends processes and all that descends from them, without warning and all at once, so that none sees
/// another one gone, and waits until they are. One that had ended before is an error that shows its log.
pub async fn kill_all(mut processes: Vec<Process>) -> Result<(), BenchError> {
    let roots: Vec<u32> = processes.iter().map(Process::pid).collect();
    // Some children are in groups of their own, as PostgreSQL's, and would hold on to the data.
    let family = usage::family_of(&roots)?;
    let mut ended_before = Ok(());
    for process in &mut processes {
        match process.check_running() {
            Ok(()) => process.kill_group()?,
            Err(error) => ended_before = Err(error),
        }
    }
    let is_child = |pid: &u32| !roots.contains(pid);
    let children: Vec<u32> = family.into_iter().filter(is_child).collect();
    for pid in &children {
        // SAFETY: kill touches no memory. That it fails tells that the process is gone.
        unsafe { libc::kill(*pid as libc::pid_t, libc::SIGKILL) };
    }
    for process in &mut processes {
        let name = process.name.clone();
        wait_gone(&name, || Ok(process.ended()?.is_some())).await?;
    }
    for pid in children {
        wait_gone("a child", || Ok(!usage::runs(pid))).await?;
    }
    ended_before
}

async fn wait_gone(
    name: &str,
    mut is_gone: impl FnMut() -> Result<bool, BenchError>,
) -> Result<(), BenchError> {
    let deadline = Instant::now() + Duration::from_secs(KILL_SECONDS_MAX);
    while !is_gone()? {
        if Instant::now() > deadline {
            return Err(BenchError::TooSlow {
                doing: format!("killing {name}"),
                seconds: KILL_SECONDS_MAX,
            });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
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
