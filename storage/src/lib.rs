//! The log of a node and the durable state of its groups: bytes in, bytes out.
//!
//! ```text
//!   append, vote, truncate, purge          read, entries             checkpoints
//!        |                                   |      \                   |
//!        v                                   v       \                  v
//!   +---------+  frames   +------------+  bytes   +--------+      +------------+
//!   | writer  |---------->|  segments  |<---------| reader |      | checkpoint |
//!   | 1 sync  |           | NNN-G.data |          +--------+      |   store    |
//!   | a round |           +------------+              | where?    +------------+
//!   +---------+                 ^ scan at open        v                 |
//!        | what became durable  |               +-------------------------------+
//!        +--> index thread -----+-------------->|  sled: index, live counts,    |
//!                                               |  group metas, state records   |
//!                                               +-------------------------------+
//! ```
//!
//! One log serves all groups of the node. Payload is written once, into append-only segments; sled
//! holds what is needed to find it again, and all of that can be rebuilt from the segments. State
//! records exist in sled only. Nothing here knows Raft or what a message means.

mod applier;
mod body;
mod checkpoint;
mod codec;
mod compact;
mod config;
mod core;
mod damage;
mod dead_counts;
mod dirs;
mod disk;
mod drop;
mod error;
mod export;
mod frame;
mod group;
mod import;
mod index;
mod index_thread;
mod installing;
mod log;
mod metrics;
mod preparer;
mod read;
mod records;
mod recovery;
mod redo;
mod replay;
mod retention;
mod running;
mod scan;
mod segment;
mod sled_guard;
mod snapshot;
mod state_keys;
mod state_store;
mod sync_override;
mod table_cache;
mod tail;
mod tear;
pub mod testing;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;

pub use body::{EntryBody, EntryBodyBuilder};
pub use checkpoint::{CheckpointBatch, Released};
pub use compact::CompactionReport;
pub use config::{LogConfig, SyncPolicy};
pub use damage::DamagedRange;
pub use dirs::create_dir_durably;
pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{Result, StorageError, error_chain};
pub use export::{CheckedEntry, FrozenRecords, SnapshotChunks, SnapshotExport};
pub use import::SnapshotImport;
pub use log::{Done, LogHealth, NodeLog};
pub use metrics::{HistogramSnapshot, LogMetrics};
pub use recovery::RecoveryReport;
pub use retention::{LiveSlots, SegmentInfo};
pub use snapshot::{LiveRange, SnapshotManifest};
pub use state_store::{CheckpointStore, StateScan};
pub use sync_override::sync_calls;

/// Largest entry body. Offsets inside a segment are 32 bits wide, and one entry must fit a segment.
pub const ENTRY_BYTES_MAX: usize = 1 << 30;

/// One of the groups that share the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// One file of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

impl fmt::Display for GroupId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A place in a group's log. `term` and `leader` are stored and given back, never looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPoint {
    pub index: u64,
    pub term: u64,
    pub leader: u64,
}

/// Everything up to and including this entry is hidden from Raft.
pub type PurgePoint = LogPoint;

/// One entry. Indexes of a group are dense; the first may be any number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub index: u64,
    pub term: u64,
    pub leader: u64,
    /// Opaque, stored.
    pub kind: u8,
    pub body: EntryBody,
}

impl LogEntry {
    pub fn point(&self) -> LogPoint {
        LogPoint {
            index: self.index,
            term: self.term,
            leader: self.leader,
        }
    }
}

/// What the log holds of one group, as of the calls made so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    pub purged: Option<PurgePoint>,
    /// Last entry, or the purge point when all entries are purged.
    pub last: Option<LogPoint>,
    pub vote: Option<bytes::Bytes>,
    pub committed: Option<bytes::Bytes>,
    /// Damage to the newest part of the log may have swallowed a later vote, truncation or entry
    /// of this group. With other voters around, the safe answer is to rejoin as a new member.
    pub suspect: bool,
}
