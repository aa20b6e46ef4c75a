//! What a node tells about the condition of its groups.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flotilla_model::ids::NodeId;
use flotilla_storage::{DamagedRange, LogHealth, LogMetrics, NodeLog};
use openraft::async_runtime::watch::WatchReceiver;

use crate::error::ClusterError;
use crate::group::Group;
use crate::net::{LinkMetrics, Links};
use crate::observer::Role;

/// The condition of a node.
#[derive(Clone, Debug)]
pub struct ClusterHealth {
    /// Group 0, which holds metadata, then the shards.
    pub groups: Vec<GroupHealth>,
    /// The log that they share.
    pub log: LogHealth,
    /// Parts of the log that cannot be read.
    pub damage: Vec<DamagedRange>,
}

impl ClusterHealth {
    /// Whether commands of every group are taken here: each has a leader, this node or one that it hears,
    /// and nothing failed on this node.
    pub fn ready(&self) -> bool {
        self.log == LogHealth::Healthy
            && self
                .groups
                .iter()
                .all(|group| group.leader.is_some() && group.failed.is_none())
    }
}

/// The condition of one group on this node.
#[derive(Clone, Debug)]
pub struct GroupHealth {
    /// 0 for metadata, else the shard.
    pub group: u32,
    /// What this node is to it.
    pub role: Role,
    /// Who leads it, as far as this node knows and hears that node; this node itself once it takes
    /// commands.
    pub leader: Option<NodeId>,
    /// Counts elections.
    pub term: u64,
    /// Who votes in it, as far as this node was told; empty where it is no member.
    pub voters: Vec<NodeId>,
    /// The feature level that this node's replica has by now; none where it is no member.
    pub feature_level: Option<u16>,
    /// The newest entry in the log.
    pub last_log: Option<u64>,
    /// The newest entry that the state has.
    pub last_applied: Option<u64>,
    /// How far this node's wall clock is ahead of the median of the group's voters.
    pub clock_offset_us: i64,
    /// Why it is out of service.
    pub failed: Option<String>,
}

/// Numbers of a node.
#[derive(Clone, Debug)]
pub struct ClusterMetrics {
    /// How far this node's wall clock is ahead of the median of the nodes that decide about metadata.
    pub clock_offset_us: i64,
    /// Of the log that all groups share.
    pub log: LogMetrics,
    /// Of the links to other nodes.
    pub links: LinkMetrics,
    /// Group 0, which holds metadata, then the shards.
    pub groups: Vec<GroupMetrics>,
}

/// Numbers of one group since the start of the node, and what it holds now.
#[derive(Clone, Debug)]
pub struct GroupMetrics {
    /// 0 for metadata, else the shard.
    pub group: u32,
    /// Batches handed in.
    pub proposals: u64,
    /// Commands in them.
    pub commands: u64,
    /// Entries applied, those of a replay included.
    pub entries_applied: u64,
    /// Entries proposed only because a timer was due.
    pub ticks: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// How long the last one took, beside apply.
    pub checkpoint_last_ms: u64,
    /// Longest time that a checkpoint held up apply.
    pub apply_pause_max_us: u64,
    /// Changed records that are not stored yet.
    pub records_dirty_bytes: u64,
    /// Records kept in memory though they are stored.
    pub records_clean_bytes: u64,
    /// Records read back from the store.
    pub records_loaded: u64,
    /// Batches that other nodes brought to this one as the leader.
    pub forwarded_here: u64,
    /// Messages moved to other shards.
    pub outbox_sent: u64,
    /// Messages that could not be moved, and are lost.
    pub outbox_dropped: u64,
}

pub(crate) fn group_health(group: &Group) -> GroupHealth {
    let replica = &group.replica;
    let mut health = GroupHealth {
        group: replica.group.0,
        role: *replica.role.borrow(),
        leader: replica
            .leader
            .borrow()
            .filter(|leader| group.node.board.is_up(*leader)),
        term: 0,
        voters: Vec::new(),
        feature_level: None,
        last_log: None,
        last_applied: replica
            .progress
            .lock()
            .applied
            .log_id
            .as_ref()
            .map(|log_id| log_id.index),
        clock_offset_us: replica.clock_offset_us.load(Ordering::Relaxed),
        failed: replica.failure(),
    };
    if let Some(raft) = group.raft() {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        health.term = metrics.current_term;
        let membership = metrics.membership_config.membership();
        health.voters = membership.voter_ids().map(NodeId).collect();
        health.feature_level = (!health.voters.is_empty()).then(|| replica.feature_level());
        health.last_log = metrics.last_log_index;
    }
    health
}

pub(crate) fn cluster_health(log: &NodeLog, groups: &[Arc<Group>]) -> ClusterHealth {
    ClusterHealth {
        groups: groups.iter().map(|group| group_health(group)).collect(),
        log: log.health(),
        // A closed log has no list of its damage any more.
        damage: log.damage().unwrap_or_default(),
    }
}

pub(crate) fn cluster_metrics(
    log: &NodeLog,
    links: &Links,
    groups: &[Arc<Group>],
) -> Result<ClusterMetrics, ClusterError> {
    Ok(ClusterMetrics {
        clock_offset_us: groups.first().map_or(0, |group| {
            group.replica.clock_offset_us.load(Ordering::Relaxed)
        }),
        log: log.metrics()?,
        links: links.metrics(),
        groups: groups.iter().map(|group| group_metrics(group)).collect(),
    })
}

fn group_metrics(group: &Group) -> GroupMetrics {
    let replica = &group.replica;
    let counters = &replica.counters;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (dirty_bytes, frozen_bytes) = replica.state.dirty_bytes();
    GroupMetrics {
        group: replica.group.0,
        proposals: load(&counters.proposals),
        commands: load(&counters.commands),
        entries_applied: load(&counters.entries_applied),
        ticks: load(&counters.ticks),
        checkpoints: load(&counters.checkpoints),
        checkpoint_last_ms: load(&counters.checkpoint_last_ms),
        apply_pause_max_us: load(&counters.apply_pause_max_us),
        records_dirty_bytes: dirty_bytes + frozen_bytes,
        records_clean_bytes: replica.state.clean_bytes(),
        records_loaded: load(&counters.records_loaded),
        forwarded_here: load(&counters.forwarded_here),
        outbox_sent: load(&counters.outbox_sent),
        outbox_dropped: load(&counters.outbox_dropped),
    }
}
