//! The payload of entries, by slot, wherever it is: below the purge point too.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::checked::{check_identity, corrupt, place_of, read_frame};
use crate::body::{FIXED_BYTES, Layout, SharedTable, SlotTable};
use crate::core::Core;
use crate::damage::DamagedRange;
use crate::error::{Result, StorageError};
use crate::frame::{FrameHeader, HEADER_BYTES};
use crate::metrics::count;
use crate::records::{EntryKey, IndexRecord, Space};
use crate::retention::LiveSlots;
use crate::segment::SegmentFile;
use crate::tail::Found;
use crate::{EntryBody, GroupId, LogEntry};

/// First read of an entry's table: holds a few hundred slots.
const TABLE_GUESS_BYTES: usize = 4096;

enum Source {
    Memory(LogEntry),
    Disk(EntryKey, IndexRecord),
}

impl Core {
    pub(crate) fn is_cached(&self, group: GroupId, index: u64) -> bool {
        self.space_of(group, index) == Space::Log
            && matches!(
                self.state.lock().tail.find(group, index),
                Some(Found::Entry(_))
            )
    }

    /// References at or below the index of an installed snapshot mean what came with it.
    fn space_of(&self, group: GroupId, index: u64) -> Space {
        match self.commits.boundary(group) {
            Some((upto, import)) if index <= upto => Space::Import(import),
            _ => Space::Log,
        }
    }

    fn source(&self, group: GroupId, index: u64) -> Result<Source> {
        let key = EntryKey {
            space: self.space_of(group, index),
            group,
            index,
        };
        if key.space == Space::Log {
            match self.state.lock().tail.find(group, index) {
                Some(Found::Entry(entry)) => {
                    count(&self.metrics.tail_hits, 1);
                    return Ok(Source::Memory(entry));
                }
                Some(Found::Stored(record)) => return Ok(Source::Disk(key, record)),
                None => {}
            }
        }
        count(&self.metrics.tail_misses, 1);
        match self.index.get(key)? {
            Some(record) => Ok(Source::Disk(key, record)),
            None => Err(self.missing(group, index)),
        }
    }

    /// Where an entry's payload is stored; `None` if it is not, or only in memory so far.
    pub(crate) fn stored_record(&self, group: GroupId, index: u64) -> Result<Option<IndexRecord>> {
        let key = EntryKey {
            space: self.space_of(group, index),
            group,
            index,
        };
        self.index.get(key)
    }

    pub(crate) fn read_slots(
        &self,
        group: GroupId,
        index: u64,
        slots: Range<u32>,
    ) -> Result<Vec<Bytes>> {
        let absent = |slot| StorageError::Absent { group, index, slot };
        match self.source(group, index)? {
            Source::Memory(LogEntry { body, .. }) => slots
                .map(|slot| {
                    if slot < body.slot_count() && !body.has_slot(slot) {
                        return Err(absent(slot));
                    }
                    body.slot(slot)
                })
                .collect(),
            Source::Disk(key, record) => self.with_record(key, record, |file, record| {
                let table = self.table(file, key, record)?;
                let slot_count = table.layout().slot_count;
                if let Some(slot) = slots.clone().find(|slot| *slot >= slot_count) {
                    return Err(StorageError::NoSuchSlot {
                        slot,
                        count: slot_count,
                    });
                }
                if let Some(slot) = slots.clone().find(|slot| !table.is_present(*slot)) {
                    return Err(absent(slot));
                }
                if slots.is_empty() {
                    return Ok(Vec::new());
                }
                let start = table.range_of(slots.start).start;
                let end = table.range_of(slots.end - 1).end;
                let body_at = u64::from(record.offset) + HEADER_BYTES as u64;
                let payload = file
                    .read_exact(body_at + start as u64, end - start)?
                    .ok_or(StorageError::InvalidFrame {
                        what: "the file ends inside it",
                    })?;
                slots
                    .clone()
                    .map(|slot| {
                        let range = table.range_of(slot);
                        let payload = payload.slice(range.start - start..range.end - start);
                        table.check_slot(slot, &payload).map_err(|_| {
                            corrupt(record, key, Some(slot), "slot fails its checksum")
                        })?;
                        Ok(payload)
                    })
                    .collect()
            }),
        }
    }

    pub(crate) fn read_head(&self, group: GroupId, index: u64) -> Result<Bytes> {
        match self.source(group, index)? {
            Source::Memory(entry) => Ok(entry.body.head()),
            Source::Disk(key, record) => self.with_record(key, record, |file, record| {
                let table = self.table(file, key, record)?;
                let layout = table.layout();
                let head_at = u64::from(record.offset) + (HEADER_BYTES + layout.table_end()) as u64;
                let head = file
                    .read_exact(head_at, layout.head_bytes as usize)?
                    .ok_or(StorageError::InvalidFrame {
                        what: "the file ends inside it",
                    })?;
                table.check_head(&head)?;
                Ok(head)
            }),
        }
    }

