//! A node and its groups: start, look up, shut down.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::ids::{NodeId, ShardId};
use flotilla_model::name::Name;
use flotilla_model::settings::ShardDefaults;
use flotilla_storage::{GroupId, LogHealth, NodeLog, RecoveryReport};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::config::ClusterConfig;
use crate::error::ClusterError;
use crate::group::{Group, NodeParts};
use crate::health::{ClusterHealth, ClusterMetrics, cluster_health, cluster_metrics};
use crate::identity::{ClusterId, Identity, Passport, Standing};
use crate::intake::Intake;
use crate::membership::{Gate, Keeper, LeadTime, ReportService, Roster, Steward};
use crate::net::{Links, ServiceId};
use crate::outbox::OutboxPump;
use crate::presence::{Board, Presence};
use crate::progress::{StartProgress, StartStage};
use crate::replica::{Replica, ReplicaSettings};
use crate::retention::Retention;
use crate::shard::Shard;
use crate::start::{self, Reachable};
use crate::time::ShardClock;

/// The group that holds metadata.
const METADATA: GroupId = GroupId(0);
/// Payload reads from disk at a time: more would only queue at the disk, holding their buffers.
const READERS: usize = 16;
/// Checkpoints written at a time.
const WRITERS: usize = 1;
/// How often the log's health is looked at: a group that writes nothing hears of a failure only so.
const WATCH_PERIOD: Duration = Duration::from_millis(250);

/// Beyond this a node is started without leaders of all groups: its health tells which are missing.
const LEADERS_WAIT: Duration = Duration::from_secs(30);

/// Who a node is.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Given once, never reused.
    pub id: NodeId,
    /// How often it was started, this time included.
    pub incarnation: u64,
    /// For people.
    pub name: String,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
}

/// A running node. Clones are the same node.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    info: NodeInfo,
    log: NodeLog,
    recovery: RecoveryReport,
    /// Metadata first, then the shards in order.
    pub groups: Vec<Arc<Group>>,
    pub board: Arc<Board>,
    pub links: Links,
    pub roster: Arc<Roster>,
    shards: Arc<[Shard]>,
    tasks: Vec<JoinHandle<()>>,
    _reachable: Reachable,
}

impl Cluster {
    /// Opens the data directory and starts its groups on a multi-thread runtime, which must outlive
    /// the node. Returns once every group takes commands, or has failed: [`Self::health`] tells which.
    pub async fn start(config: ClusterConfig, runtime: Handle) -> Result<Self, ClusterError> {
        config.check()?;
        let progress = config.progress.clone();
        progress.set(StartStage::Opening);
        let member = start::become_member(&config, &runtime).await?;
        let identity = member.identity.clone();
        let (log, recovery) = open_log(&config, &runtime).await?;
        tracing::info!(
            node = %identity.node,
            incarnation = identity.incarnation,
            cluster = %identity.cluster,
            shards = identity.shards,
            ?recovery,
            "log opened"
        );
        start::note_log(&member.office).await?;
        let (retention, retention_wanted) = mpsc::channel(1);
        let board = Board::new(identity.node, identity.incarnation);
        let parts = NodeParts {
            runtime: runtime.clone(),
            links: member.links.clone(),
            board: board.clone(),
            initial: None,
            log: log.clone(),
            defaults: ShardDefaults {
                shard_count: identity.shards,
                topic: config.topic.clone(),
                queue: config.queue.clone(),
            },
            raft: raft_config(&config, &identity)?,
            budget: Arc::new(Semaphore::new(config.inflight_bytes as usize)),
            budget_bytes: config.inflight_bytes,
            readers: Arc::new(Semaphore::new(READERS)),
            retention,
            identity: identity.clone(),
        };
        let groups = open_groups(&config, &parts, &member.office.passport());
        let shards: Arc<[Shard]> = groups[1..]
            .iter()
            .map(|group| group.shard.clone())
            .collect();
        let entrances = groups.iter().map(|group| group.entrance()).collect();
        let intake = Intake::new(runtime.clone(), entrances, config.inflight_bytes);
        member
            .links
            .register(ServiceId::PROPOSALS, Arc::new(intake));
        let presence = Presence::new(
            board.clone(),
            member.links.clone(),
            groups.clone(),
            config.time.clone(),
        );
        member.links.register(ServiceId::PRESENCE, presence.clone());
        // Before the groups have leaders: it tells who leads those that have no replica here.
        let presence = runtime.spawn(presence.run());
        futures::future::join_all(groups.iter().map(Group::start)).await;
        let roster = Roster::new(
            groups.clone(),
            member.links.clone(),
            board.clone(),
            member.me,
            member.addresses,
        );
        let report = ReportService {
            groups: groups.clone(),
        };
        member.links.register(ServiceId::METADATA, Arc::new(report));
        let plan = match member.office.passport().standing {
            Standing::Member { plan, .. } => plan,
            Standing::Fresh | Standing::Planned(_) => None,
        };
        let steward = Steward {
            roster: roster.clone(),
            plan,
            replicas: config.replicas,
            repair_after: config.repair_after,
            lead: LeadTime::default(),
        };
        let mut tasks = vec![
            presence,
            runtime.spawn(roster.clone().run()),
            runtime.spawn(steward.run()),
            runtime.spawn(Keeper::new(roster.clone()).run()),
        ];
        member.forming.serve_joins(Arc::new(Gate {
            cluster: identity.cluster,
            roster: roster.clone(),
        }));
        wait_for_leaders(&groups, &config, &progress).await;
        for group in &groups[1..] {
            let pump = OutboxPump {
                source: group.shard.clone(),
                shards: shards.clone(),
            };
            group.adopt(runtime.spawn(pump.run()));
        }
        let retention = Retention {
            log: log.clone(),
            replicas: groups.iter().map(|group| group.replica.clone()).collect(),
            config: config.checkpoint.clone(),
            wanted: retention_wanted,
            settled: BTreeMap::new(),
        };
        tasks.push(runtime.spawn(retention.run()));
        tasks.push(runtime.spawn(watch_log(log.clone(), groups.clone())));
        progress.set(StartStage::Started);
        Ok(Self {
            inner: Arc::new(Inner {
                info: NodeInfo {
                    id: identity.node,
                    incarnation: identity.incarnation,
                    name: config.node_name,
                    cluster: identity.cluster,
                },
                log,
                recovery,
                groups,
                board,
                links: member.links,
                roster,
                shards,
                tasks,
                _reachable: member.reachable,
            }),
        })
    }

