//! Damaged parts of a segment that is rewritten: they go when nothing in them is needed.

use std::ops::Range;

use super::{Needs, key_of, refusal};
use crate::core::Core;
use crate::error::{Result, StorageError};
use crate::frame::{FrameHeader, FrameKind};
use crate::index::Index;
use crate::records::{EntryKey, IndexRecord, Space};
use crate::retention::{LiveSlots, SegmentStats};
use crate::segment::{SegmentFile, SegmentKey};

/// Index records looked at at once.
const RECORDS_AT_ONCE: usize = 1_024;

pub(super) fn damaged(file: &SegmentFile) -> StorageError {
    refusal(file.key.id, "it is damaged")
}

impl Core {
    /// Whether the index looks for the entry in this place.
    pub(super) fn is_current(
        &self,
        key: EntryKey,
        segment: SegmentKey,
        offset: u32,
    ) -> Result<bool> {
        let record = self.index.get(key)?;
        Ok(record.is_some_and(|record| record.segment == segment && record.offset == offset))
    }

    /// Whether anything of a frame whose body is damaged would have to be kept.
    pub(super) fn is_needed(
        &self,
        header: &FrameHeader,
        at: u64,
        old: &SegmentFile,
        needs: &Needs,
    ) -> Result<bool> {
        let Some(key) = key_of(header) else {
            // Folded into the preamble of every later segment, but for the segment's own.
            return Ok(header.kind == FrameKind::Preamble);
        };
        Ok(
            self.is_current(key, old.key, at as u32)?
                && self.live_of(key, needs) != LiveSlots::None,
        )
    }

    /// The entries that the index looks for in a stretch in which nothing is readable; `None` if something
    /// of them would have to be kept.
    pub(super) fn dead_in_gap(
        &self,
        gap: Range<u64>,
        segment: &SegmentStats,
        needs: &Needs,
    ) -> Result<Option<Vec<EntryKey>>> {
        let mut dead = self.index.entries_in(segment)?;
        dead.retain(|(_, record)| gap.contains(&u64::from(record.offset)));
        let dead: Vec<EntryKey> = dead.into_iter().map(|(key, _)| key).collect();
        let is_dead = |key: &EntryKey| self.live_of(*key, needs) == LiveSlots::None;
        Ok(dead.iter().all(is_dead).then_some(dead))
    }
}

impl Index {
    /// The entries that the index looks for in a segment, by the index alone. It goes through all records of
    /// the groups that are in it: only for segments that cannot tell themselves, and after crashes.
    pub(crate) fn entries_in(
        &self,
        segment: &SegmentStats,
    ) -> Result<Vec<(EntryKey, IndexRecord)>> {
        let mut found = Vec::new();
        for group in segment.shares.keys() {
            let imports = self.imports(*group)?.into_iter().map(Space::Import);
            for space in imports.chain([Space::Log]) {
                let mut next = 0;
                loop {
                    let records = self.range(space, *group, next..u64::MAX, RECORDS_AT_ONCE)?;
                    let Some((last, _)) = records.last() else {
                        break;
                    };
                    next = last + 1;
                    let here = records
                        .into_iter()
                        .filter(|(_, record)| record.segment == segment.key());
                    found.extend(here.map(|(index, record)| {
                        let key = EntryKey {
                            space,
                            group: *group,
                            index,
                        };
                        (key, record)
                    }));
                }
            }
        }
        Ok(found)
    }
}
