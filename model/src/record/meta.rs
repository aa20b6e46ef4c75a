//! What a shard knows about itself.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::format::FEATURE_LEVEL_FIRST;
use crate::ids::{LogIndex, ShardTime, WallTime};
use crate::settings::{QueueSettings, ShardDefaults, TopicSettings};

/// The root record of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShardMeta {
    /// Which behaviour `apply` follows; raised when every node knows it.
    pub feature_level: u16,
    /// Never runs backwards.
    pub time: ShardTime,
    /// The wall time that came with the last entry.
    pub wall: WallTime,
    /// The last applied entry.
    pub applied: LogIndex,
    /// What names get that nobody configured.
    pub defaults: Arc<ShardDefaults>,
    /// The last object id given out.
    pub last_object: u64,
    /// The last attributes id given out.
    pub last_attributes: u64,
    /// Height of the trie of object ids.
    pub objects_height: u8,
    /// Height of the trie of time buckets with timers.
    pub timers_height: u8,
    /// Graves from here...
    pub grave_first: u64,
    /// ...to before here.
    pub grave_next: u64,
    /// Counters.
    pub totals: Totals,
}

/// Counters of a shard, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Totals {
    /// Topics that exist.
    pub topics: u64,
    /// Queues that exist.
    pub queues: u64,
    /// Messages appended to topics, ever.
    pub appended: u64,
    /// Their bytes.
    pub appended_bytes: u64,
    /// Messages put into queues by producers, ever.
    pub enqueued: u64,
    /// Their bytes.
    pub enqueued_bytes: u64,
    /// Deliveries of queue messages, ever.
    pub delivered: u64,
    /// Acknowledged queue messages, ever.
    pub acked: u64,
    /// Expired queue messages, ever.
    pub expired: u64,
    /// Queue messages moved to dead letters or discarded after their last delivery, ever.
    pub dead_lettered: u64,
    /// Leases that exist.
    pub leases: u64,
    /// Payload bytes that something refers to.
    pub live_bytes: u64,
}

impl Default for ShardMeta {
    /// A shard that no entry has reached yet.
    fn default() -> Self {
        Self {
            feature_level: FEATURE_LEVEL_FIRST,
            time: ShardTime(0),
            wall: WallTime(0),
            applied: LogIndex(0),
            defaults: Arc::new(ShardDefaults {
                shard_count: 1,
                topic: TopicSettings::default(),
                queue: QueueSettings::default(),
            }),
            last_object: 0,
            last_attributes: 0,
            objects_height: 0,
            timers_height: 0,
            grave_first: 0,
            grave_next: 0,
            totals: Totals::default(),
        }
    }
}
