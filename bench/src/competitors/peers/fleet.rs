//! The server processes of one competitor: started, killed and started again on the same data, stopped.

use crate::BenchError;
use crate::supervise::Process;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a start may take, also one that recovers what was stored.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How often a server is asked whether it serves.
const POLL: Duration = Duration::from_millis(20);
/// How long a graceful end may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Builds the command that starts a server, the same one each time.
type Launch = Box<dyn Fn() -> Command + Send + Sync>;

struct Member {
    name: String,
    log: PathBuf,
    launch: Launch,
    process: Option<Process>,
}

pub struct Fleet {
    members: Vec<Member>,
    stop_signal: libc::c_int,
}

impl Fleet {
    /// `stop_signal` is the one at which a server ends by itself.
    pub fn new(stop_signal: libc::c_int) -> Self {
        Self {
            members: Vec::new(),
            stop_signal,
        }
    }

    /// Adds a server, which is not started yet.
    pub fn add(
        &mut self,
        name: String,
        log: PathBuf,
        launch: impl Fn() -> Command + Send + Sync + 'static,
    ) {
        self.members.push(Member {
            name,
            log,
            launch: Box::new(launch),
            process: None,
        });
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Starts one server and does not wait for it.
    pub fn launch(&mut self, index: usize) -> Result<(), BenchError> {
        let member = &mut self.members[index];
        let process = Process::start(&member.name, (member.launch)(), &member.log)?;
        member.process = Some(process);
        Ok(())
    }

    /// Waits until `ready` says that a server serves. One that ends before is an error.
    pub async fn wait_ready<F>(
        &mut self,
        index: usize,
        ready: impl Fn() -> F + Send,
    ) -> Result<(), BenchError>
    where
        F: Future<Output = bool> + Send,
    {
        let Some(process) = &mut self.members[index].process else {
            return Ok(());
        };
        let deadline = Instant::now() + START_LIMIT;
        while !ready().await {
            process.check_running()?;
            if Instant::now() > deadline {
                return Err(process.not_ready(START_LIMIT));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub fn processes(&self) -> Vec<u32> {
        let running = self.members.iter().filter_map(|one| one.process.as_ref());
        running.map(Process::pid).collect()
    }

    /// Ends all servers without warning, with all their children, and waits until they are gone.
    pub async fn kill(&mut self) -> Result<(), BenchError> {
        for member in &mut self.members {
            if let Some(process) = member.process.take() {
                // Some are in groups of their own, as PostgreSQL's, and would hold on to the data.
                let children = descendants(process.pid());
                process.kill().await?;
                end_all(&children).await?;
            }
        }
        Ok(())
    }

    /// Ends all servers as an administrator would, the last one that was added first.
    pub async fn stop(mut self) -> Result<(), BenchError> {
        while let Some(member) = self.members.pop() {
            if let Some(process) = member.process {
                process.stop(self.stop_signal, STOP_LIMIT).await?;
            }
        }
        Ok(())
    }
}

/// The children of a process, and theirs.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut looked_at = 0;
    while let Some(pid) = found.get(looked_at) {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
        let tasks = tasks.into_iter().flatten().flatten();
        // A thread that has ended meanwhile has no children any more.
        let lists =
            tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<u32> = lists
            .flat_map(|list| list.split_whitespace().map(str::parse).collect::<Vec<_>>())
            .flatten()
            .collect();
        found.extend(children);
        looked_at += 1;
    }
    found.split_off(1)
}

/// Ends processes whose parent was just killed, and waits until they are gone.
async fn end_all(pids: &[u32]) -> Result<(), BenchError> {
    let deadline = Instant::now() + STOP_LIMIT;
    for pid in pids {
        while Path::new(&format!("/proc/{pid}")).exists() {
            // SAFETY: kill touches no memory. That it fails tells that the process is gone.
            unsafe { libc::kill(*pid as libc::pid_t, libc::SIGKILL) };
            if Instant::now() > deadline {
                return Err(BenchError::TooSlow {
                    doing: format!("killing process {pid}"),
                    seconds: STOP_LIMIT.as_secs(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn children_in_groups_of_their_own_are_killed_too() {
        let work = tempfile::tempdir().expect("a temporary directory");
        let log = work.path().join("log");
        let mut fleet = Fleet::new(libc::SIGTERM);
        fleet.add("a script".to_owned(), log, || {
            let mut command = Command::new("sh");
            command.args(["-c", "setsid sleep 1000 & echo started; wait"]);
            command
        });
        fleet.launch(0).expect("sh starts");
        let pid = fleet.processes()[0];
        let ready = || async move { !descendants(pid).is_empty() };
        fleet.wait_ready(0, ready).await.expect("it has a child");
        let children = descendants(pid);
        fleet.kill().await.expect("they end");
        for child in children {
            assert!(!Path::new(&format!("/proc/{child}")).exists());
        }
    }
}
