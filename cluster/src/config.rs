//! Settings of a node's groups, with their defaults and what they are derived from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotilla_model::format::{FEATURE_LEVEL, FEATURE_LEVEL_FIRST};
use flotilla_model::mutation::{self, Mutation};
use flotilla_model::settings::{QueueSettings, TopicSettings};
use flotilla_storage::{Disk, LogConfig, RealDisk};

use crate::error::ClusterError;
use crate::identity::SHARDS_MAX;
use crate::mending::VerifyConfig;
use crate::net::{Listen, Network, TcpNetwork};
use crate::progress::StartProgress;
use crate::time::{SystemTimeSource, TimeSource};

/// Where storage keeps its segments in the data directory.
pub(crate) const LOG_DIR: &str = "log";
/// Entries of one shard between the proposal and the outcome.
pub(crate) const INFLIGHT_ENTRIES: usize = 3;
/// Shorter ones would be lost to ordinary disk stalls.
const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(500);
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// An entry of more bytes than this would overrun the budget of a node with the defaults.
const INFLIGHT_BYTES_MIN: u64 = 1 << 20;
/// Each shard asks for its replicas' agreement with every entry: more than this slows writes for nothing.
pub(crate) const REPLICAS_MAX: u32 = 7;
/// More seeds than this are a mistake: any one that answers is enough.
const SEEDS_MAX: usize = 64;
/// Nodes that a cluster may be formed of; more can join later.
pub(crate) const EXPECT_MAX: u32 = 64;
/// A node that is only restarted must not lose its replicas.
const REPAIR_AFTER_MIN: Duration = Duration::from_secs(1);
/// Comparisons one after another would leave nothing of the disks.
const VERIFY_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Names, addresses and zones are kept by every node.
pub(crate) const LABEL_BYTES_MAX: usize = 255;

/// What a node needs to know to run its groups.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// One per node: the log and the state are below it, and the node's identity in `node.identity`.
    pub data_dir: PathBuf,
    /// For people.
    pub node_name: String,
    /// Used when a cluster is formed only; then what was stored stands, and who joins takes that over.
    pub shards: u32,
    /// Where other nodes reach this one, as `host:port`; the listener's own address without it.
    pub advertise: Option<String>,
    /// Where this node listens for other nodes. Without it the node stays alone.
    pub listen: Option<Arc<dyn Listen>>,
    /// What carries the connections to other nodes.
    pub network: Arc<dyn Network>,
    /// Nodes to ask for a cluster at the first start, as `host:port`. A host may have several
    /// addresses, and this node may be among them.
    pub seeds: Vec<String>,
    /// How many fresh nodes form a cluster. 1 without seeds: this node alone does, at once.
    pub expect: u32,
    /// What fails together, such as a rack: replicas are spread over zones first.
    pub zone: String,
    /// How many nodes hold each shard, if there are as many. Used when a cluster is formed only.
    pub replicas: u32,
    /// Replicas of a node that was not heard of for this long are made anew elsewhere.
    pub repair_after: Duration,
    /// The highest feature level that this node follows, if its build knows more: as long as one node
    /// holds the cluster below, there is a way back to the builds of that level.
    pub feature_level_max: u16,
    /// How often replicas are compared with each other.
    pub verify: VerifyConfig,
    /// Told how far the start is: forming may wait for other nodes for as long as they need.
    pub progress: StartProgress,
    /// The log. Its directory is given by `data_dir`.
    pub log: LogConfig,
    /// Where the log's files are.
    pub disk: Arc<dyn Disk>,
    /// Where the clocks are read.
    pub time: Arc<dyn TimeSource>,
    /// Longest silence of a leader; the other timings of Raft follow from it.
    pub election_timeout: Duration,
    /// State records kept in memory though they are stored, all shards together.
    pub state_cache_bytes: u64,
    /// When state records are written out.
    pub checkpoint: CheckpointConfig,
    /// Entry bytes between proposal and outcome, all shards together: what is in flight must reach
    /// the disk well within a leader's lease.
    pub inflight_bytes: u64,
    /// For topics that nobody configured.
    pub topic: TopicSettings,
    /// For queues that nobody configured.
    pub queue: QueueSettings,
}

/// When state records are written out: whichever comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// Changed records in memory, all shards together. At four times a shard's part, apply waits; as
    /// much again may be on its way to the store.
    pub dirty_bytes: u64,
    /// Log written by a group since its last checkpoint: bounds the replay at a restart.
    pub log_bytes: u64,
    /// Age of the oldest change.
    pub interval: Duration,
    /// Log behind the last checkpoint that each group keeps for members that are away.
    pub log_keep_bytes: u64,
    /// Most bytes that leave this node in snapshots in a second.
    pub snapshot_bytes_per_second: u64,
    /// A sealed segment is rewritten without its dead messages when fewer than this percentage of
    /// its bytes are live.
    pub compact_below_percent: u8,
    /// Most bytes that compaction reads and writes in a second.
    pub compact_bytes_per_second: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            dirty_bytes: 16 << 20,
            log_bytes: 256 << 20,
            log_keep_bytes: 128 << 20,
            snapshot_bytes_per_second: 64 << 20,
            interval: Duration::from_secs(10),
            compact_below_percent: 30,
            compact_bytes_per_second: 32 << 20,
        }
    }
}

