//! The parts of a node's start that need no order among each other, and what watches over a running node.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_storage::{GroupId, LogHealth, NodeLog, RecoveryReport};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::cluster::METADATA;
use crate::config::ClusterConfig;
use crate::error::ClusterError;
use crate::group::{Group, NodeParts};
use crate::identity::{Identity, Passport, Standing};
use crate::progress::{StartProgress, StartStage};
use crate::replica::{Replica, ReplicaSettings};
use crate::time::ShardClock;

/// Checkpoints written at a time.
const WRITERS: usize = 1;
/// How often the log's health is looked at: a group that writes nothing hears of a failure only so.
const WATCH_PERIOD: Duration = Duration::from_millis(250);
/// Beyond this a node is started without leaders of all groups: its health tells which are missing.
const LEADERS_WAIT: Duration = Duration::from_secs(30);

/// What runs as long as a node does: it ends with it, also with a start that is broken off.
pub(crate) struct Tasks {
    runtime: Handle,
    running: Vec<JoinHandle<()>>,
}

impl Tasks {
    pub fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            running: Vec::new(),
        }
    }

    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.running.push(self.runtime.spawn(task));
    }

    pub fn end(&self) {
        for task in &self.running {
            task.abort();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) async fn open_log(
    config: &ClusterConfig,
    runtime: &Handle,
) -> Result<(NodeLog, RecoveryReport), ClusterError> {
    let mut log = config.log.clone();
    log.dir = Path::to_path_buf(&config.data_dir);
    let disk = config.disk.clone();
    runtime
        .spawn_blocking(move || NodeLog::open(log, disk))
        .await
        .map_err(|_| ClusterError::Stopped)?
        .map_err(ClusterError::from)
}

pub(crate) fn raft_config(
    config: &ClusterConfig,
    identity: &Identity,
) -> Result<Arc<openraft::Config>, ClusterError> {
    let raft = config.raft(identity.cluster.to_string()).validate();
    raft.map(Arc::new).map_err(|error| {
        tracing::error!(%error, "raft refuses its settings");
        ClusterError::Config {
            key: "cluster.election_timeout",
            why: "raft refuses what follows from it",
        }
    })
}

pub(crate) fn open_groups(
    config: &ClusterConfig,
    parts: &NodeParts,
    passport: &Passport,
) -> Vec<Arc<Group>> {
    let plan = match &passport.standing {
        Standing::Member { plan, .. } => plan.as_ref(),
        Standing::Fresh | Standing::Planned(_) => None,
    };
    let count = u64::from(parts.identity.shards);
    let writers = Arc::new(Semaphore::new(WRITERS));
    (METADATA.0..=parts.identity.shards)
        .map(|group| {
            let settings = ReplicaSettings {
                clock: ShardClock::new(config.time.clone()),
                checkpoint: config.checkpoint.clone(),
                dirty_bytes_max: (config.checkpoint.dirty_bytes / count).max(1),
                clean_bytes_max: config.state_cache_bytes / count,
                writers: writers.clone(),
                level_max: config.level_max(),
            };
            let replica = Replica::open(GroupId(group), parts.log.clone(), settings);
            let mut parts = parts.clone();
            // The other nodes of the plan begin with the same voters. Whoever is none waits for them.
            parts.initial = plan
                .map(|plan| plan.voters(GroupId(group)))
                .filter(|voters| voters.contains_key(&parts.identity.node.0));
            Group::open(replica, parts)
        })
        .collect()
}

/// Refuses to start on state of a later release.
pub(crate) fn check_levels(groups: &[Arc<Group>]) -> Result<(), ClusterError> {
    groups
        .iter()
        .try_for_each(|group| group.replica.check_level(group.replica.feature_level()))
}

/// Waits until each group has a leader or has failed. A node alone has no one else to wait for; among
/// others, it does not wait for those that may never come.
pub(crate) async fn wait_for_leaders(
    groups: &[Arc<Group>],
    config: &ClusterConfig,
    progress: &StartProgress,
) {
    let settled = futures::future::join_all(groups.iter().map(|group| group.settled()));
    let mut settled = std::pin::pin!(settled);
    let deadline = Instant::now() + LEADERS_WAIT;
    loop {
        let waiting = groups
            .iter()
            .filter(|group| group.replica.leader.borrow().is_none())
            .map(|group| group.replica.group.0);
        progress.set(StartStage::Groups(waiting.collect()));
        if tokio::time::timeout(WATCH_PERIOD, settled.as_mut())
            .await
            .is_ok()
        {
            return;
        }
        if config.listen.is_some() && Instant::now() >= deadline {
            tracing::warn!("not every group has a leader yet, starting all the same");
            return;
        }
    }
}

/// Takes all groups out of service when their log fails, and brings them back once a full disk has
/// room again.
pub(crate) async fn watch_log(log: NodeLog, groups: Vec<Arc<Group>>) {
    loop {
        tokio::time::sleep(WATCH_PERIOD).await;
        match log.health() {
            LogHealth::Healthy => {
                stop_failed(&groups).await;
                continue;
            }
            LogHealth::FullWaiting { reason } => {
                groups.iter().for_each(|group| group.replica.fail(&reason));
            }
            LogHealth::Failed { reason } => {
                groups.iter().for_each(|group| group.replica.fail(&reason));
                stop_failed(&groups).await;
                return;
            }
        }
        for group in &groups {
            group.stop_raft().await;
        }
        let reopened = {
            let log = log.clone();
            tokio::task::spawn_blocking(move || log.try_recover()).await
        };
        match reopened {
            Ok(Ok(Some(report))) => tracing::info!(?report, "disk space is back, log reopened"),
            Ok(Ok(None)) => continue,
            Ok(Err(error)) => {
                tracing::error!(%error, "the log could not be reopened");
                continue;
            }
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "the log could not be reopened");
                continue;
            }
            // The runtime is going down.
            Err(_) => return,
        }
        for group in &groups {
            if let Err(error) = group.restart().await {
                group.replica.fail(&crate::error::chain(&error));
            }
        }
    }
}

/// Stops Raft in groups that are out of service here: as long as it runs it may lead, and nobody else
/// would.
async fn stop_failed(groups: &[Arc<Group>]) {
    for group in groups {
        group.stop_failed().await;
    }
}