    /// Who this node is.
    pub fn node(&self) -> &NodeInfo {
        &self.inner.info
    }

    /// What opening the log found and repaired.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.recovery
    }

    /// How many shards names are spread over.
    pub fn shard_count(&self) -> u32 {
        self.inner.shards.len() as u32
    }

    /// The shard of a name.
    pub fn shard_of(&self, name: &Name) -> ShardId {
        name.shard(self.shard_count())
    }

    /// A shard by its id, 1 and up.
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.inner.shards.get(id.0.checked_sub(1)? as usize)
    }

    /// The shard that holds a name.
    pub fn shard_for(&self, name: &Name) -> &Shard {
        // The model spreads names over 1..=shard_count, which are the shards there are.
        &self.inner.shards[self.shard_of(name).0 as usize - 1]
    }

    /// All shards, in the order of their ids.
    pub fn shards(&self) -> &[Shard] {
        &self.inner.shards
    }

    /// The group that holds metadata: the shard count and the defaults that all shards were given.
    pub fn metadata(&self) -> &Shard {
        &self.inner.groups[METADATA.0 as usize].shard
    }

    /// The condition of the node.
    pub fn health(&self) -> ClusterHealth {
        cluster_health(&self.inner.log, &self.inner.groups)
    }

    /// The numbers of the node.
    pub fn metrics(&self) -> Result<ClusterMetrics, ClusterError> {
        cluster_metrics(&self.inner.log, &self.inner.links, &self.inner.groups)
    }

    /// Writes the state of every group, for a quick next start; nothing acknowledged depends on it.
    pub async fn checkpoint(&self) -> Result<(), ClusterError> {
        for group in &self.inner.groups {
            group.checkpoint().await?;
        }
        Ok(())
    }

    /// Ends the node: checkpoints while the deadline allows, then stops the groups and closes the log.
    /// To be called once nothing is proposed any more; what still is may have no outcome.
    pub async fn shutdown(&self, deadline: Instant) -> Result<(), ClusterError> {
        let inner = &self.inner;
        for task in &inner.tasks {
            task.abort();
        }
        match tokio::time::timeout_at(deadline.into(), self.checkpoint()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "no checkpoint at the end: the next start replays the log")
            }
            Err(_) => tracing::warn!("no time for a checkpoint: the next start replays the log"),
        }
        futures::future::join_all(inner.groups.iter().map(|group| group.stop_raft())).await;
        for group in &inner.groups {
            group.end();
        }
        inner.links.close();
        let log = inner.log.clone();
        tokio::task::spawn_blocking(move || log.shutdown())
            .await
            .map_err(|_| ClusterError::Stopped)??;
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A node that is let go of without a shutdown must not work on.
        for task in &self.tasks {
            task.abort();
        }
        for group in &self.groups {
            group.end();
        }
        // What answers there holds the groups.
        self.links.close();
    }
}

async fn open_log(
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

fn raft_config(
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

fn open_groups(config: &ClusterConfig, parts: &NodeParts, passport: &Passport) -> Vec<Arc<Group>> {
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

/// Waits until each group has a leader or has failed. A node alone has no one else to wait for; among
/// others, it does not wait for those that may never come.
async fn wait_for_leaders(groups: &[Arc<Group>], config: &ClusterConfig, progress: &StartProgress) {
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
async fn watch_log(log: NodeLog, groups: Vec<Arc<Group>>) {
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
        if group.replica.failure().is_some() && group.raft().is_some() {
            group.stop_raft().await;
        }
    }
}
