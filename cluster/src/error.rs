//! The errors of the crate: what became of a request, and what the caller may do about it.

use std::io;
use std::sync::Arc;

use flotilla_model::ids::{LogIndex, NodeId, ShardId};
use flotilla_storage::StorageError;
pub(crate) use flotilla_storage::error_chain as chain;

/// Cheap to clone, because one failed entry answers many callers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClusterError {
    /// This node does not lead the shard, and only the leader can do what was asked. Nothing was applied.
    /// Proposals never end so: they go to the leader, wherever it is.
    #[error("this node does not lead the shard{}", hint.map(|node| format!(", node {node} does")).unwrap_or_default())]
    NotLeader {
        /// Who does, if that is known.
        hint: Option<NodeId>,
    },
    /// No place among the shard's entries in flight before the deadline. Nothing was applied.
    #[error("the shard is busy: no place in flight before the deadline")]
    Busy,
    /// Free disk space is below the reserve. Nothing was applied.
    #[error("storage is full: {free} bytes are free, {reserve} are held in reserve")]
    Full {
        /// What is left.
        free: u64,
        /// What must be left.
        reserve: u64,
    },
    /// The batch was handed to the log, and whether it was or will be applied is not known.
    #[error("outcome unknown: {reason}")]
    OutcomeUnknown {
        /// What was in the way of the answer.
        reason: String,
    },
    /// The shard cannot serve now. Nothing was applied.
    #[error("the shard is unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// A batch above what one entry can hold. Nothing was applied.
    #[error("a batch of {bytes} bytes is above the limit of {bytes_max}")]
    TooLarge {
        /// What was given.
        bytes: u64,
        /// What is allowed.
        bytes_max: u64,
    },
    /// Commands and slots that do not make an entry: a mistake of the caller. Nothing was applied.
    #[error("not a batch: {what}")]
    Invalid {
        /// What does not fit.
        what: String,
    },
    /// The message was released, and its bytes may be gone.
    #[error("slot {slot} of entry {index} of shard {shard} was released and is no longer stored")]
    Absent {
        /// The shard.
        shard: ShardId,
        /// The entry.
        index: LogIndex,
        /// The first of the slots asked for that is missing.
        slot: u32,
    },
    /// Stored bytes that fail their check, of messages: on all replicas. Nothing wrong is served.
    #[error("shard {shard}: {what}")]
    Corrupt {
        /// The shard.
        shard: ShardId,
        /// Where, precisely.
        what: String,
    },
    /// Stored bytes that fail their check here, and another replica that may have them whole did not give
    /// them: nothing is lost yet.
    #[error("shard {shard}: {what}; {reason}")]
    Unread {
        /// The shard.
        shard: ShardId,
        /// Where, precisely.
        what: String,
        /// Which replica did not answer, and why.
        reason: String,
    },
    /// A change of the cluster that its records do not allow. Nothing was changed.
    #[error("refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The data directory belongs to someone else, or to a newer version.
    #[error("{what}")]
    Identity {
        /// What is wrong with it.
        what: String,
    },
    /// What is stored, or what the cluster does by now, is of a later release than this node follows.
    #[error(
        "{what} is of feature level {needed}, this node follows levels up to {known}: use the release that \
         the other nodes have, and no lower cluster.feature_level_max"
    )]
    FeatureLevel {
        /// What was met.
        what: String,
        /// Its level.
        needed: u16,
        /// The highest that this node follows.
        known: u16,
    },
    /// A setting outside its range.
    #[error("configuration value {key} is not usable: {why}")]
    Config {
        /// Which one.
        key: &'static str,
        /// What is allowed.
        why: &'static str,
    },
    /// The node's log or state store failed.
    #[error("storage: {source}")]
    Storage {
        /// What it said.
        #[source]
        source: Arc<StorageError>,
    },
    /// A file beside the log could not be read or written.
    #[error("could not {action}")]
    Io {
        /// What was tried, on which file.
        action: String,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The node is shutting down. Nothing was applied.
    #[error("the node is shutting down")]
    Stopped,
}

impl From<StorageError> for ClusterError {
    fn from(error: StorageError) -> Self {
        Self::from(Arc::new(error))
    }
}

impl From<Arc<StorageError>> for ClusterError {
    fn from(source: Arc<StorageError>) -> Self {
        match &*source {
            StorageError::Full { free, reserve } => Self::Full {
                free: *free,
                reserve: *reserve,
            },
            _ => Self::Storage { source },
        }
    }
}

impl ClusterError {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io {
            action,
            source: Arc::new(source),
        }
    }

    /// An error of reading a shard's payload, in the words of the floors above.
    pub(crate) fn of_read(shard: ShardId, error: StorageError) -> Self {
        match error {
            StorageError::Absent { index, slot, .. } => Self::Absent {
                shard,
                index: LogIndex(index),
                slot,
            },
            // The whole entry is gone with its segment: all its slots were released.
            StorageError::NotFound { index, .. } => Self::Absent {
                shard,
                index: LogIndex(index),
                slot: 0,
            },
            error if error.is_corruption() => Self::Corrupt {
                shard,
                what: error.to_string(),
            },
            error => Self::from(error),
        }
    }
}