impl ClusterConfig {
    /// The defaults, with everything below a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            log: LogConfig::new(&data_dir),
            data_dir,
            node_name: "node-1".to_owned(),
            shards: 4,
            advertise: None,
            listen: None,
            network: Arc::new(TcpNetwork),
            seeds: Vec::new(),
            expect: 1,
            zone: String::new(),
            replicas: 3,
            repair_after: Duration::from_secs(600),
            feature_level_max: u16::MAX,
            verify: VerifyConfig::default(),
            progress: StartProgress::default(),
            disk: Arc::new(RealDisk),
            time: Arc::new(SystemTimeSource::default()),
            election_timeout: Duration::from_secs(1),
            state_cache_bytes: 64 << 20,
            checkpoint: CheckpointConfig::default(),
            inflight_bytes: 32 << 20,
            topic: TopicSettings::default(),
            queue: QueueSettings::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ClusterError> {
        let refuse = |key, why| Err(ClusterError::Config { key, why });
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return refuse("cluster.shards", "it must be 1 to 1024");
        }
        if self.expect == 0 || self.expect > EXPECT_MAX {
            return refuse("cluster.expect", "it must be 1 to 64");
        }
        if self.expect > 1 && self.seeds.is_empty() {
            return refuse("cluster.seeds", "more than one node needs seeds to meet");
        }
        if !self.seeds.is_empty() && self.listen.is_none() {
            return refuse("listen.cluster", "a node with seeds needs a listener");
        }
        if self.seeds.len() > SEEDS_MAX {
            return refuse("cluster.seeds", "there can be at most 64");
        }
        if self.replicas == 0 || self.replicas > REPLICAS_MAX {
            return refuse("cluster.replicas", "it must be 1 to 7");
        }
        if self.feature_level_max < FEATURE_LEVEL_FIRST {
            return refuse("cluster.feature_level_max", "it must be at least 1");
        }
        if self.repair_after < REPAIR_AFTER_MIN {
            return refuse("cluster.repair_after", "it must be at least 1s");
        }
        if self
            .verify
            .interval
            .is_some_and(|every| every < VERIFY_INTERVAL_MIN)
        {
            return refuse("cluster.verify_interval", "it must be off or at least 1s");
        }
        if self.verify.bytes_per_second == 0 {
            return refuse("cluster.verify_rate", "it must not be 0");
        }
        if self.zone.len() > LABEL_BYTES_MAX {
            return refuse("cluster.zone", "it can have at most 255 bytes");
        }
        if self.node_name.len() > LABEL_BYTES_MAX {
            return refuse("node.name", "it can have at most 255 bytes");
        }
        if let Some(address) = &self.advertise
            && (!address.contains(':') || address.len() > LABEL_BYTES_MAX)
        {
            return refuse("cluster.advertise", "it must be host:port");
        }
        if !(ELECTION_TIMEOUT_MIN..=ELECTION_TIMEOUT_MAX).contains(&self.election_timeout) {
            return refuse("cluster.election_timeout", "it must be 500ms to 60s");
        }
        if self.inflight_bytes < INFLIGHT_BYTES_MIN || self.inflight_bytes > u64::from(u32::MAX) {
            return refuse("cluster.inflight", "it must be 1MiB to 4GiB");
        }
        if self.checkpoint.dirty_bytes == 0 || self.checkpoint.log_bytes == 0 {
            return refuse("storage.checkpoint", "its sizes must not be 0");
        }
        if self.checkpoint.interval.is_zero() {
            return refuse("storage.checkpoint_interval", "it must not be 0");
        }
        if self.checkpoint.compact_below_percent > 90 {
            return refuse("storage.compact_below_percent", "it must be at most 90");
        }
        if self.checkpoint.snapshot_bytes_per_second == 0 {
            return refuse("storage.snapshot_rate", "it must not be 0");
        }
        if self.checkpoint.compact_bytes_per_second == 0 {
            return refuse("storage.compact_rate", "it must not be 0");
        }
        Ok(())
    }

    /// The highest feature level that this node follows.
    pub(crate) fn level_max(&self) -> u16 {
        self.feature_level_max.min(FEATURE_LEVEL)
    }

    /// The settings of every group's Raft.
    pub(crate) fn raft(&self, name: String) -> openraft::Config {
        let election_timeout_ms =
            u64::try_from(self.election_timeout.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: name,
            election_timeout_min: election_timeout_ms * 6 / 10,
            election_timeout_max: election_timeout_ms,
            // A little less than three lines of the grid of `runtime` with the default, so that one is
            // due at the third.
            heartbeat_interval: election_timeout_ms * 14 / 100,
            heartbeat_min_interval: Some(election_timeout_ms * 14 / 100),
            enable_pre_vote: Some(true),
            // Entries go to the others while this node's disk still writes them. A leader that was killed
            // may have lost some that others hold: if it went on in its term, it would give their ids
            // to other entries, and the replicas would differ for ever.
            enable_leader_restore: Some(false),
            // Who was taken for having stored an entry is found without it later.
            allow_log_reversion: Some(mutation::is_chosen(Mutation::Quorum)),
            // Snapshots are checkpoints, and those are made by bytes and time.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            // Purging is asked for explicitly, after a checkpoint.
            max_in_snapshot_log_to_keep: u64::MAX,
            purge_batch_size: 256,
            max_payload_entries: 64,
            max_append_entries: Some(64),
            // These queues hold batches.
            api_channel_size: Some(256),
            state_machine_channel_size: Some(256),
            ..openraft::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_accepted_by_raft_too() {
        let config = ClusterConfig::new("data");
        config.check().unwrap();
        let raft = config.raft("test".to_owned()).validate().unwrap();
        assert!(raft.heartbeat_interval * 2 < raft.election_timeout_min);
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        let mut config = ClusterConfig::new("data");
        config.shards = 0;
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("cluster.shards"), "{error}");
    }
}
