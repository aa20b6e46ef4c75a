//! The errors of the crate, each with the facts a caller or an operator needs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{GroupId, SegmentId};

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("could not {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "segment {segment} is damaged at byte {offset} (group {group}, entry {index}{}): {what}",
        slot.map(|slot| format!(", slot {slot}")).unwrap_or_default()
    )]
    Corrupt {
        segment: SegmentId,
        offset: u64,
        group: GroupId,
        index: u64,
        slot: Option<u32>,
        what: &'static str,
    },
    #[error("entry body is malformed: {what}")]
    InvalidBody { what: &'static str },
    #[error("frame is malformed: {what}")]
    InvalidFrame { what: &'static str },
    #[error("stored record is malformed: {what}")]
    InvalidRecord { what: &'static str },
    #[error("slot {slot} of entry {index} of group {group} was released and is no longer stored")]
    Absent {
        group: GroupId,
        index: u64,
        slot: u32,
    },
    #[error("entry {index} of group {group} is not stored")]
    NotFound { group: GroupId, index: u64 },
    #[error("slot {slot} does not exist in an entry of {count} slots")]
    NoSuchSlot { slot: u32, count: u32 },
    #[error("append of entry {index} to group {group} would leave a gap after {last}")]
    Gap {
        group: GroupId,
        index: u64,
        last: u64,
    },
    #[error("{what} of {bytes} bytes is above the limit of {allowed}")]
    TooLarge {
        what: &'static str,
        bytes: u64,
        allowed: u64,
    },
    #[error("storage is full: {free} bytes are free, {reserve} are held in reserve")]
    Full { free: u64, reserve: u64 },
    #[error("write queue is full: {queued_bytes} bytes wait, {limit} are allowed")]
    QueueFull { queued_bytes: u64, limit: u64 },
    #[error("the log of this node has stopped: {reason}")]
    Failed { reason: String },
    #[error("the log of this node waits for disk space: {reason}")]
    FullWaiting { reason: String },
    #[error("the log of this node is closed")]
    Closed,
    #[error("could not {action} in the index database")]
    Index {
        action: &'static str,
        #[source]
        source: sled::Error,
    },
    #[error("the index database panicked during {action}: {message}")]
    IndexPanicked {
        action: &'static str,
        message: String,
    },
    #[error(
        "the state of group {group} is lost and its log before entry {purged} is gone: \
         restore the group from another replica or a backup"
    )]
    StateLost { group: GroupId, purged: u64 },
    #[error("{what} has format version {found}, this build knows up to {known}")]
    Version {
        what: &'static str,
        found: u32,
        known: u32,
    },
    #[error("snapshot does not fit: {what}")]
    Snapshot { what: &'static str },
    #[error("segment {segment} cannot be {action}: {why}")]
    SegmentBusy {
        segment: SegmentId,
        action: &'static str,
        why: &'static str,
    },
    #[error("configuration value {key} is not usable: {why}")]
    Config {
        key: &'static str,
        why: &'static str,
    },
}

impl StorageError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> StorageError {
        let path = path.into();
        move |source| StorageError::Io {
            action,
            path,
            source,
        }
    }

    /// Whether space on the disk is all that is missing, so that the operation may work later.
    pub fn is_out_of_space(&self) -> bool {
        match self {
            StorageError::Io { source, .. } => is_enospc(source),
            StorageError::Index {
                source: sled::Error::Io(source),
                ..
            } => is_enospc(source) || source.to_string().contains("StorageFull"),
            StorageError::Full { .. } | StorageError::FullWaiting { .. } => true,
            _ => false,
        }
    }

    /// Whether one segment is what stands in the way, and others are not concerned.
    pub fn is_about_segment(&self) -> bool {
        matches!(self, StorageError::SegmentBusy { .. })
    }

    /// Whether stored bytes fail their checksum or are missing.
    pub fn is_corruption(&self) -> bool {
        matches!(
            self,
            StorageError::Corrupt { .. }
                | StorageError::InvalidBody { .. }
                | StorageError::InvalidFrame { .. }
                | StorageError::InvalidRecord { .. }
        )
    }
}

/// The error of a shared outcome, for a caller who is alone with it.
pub(crate) fn unshared(error: Arc<StorageError>) -> StorageError {
    Arc::try_unwrap(error).unwrap_or_else(|shared| match shared.is_out_of_space() {
        true => StorageError::FullWaiting {
            reason: shared.to_string(),
        },
        false => StorageError::Failed {
            reason: shared.to_string(),
        },
    })
}

pub(crate) fn is_enospc(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
        || matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// An error and its sources in one line, for places that keep only text.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Wrappers that print their source already would say it twice.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
