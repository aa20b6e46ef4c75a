//! A node and its groups: start, look up, shut down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use flotilla_model::ids::{NodeId, ShardId};
use flotilla_model::name::Name;
use flotilla_model::settings::ShardDefaults;
use flotilla_storage::{GroupId, NodeLog, RecoveryReport, SyncPolicy};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::config::ClusterConfig;
use crate::error::ClusterError;
use crate::group::{Group, NodeParts};
use crate::health::{ClusterHealth, ClusterMetrics, cluster_health, cluster_metrics};
use crate::identity::{ClusterId, Standing};
use crate::intake::Intake;
use crate::launch::{self, Tasks};
use crate::membership::{
    Gate, Keeper, LeadTime, LevelWatch, Removal, ReportService, Roster, Steward,
};
use crate::mending::{Mender, MendingMetrics, ReplicaService, Verification, Verifier};
use crate::net::{Links, ServiceId};
use crate::outbox::OutboxPump;
use crate::presence::{Board, Presence, SessionTimes};
use crate::progress::StartStage;
use crate::retention::Retention;
use crate::shard::Shard;
use crate::start::{self, Reachable};

/// The group that holds metadata.
pub(crate) const METADATA: GroupId = GroupId(0);
/// Payload reads from disk at a time: more would only queue at the disk, holding their buffers.
const READERS: usize = 16;

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
    pub mender: Arc<Mender>,
    verifier: Arc<Verifier>,
    shards: Arc<[Shard]>,
    tasks: Tasks,
    _reachable: Reachable,
}

impl Cluster {
    /// Opens the data directory, becomes a member of a cluster, and starts its groups on a multi-thread
    /// runtime, which must outlive the node. Forming a cluster waits for the other nodes as long as they
    /// need; [`ClusterConfig::progress`] tells what for. Then every group is waited for until it has a
    /// leader or has failed, among other nodes for 30 s at most: [`Self::health`] tells which have none.
    pub async fn start(config: ClusterConfig, runtime: Handle) -> Result<Self, ClusterError> {
        config.check()?;
        let progress = config.progress.clone();
        progress.set(StartStage::Opening);
        let member = start::become_member(&config, &runtime).await?;
        let identity = member.identity.clone();
        let (log, recovery) = launch::open_log(&config, &runtime).await?;
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
            raft: launch::raft_config(&config, &identity)?,
            budget: Arc::new(Semaphore::new(config.inflight_bytes as usize)),
            budget_bytes: config.inflight_bytes,
            readers: Arc::new(Semaphore::new(READERS)),
            retention,
            identity: identity.clone(),
        };
        let groups = launch::open_groups(&config, &parts, &member.office.passport());
        launch::check_levels(&groups)?;
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
            SessionTimes::new(config.election_timeout),
        );
        member.links.register(ServiceId::PRESENCE, presence.clone());
        // Before the groups have leaders: it tells who leads those that have no replica here.
        let mut tasks = Tasks::new(runtime.clone());
        tasks.spawn(presence.run());
        futures::future::join_all(groups.iter().map(Group::start)).await;
        // Leaders learn that there is someone again who stores what they write.
        board.hurry.notify_one();
        let mender = Mender::new(
            groups.clone(),
            member.links.clone(),
            log.clone(),
            identity.node,
        );
        let replicas = ReplicaService {
            groups: groups.clone(),
            mender: mender.clone(),
        };
        member
            .links
            .register(ServiceId::REPLICAS, Arc::new(replicas.clone()));
        // Before leaders are waited for: a group may have to be mended first.
        tasks.spawn(mender.clone().run());
        let roster = Roster::new(
            groups.clone(),
            member.links.clone(),
            board.clone(),
            member.me,
            member.addresses,
        );
        let verifier = Verifier::new(roster.clone(), mender.clone(), replicas);
        tasks.spawn(verifier.clone().run(config.verify.clone()));
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
            level: LevelWatch::default(),
        };
        tasks.spawn(roster.clone().run());
        tasks.spawn(steward.run());
        let removal = Removal {
            roster: roster.clone(),
            mender: mender.clone(),
            due: BTreeMap::new(),
        };
        tasks.spawn(removal.run());
        tasks.spawn(start::note_level(member.office.clone(), roster.clone()));
        tasks.spawn(Keeper::new(roster.clone()).run());
        member.forming.serve_joins(Arc::new(Gate {
            cluster: identity.cluster,
            roster: roster.clone(),
        }));
        launch::wait_for_leaders(&groups, &config, &progress).await;
        roster.wait_until_complete().await;
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
        tasks.spawn(retention.run());
        tasks.spawn(launch::watch_log(log.clone(), groups.clone()));
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
                mender,
                verifier,
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

    /// Whether the log of this node is synced before anything in it counts as written.
    pub fn is_synced(&self) -> bool {
        matches!(self.inner.log.config().sync, SyncPolicy::Always)
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

    /// Begins to compare the replicas of all groups with each other, unless that is under way, and has
    /// damaged ones made anew. Tells which comparison it is.
    pub fn verify(&self) -> u64 {
        self.inner.verifier.begin()
    }

    /// What the last comparison found that this node was asked for.
    pub fn verification(&self) -> Option<Verification> {
        self.inner.verifier.latest()
    }

    /// Counts of comparisons and of replicas that were made anew.
    pub fn mending(&self) -> MendingMetrics {
        self.inner.mender.metrics()
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
        inner.tasks.end();
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
        self.tasks.end();
        for group in &self.groups {
            group.end();
        }
        // What answers there holds the groups.
        self.links.close();
    }
}
