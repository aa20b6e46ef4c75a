//! What callers ask of the writer.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::error::{Result, StorageError};
use crate::frame::HEADER_BYTES;
use crate::log::Done;
use crate::{GroupId, LogEntry, LogPoint, PurgePoint};

pub(crate) enum Op {
    Entries {
        group: GroupId,
        first_id: u64,
        entries: Vec<LogEntry>,
    },
    Restored {
        group: GroupId,
        import: u32,
        entries: Vec<LogEntry>,
    },
    Vote {
        group: GroupId,
        vote: Bytes,
    },
    Truncate {
        group: GroupId,
        last_kept: Option<LogPoint>,
    },
    Purge {
        group: GroupId,
        upto: PurgePoint,
    },
    /// The group has everything again that damage to the log may have swallowed.
    Healed {
        group: GroupId,
    },
    /// Seals the open segment.
    Rotate,
    /// Completes when all before it is durable.
    Sync,
}

impl Op {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Op::Entries { entries, .. } | Op::Restored { entries, .. } => entries
                .iter()
                .map(|entry| (HEADER_BYTES + entry.body.len()) as u64)
                .sum(),
            _ => HEADER_BYTES as u64,
        }
    }

    /// Whether it must be synced whatever the policy says.
    pub(super) fn forces_sync(&self) -> bool {
        !matches!(self, Op::Entries { .. } | Op::Purge { .. })
    }
}

/// An operation and whoever waits for it.
pub(crate) struct Queued {
    pub op: Op,
    pub at: Instant,
    pub bytes: u64,
    /// `None` once it was called.
    done: Option<Done>,
}

impl Queued {
    pub fn new(op: Op, done: Done) -> Self {
        Self {
            at: Instant::now(),
            bytes: op.bytes(),
            op,
            done: Some(done),
        }
    }

    pub fn complete(mut self, outcome: Result<(), Arc<StorageError>>) {
        if let Some(done) = self.done.take() {
            done(outcome);
        }
    }
}

impl Drop for Queued {
    /// Whoever panics leaves nobody waiting.
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(Arc::new(StorageError::Failed {
                reason: "the log's writer panicked".to_owned(),
            })));
        }
    }
}

/// What the writer does next.
pub(crate) enum Work {
    Round {
        ops: Vec<Queued>,
        hints: Vec<(GroupId, Bytes)>,
    },
    /// Nothing came for a while, or the sync interval is over.
    Quiet {
        hints: Vec<(GroupId, Bytes)>,
    },
    /// Finish what is written and end.
    Close,
    Abandon,
}
