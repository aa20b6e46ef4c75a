//! Settings of the log, with their units and bounds.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Result, StorageError};

/// When an append counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// After the sync that covers it.
    Always,
    /// After the write; a sync follows within this time. A power cut loses what came since. Votes
    /// and truncations are synced all the same.
    Interval(Duration),
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Holds `log/`, `index/` and `staging/`.
    pub dir: PathBuf,
    /// Size at which a segment is sealed; a larger entry gets a segment of its own.
    pub segment_bytes: u64,
    /// Memory for entries just written. Entries that are not durable yet stay above this bound, up
    /// to `queue_bytes_max`.
    pub tail_cache_bytes: usize,
    /// sled's cache.
    pub index_cache_bytes: u64,
    pub sync: SyncPolicy,
    /// Free space that client writes must leave; default is the larger of 1 GiB and 3 segments.
    pub reserve_bytes: Option<u64>,
    /// Bytes that may wait for the writer. Callers keep below it by a budget of their own; an
    /// append above it fails.
    pub queue_bytes_max: u64,
    /// What one round writes before it syncs.
    pub round_bytes_max: u64,
    pub round_ops_max: usize,
}

impl LogConfig {
    pub fn new(dir: impl Into<PathBuf>) -> LogConfig {
        LogConfig {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            tail_cache_bytes: 32 << 20,
            index_cache_bytes: 64 << 20,
            sync: SyncPolicy::Always,
            reserve_bytes: None,
            queue_bytes_max: 256 << 20,
            round_bytes_max: 8 << 20,
            round_ops_max: 256,
        }
    }

    /// After a full disk the log goes on with so much free, a part of the reserve: client data is refused
    /// until there is more than all of it, but only a log that runs can let go of what is dead.
    pub(crate) fn recovery_bytes(&self) -> u64 {
        let reserve = self.reserve();
        (reserve / 4)
            .max(self.segment_bytes.saturating_mul(2))
            .min(reserve)
    }

    pub fn reserve(&self) -> u64 {
        self.reserve_bytes
            .unwrap_or_else(|| (1 << 30).max(3 * self.segment_bytes))
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn index_dir(&self) -> PathBuf {
        self.dir.join("index")
    }

    pub(crate) fn staging_dir(&self) -> PathBuf {
        self.dir.join("staging")
    }

    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |key, why| Err(StorageError::Config { key, why });
        if !(4096..=2 << 30).contains(&self.segment_bytes) {
            return refuse("segment_bytes", "must be from 4 KiB to 2 GiB");
        }
        if self.round_bytes_max == 0 || self.round_ops_max == 0 {
            return refuse("round_bytes_max", "a round must hold at least one write");
        }
        if self.queue_bytes_max == 0 {
            return refuse("queue_bytes_max", "must be above zero");
        }
        if matches!(self.sync, SyncPolicy::Interval(interval) if interval.is_zero()) {
            return refuse("sync", "an interval must be above zero");
        }
        Ok(())
    }
}
