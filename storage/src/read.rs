//! Reading entries as Raft sees them: memory first, then the segments by way of the index. `slots`
//! reads payload the same way.
//!
//! Every byte from disk is checked before it leaves here. Bytes that fail are reported as damage and
//! answered with an error that names the place.

mod checked;
mod slots;

use std::ops::Range;

use crate::core::Core;
use crate::error::{Result, StorageError};
use crate::frame::Content;
use crate::metrics::count;
use crate::records::{EntryKey, IndexRecord, Space};
use crate::tail::Found;
use crate::{GroupId, LogEntry, LogPoint};

use checked::check_identity;
pub(crate) use checked::read_frame;

/// Index records fetched at once while entries are read.
const RECORDS_MAX: usize = 64;
/// How often a look-up is repeated when the segment it found was swapped meanwhile.
const ATTEMPTS_MAX: usize = 8;

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
}
