//! The server processes of one competitor: started, killed and started again on the same data, ended.

use crate::BenchError;
use crate::supervise::{Process, kill_all};
use futures::FutureExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How long a start may take, also one that recovers what was stored.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Builds the command that starts a server, the same one each time.
type Launch = Box<dyn Fn() -> Command + Send + Sync>;

struct Member {
    name: String,
    log: PathBuf,
    launch: Launch,
    process: Option<Process>,
}

#[derive(Default)]
pub struct Fleet {
    members: Vec<Member>,
}

impl Fleet {
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
        ready: impl Fn() -> F + Send + Sync,
    ) -> Result<(), BenchError>
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let Some(process) = &mut self.members[index].process else {
            return Ok(());
        };
        process.wait_ready(START_LIMIT, |_| ready().boxed()).await
    }

    pub fn processes(&self) -> Vec<u32> {
        let running = self.members.iter().filter_map(|one| one.process.as_ref());
        running.map(Process::pid).collect()
    }

    /// Ends all servers without warning, with all their children, and waits until they are gone.
    pub async fn kill(&mut self) -> Result<(), BenchError> {
        let members = self.members.iter_mut();
        kill_all(members.filter_map(|one| one.process.take()).collect()).await
    }
}
