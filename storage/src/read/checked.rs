//! Reads of a segment whose bytes are checked before they are used.

use bytes::Bytes;

use super::ATTEMPTS_MAX;
use crate::GroupId;
use crate::core::Core;
use crate::damage::DamagedRange;
use crate::error::{Result, StorageError};
use crate::frame::{FrameHeader, FrameKind, HEADER_BYTES, Position};
use crate::metrics::count;
use crate::records::{EntryKey, IndexRecord, Space};
use crate::segment::SegmentFile;

impl Core {
    /// Runs a read on the segment the record names. When compaction swapped it meanwhile, the
    /// record is looked up again. Failed checks become damage reports with the entry's place.
    pub(super) fn with_record<T>(
        &self,
        key: EntryKey,
        mut record: IndexRecord,
        read: impl Fn(&SegmentFile, &IndexRecord) -> Result<T>,
    ) -> Result<T> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(file) = self.segments.get(record.segment) {
                return read(&file, &record).map_err(|error| self.locate(error, key, &record));
            }
            match self.index.get(key)? {
                Some(newer) => record = newer,
                None => return Err(self.missing(key.group, key.index)),
            }
        }
        Err(self.locate(
            StorageError::InvalidFrame {
                what: "its segment is missing",
            },
            key,
            &record,
        ))
    }

    /// Turns a failed check into an error with the place, and remembers the damage.
    fn locate(&self, error: StorageError, key: EntryKey, record: &IndexRecord) -> StorageError {
        let error = match error {
            StorageError::InvalidBody { what } | StorageError::InvalidFrame { what } => {
                corrupt(record, key, None, what)
            }
            other => other,
        };
        if let StorageError::Corrupt { what, .. } = &error {
            count(&self.metrics.damaged_reads, 1);
            self.report_damage(DamagedRange {
                segment: record.segment.id,
                offset: u64::from(record.offset),
                bytes: u64::from(record.frame_bytes),
                entries: vec![(key.group, key.index..=key.index)],
                what: (*what).to_owned(),
            });
        }
        error
    }

    pub(super) fn missing(&self, group: GroupId, index: u64) -> StorageError {
        self.damaged(group, index)
            .unwrap_or(StorageError::NotFound { group, index })
    }

    /// The error for an entry that a known damaged range swallowed.
    pub(super) fn damaged(&self, group: GroupId, index: u64) -> Option<StorageError> {
        let applier = self.applier.lock();
        let range = applier.damage().iter().find(|range| {
            range
                .entries
                .iter()
                .any(|(hit, indexes)| *hit == group && indexes.contains(&index))
        })?;
        Some(StorageError::Corrupt {
            segment: range.segment,
            offset: range.offset,
            group,
            index,
            slot: None,
            what: "it lay in a damaged range",
        })
    }
}

pub(super) fn place_of(record: &IndexRecord) -> Position {
    Position {
        segment: record.segment.id,
        offset: record.offset,
    }
}

pub(super) fn corrupt(
    record: &IndexRecord,
    key: EntryKey,
    slot: Option<u32>,
    what: &'static str,
) -> StorageError {
    StorageError::Corrupt {
        segment: record.segment.id,
        offset: u64::from(record.offset),
        group: key.group,
        index: key.index,
        slot,
        what,
    }
}

/// A whole frame in the place its record names.
pub(crate) fn read_frame(file: &SegmentFile, record: &IndexRecord) -> Result<(FrameHeader, Bytes)> {
    let frame = file
        .read_exact(u64::from(record.offset), record.frame_bytes as usize)?
        .ok_or(StorageError::InvalidFrame {
            what: "the file ends inside it",
        })?;
    let header = FrameHeader::parse(&frame, place_of(record))?;
    if header.frame_bytes() != u64::from(record.frame_bytes) {
        return Err(StorageError::InvalidFrame {
            what: "length differs from the index",
        });
    }
    Ok((header, frame.slice(HEADER_BYTES..)))
}

/// The frame must be the entry that was asked for, whatever the index says.
pub(super) fn check_identity(header: &FrameHeader, key: EntryKey) -> Result<()> {
    let space = match header.kind {
        FrameKind::Entry => Space::Log,
        FrameKind::Restored => Space::Import(header.extra),
        _ => {
            return Err(StorageError::InvalidFrame {
                what: "not an entry",
            });
        }
    };
    if (space, header.group, header.point.index) != (key.space, key.group, key.index) {
        return Err(StorageError::InvalidFrame {
            what: "another entry stands in its place",
        });
    }
    Ok(())
}