    /// An entry with only its live slots that can be read, and how many of them could not. `None`
    /// when nothing of it is left.
    pub(crate) fn live_entry(
        &self,
        group: GroupId,
        index: u64,
        live: &LiveSlots,
    ) -> Result<(Option<LogEntry>, u32)> {
        let source = match self.source(group, index) {
            Ok(source) => source,
            // The receiver gets all the rest.
            Err(error) if error.is_corruption() => return Ok((None, 1)),
            Err(StorageError::NotFound { .. }) => {
                tracing::error!(%group, index, "an entry that is needed is not stored");
                return Ok((None, 1));
            }
            Err(error) => return Err(error),
        };
        let stored = match &source {
            Source::Memory(_) => None,
            Source::Disk(_, record) => Some(*record),
        };
        let (point, kind, body) = match source {
            Source::Memory(entry) => (entry.point(), entry.kind, entry.body),
            Source::Disk(key, record) => {
                let body = self.with_record(key, record, |file, record| {
                    let (header, body) = read_frame(file, record)?;
                    check_identity(&header, key)?;
                    EntryBody::parse(body)
                });
                match body {
                    Ok(body) => (record.point(index), record.kind, body),
                    // Reported by the read; the receiver gets all the rest.
                    Err(error) if error.is_corruption() => return Ok((None, 1)),
                    Err(error) => return Err(error),
                }
            }
        };
        let wanted: Vec<u32> = (0..body.slot_count())
            .filter(|slot| body.has_slot(*slot) && live.contains(*slot))
            .collect();
        let readable: BTreeSet<u32> = wanted
            .iter()
            .copied()
            .filter(|slot| body.slot(*slot).is_ok())
            .collect();
        let damaged = (wanted.len() - readable.len()) as u32;
        if damaged > 0
            && let Some(record) = stored
        {
            self.report_damage(DamagedRange {
                segment: record.segment.id,
                offset: u64::from(record.offset),
                bytes: u64::from(record.frame_bytes),
                entries: vec![(group, index..=index)],
                what: "slot fails its checksum".to_owned(),
            });
        }
        if readable.is_empty() {
            return Ok((None, damaged));
        }
        let entry = LogEntry {
            index,
            term: point.term,
            leader: point.leader,
            kind,
            body: body.thinned(|slot| readable.contains(&slot)),
        };
        Ok((Some(entry), damaged))
    }

    fn table(
        &self,
        file: &SegmentFile,
        key: EntryKey,
        record: &IndexRecord,
    ) -> Result<SharedTable> {
        let cache_key = (record.segment, record.offset);
        if let Some(table) = self.tables.lock().get(&cache_key) {
            return Ok(table);
        }
        let short = StorageError::InvalidFrame {
            what: "the file ends inside it",
        };
        let frame_bytes = record.frame_bytes as usize;
        let offset = u64::from(record.offset);
        let guess = frame_bytes.min(HEADER_BYTES + TABLE_GUESS_BYTES);
        let Some(mut prefix) = file.read_exact(offset, guess)? else {
            return Err(short);
        };
        let header = FrameHeader::parse(&prefix, place_of(record))?;
        check_identity(&header, key)?;
        let fixed = prefix.slice(HEADER_BYTES.min(prefix.len())..);
        if fixed.len() < FIXED_BYTES {
            return Err(StorageError::InvalidBody {
                what: "shorter than its fixed part",
            });
        }
        let table_bytes = HEADER_BYTES + Layout::parse(&fixed)?.table_end();
        if table_bytes > frame_bytes {
            return Err(StorageError::InvalidBody {
                what: "shorter than its table",
            });
        }
        if table_bytes > prefix.len() {
            let Some(longer) = file.read_exact(offset, table_bytes)? else {
                return Err(short);
            };
            prefix = longer;
        }
        let table = SlotTable::parse(&prefix.slice(HEADER_BYTES..))?;
        header.check_table_crc(Layout::parse(&prefix[HEADER_BYTES..])?.table_crc())?;
        if HEADER_BYTES + table.body_bytes() != frame_bytes {
            return Err(StorageError::InvalidBody {
                what: "length differs from its table",
            });
        }
        // Its own copy: the slice would keep the whole read alive.
        let table = Arc::new(table.detached());
        self.tables.lock().insert(cache_key, table.clone());
        Ok(table)
    }
}
