//! Reading entries and payload: memory first, then the segments by way of the index.
//!
//! Every byte from disk is checked before it leaves here. Bytes that fail are reported as damage and
//! answered with an error that names the place.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::body::{FIXED_BYTES, Layout, SharedTable, SlotTable};
use crate::core::Core;
use crate::damage::DamagedRange;
use crate::error::{Result, StorageError};
use crate::frame::{Content, FrameHeader, FrameKind, HEADER_BYTES, Position};
use crate::metrics::count;
use crate::records::{EntryKey, IndexRecord, Space};
use crate::retention::LiveSlots;
use crate::segment::SegmentFile;
use crate::tail::Found;
use crate::{EntryBody, GroupId, LogEntry, LogPoint};

/// First read of an entry's table: holds a few hundred slots.
const TABLE_GUESS_BYTES: usize = 4096;
/// Index records fetched at once while entries are read.
const RECORDS_MAX: usize = 64;
/// How often a look-up is repeated when the segment it found was swapped meanwhile.
const ATTEMPTS_MAX: usize = 8;

enum Source {
    Memory(LogEntry),
    Disk(EntryKey, IndexRecord),
}

impl Core {
    pub(crate) fn point(&self, group: GroupId, index: u64) -> Result<LogPoint> {
        {
            let state = self.state.lock();
            if let Some(point) = state.tail.point(group, index) {
                return Ok(point);
            }
            let meta = state.tail.meta(group);
            if let Some(purged) = meta.and_then(|meta| meta.purged)
                && purged.index == index
            {
                return Ok(purged);
            }
            if meta
                .and_then(|meta| meta.last)
                .is_none_or(|last| last.index < index)
            {
                return Err(StorageError::NotFound { group, index });
            }
        }
        let key = EntryKey {
            space: Space::Log,
            group,
            index,
        };
        match self.index.get(key)? {
            Some(record) => Ok(record.point(index)),
            None => Err(self.missing(group, index)),
        }
    }

    pub(crate) fn entries(
        &self,
        group: GroupId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>> {
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut bytes = 0;
        let mut next = range.start;
        loop {
            let step = self.next_entries(group, next..range.end)?;
            if step.is_empty() {
                return Ok(entries);
            }
            for (index, found) in step {
                let size = match &found {
                    Found::Entry(entry) => entry.body.len(),
                    Found::Stored(record) => record.frame_bytes as usize,
                };
                if !entries.is_empty() && bytes + size > max_bytes {
                    return Ok(entries);
                }
                let entry = match found {
                    Found::Entry(entry) => {
                        count(&self.metrics.tail_hits, 1);
                        Ok(entry)
                    }
                    Found::Stored(record) => {
                        count(&self.metrics.tail_misses, 1);
                        self.read_entry(group, index, record)
                    }
                };
                match entry {
                    Ok(entry) => {
                        next = entry.index + 1;
                        bytes += size;
                        entries.push(entry);
                    }
                    // What comes before the damage is good; the next call meets it first.
                    Err(_) if !entries.is_empty() => return Ok(entries),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn first_visible(&self, group: GroupId) -> u64 {
        let state = self.state.lock();
        state
            .tail
            .meta(group)
            .map_or(0, |meta| meta.first_visible())
    }

    /// Where the next entries are: all from memory, or all from the index. Empty at the end.
    fn next_entries(&self, group: GroupId, range: Range<u64>) -> Result<Vec<(u64, Found)>> {
        for _ in 0..ATTEMPTS_MAX {
            let (start, stop) = {
                let state = self.state.lock();
                let Some(meta) = state.tail.meta(group) else {
                    return Ok(Vec::new());
                };
                let Some(last) = meta.last_index() else {
                    return Ok(Vec::new());
                };
                let start = range.start.max(meta.first_visible());
                let end = range.end.min(last.saturating_add(1));
                if start >= end {
                    return Ok(Vec::new());
                }
                let in_memory: Vec<(u64, Found)> = (start..end)
                    .take(RECORDS_MAX)
                    .map_while(|index| Some((index, state.tail.find(group, index)?)))
                    .collect();
                if !in_memory.is_empty() {
                    return Ok(in_memory);
                }
                let stop = state.tail.next_present(group, start).unwrap_or(end);
                (start, stop.min(end))
            };
            let records = self
                .index
                .range(Space::Log, group, start..stop, RECORDS_MAX)?;
            let dense: Vec<(u64, Found)> = (start..)
                .zip(records)
                .map_while(|(wanted, (index, record))| {
                    (wanted == index).then_some((index, Found::Stored(record)))
                })
                .collect();
            if !dense.is_empty() {
                return Ok(dense);
            }
            // The first entry: before the log of a group begins there is nothing, which is no gap.
            if !self.has_entry_before(group, start)? {
                let records = self.index.range(Space::Log, group, start..stop, 1)?;
                let first = records.first().map_or(stop, |(index, _)| *index);
                if first > start && self.damaged(group, start).is_none() {
                    return self.next_entries(group, first..range.end);
                }
            }
            if let Some(error) = self.damaged(group, start) {
                return Err(error);
            }
            // Neither memory nor the index had it: it was truncated in between, or look again.
        }
        Err(self.missing(group, range.start))
    }

    fn has_entry_before(&self, group: GroupId, index: u64) -> Result<bool> {
        let first_visible = self.first_visible(group);
        let before = self
            .index
            .range(Space::Log, group, first_visible..index, 1)?;
        Ok(first_visible > 0 || !before.is_empty())
    }

    fn read_entry(&self, group: GroupId, index: u64, record: IndexRecord) -> Result<LogEntry> {
        let key = EntryKey {
            space: Space::Log,
            group,
            index,
        };
        self.with_record(key, record, |file, record| {
            let (header, body) = read_frame(file, record)?;
            check_identity(&header, key)?;
            match header.content(body)? {
                Content::Entry { point, kind, body } => Ok(LogEntry {
                    index: point.index,
                    term: point.term,
                    leader: point.leader,
                    kind,
                    body,
                }),
                _ => Err(StorageError::InvalidFrame {
                    what: "not an entry",
                }),
            }
        })
    }

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
        let (point, kind, body) = match self.source(group, index)? {
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

    /// Runs a read on the segment the record names. When compaction swapped it meanwhile, the
    /// record is looked up again. Failed checks become damage reports with the entry's place.
    fn with_record<T>(
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

    fn missing(&self, group: GroupId, index: u64) -> StorageError {
        self.damaged(group, index)
            .unwrap_or(StorageError::NotFound { group, index })
    }

    /// The error for an entry that a known damaged range swallowed.
    fn damaged(&self, group: GroupId, index: u64) -> Option<StorageError> {
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

fn place_of(record: &IndexRecord) -> Position {
    Position {
        segment: record.segment.id,
        offset: record.offset,
    }
}

fn corrupt(
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
fn check_identity(header: &FrameHeader, key: EntryKey) -> Result<()> {
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
