//! The shard as a whole.

use std::sync::Arc;

use super::meta;
use crate::ids::{LogIndex, ShardTime, WallTime};
use crate::records::{NeedsKeys, Records};
use crate::settings::ShardDefaults;
use crate::timers;

/// Figures of a shard; the totals count since it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStats {
    /// Which behaviour `apply` follows.
    pub feature_level: u16,
    /// Shard time.
    pub time: ShardTime,
    /// The wall time that came with the last entry.
    pub wall: WallTime,
    /// The last applied entry.
    pub applied: LogIndex,
    /// What names get that nobody configured.
    pub defaults: Arc<ShardDefaults>,
    /// Topics that exist.
    pub topics: u64,
    /// Queues that exist.
    pub queues: u64,
    /// Leases that exist.
    pub leases: u64,
    /// Ended topics, queues and sessions whose records are not all removed.
    pub graves: u64,
    /// Payload bytes that something refers to.
    pub live_bytes: u64,
    /// Messages appended to topics.
    pub appended_total: u64,
    /// Their bytes.
    pub appended_bytes_total: u64,
    /// Messages put into queues by producers and by other shards.
    pub enqueued_total: u64,
    /// Their bytes.
    pub enqueued_bytes_total: u64,
    /// Deliveries of queue messages.
    pub delivered_total: u64,
    /// Acknowledged queue messages.
    pub acked_total: u64,
    /// Expired queue messages.
    pub expired_total: u64,
    /// Queue messages that were moved to dead letters or discarded after their last delivery.
    pub dead_lettered_total: u64,
}

/// Figures of the shard.
pub fn shard_stats(records: &dyn Records) -> Result<ShardStats, NeedsKeys> {
    let meta = meta(records)?;
    let totals = meta.totals;
    Ok(ShardStats {
        feature_level: meta.feature_level,
        time: meta.time,
        wall: meta.wall,
        applied: meta.applied,
        defaults: meta.defaults,
        topics: totals.topics,
        queues: totals.queues,
        leases: totals.leases,
        graves: meta.grave_next - meta.grave_first,
        live_bytes: totals.live_bytes,
        appended_total: totals.appended,
        appended_bytes_total: totals.appended_bytes,
        enqueued_total: totals.enqueued,
        enqueued_bytes_total: totals.enqueued_bytes,
        delivered_total: totals.delivered,
        acked_total: totals.acked,
        expired_total: totals.expired,
        dead_lettered_total: totals.dead_lettered,
    })
}

/// When the shard wants to be looked at again, as the last applied entry said.
pub fn next_due(records: &dyn Records) -> Result<Option<ShardTime>, NeedsKeys> {
    let meta = meta(records)?;
    if meta.grave_first != meta.grave_next {
        return Ok(Some(meta.time));
    }
    Ok(timers::first_bucket(records, &meta)?.map(timers::time_of))
}
