//! Sending a snapshot: a frozen view of a group, given out chunk by chunk.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use crc32c::crc32c_append;

use crate::checkpoint::{ExportState, remove_all};
use crate::codec::{Fields, put_string};
use crate::core::Core;
use crate::error::{Result, StorageError};
use crate::log::NodeLog;
use crate::snapshot::{
    CHUNK_BYTES, CHUNK_HEADER_BYTES, ITEM_END, ITEM_ENTRY, ITEM_RECORD, LiveRange,
    SnapshotManifest, Totals, chunk_crc,
};
use crate::state_keys as keys;
use crate::state_store::StateScan;
use crate::{GroupId, LogEntry, LogPoint};

const RECORDS_AT_ONCE: usize = 256;
const EXPORTS_MAX: usize = 8;

impl NodeLog {
    /// Freezes the group's state as of its latest commit, which must be the result of the log up to
    /// `upto`. Cheap: nothing is copied until the chunks are asked for.
    pub fn export_snapshot(&self, group: GroupId, upto: LogPoint) -> Result<SnapshotExport> {
        let core = self.core()?;
        core.commits.check_not_lost(group)?;
        let mut commits = core.commits.lock();
        if commits.exports.len() >= EXPORTS_MAX {
            return Err(StorageError::Snapshot {
                what: "too many exports run already",
            });
        }
        let number = commits.next_export;
        commits.next_export = number.wrapping_add(1);
        let records_prefix = core.commits.records_prefix(group);
        let applied = core.applied(group)?.ok_or(StorageError::Snapshot {
            what: "the group has no checkpoint",
        })?;
        commits.exports.insert(
            number,
            ExportState {
                group,
                undo_prefix: keys::undo_prefix(number),
            },
        );
        *core.retention.lock().pins.entry(group).or_default() += 1;
        drop(commits);
        Ok(SnapshotExport {
            core,
            number,
            records_prefix,
            manifest: SnapshotManifest {
                group,
                upto,
                applied,
            },
        })
    }
}

/// A frozen view of a group. While it lives, no segment with the group's entries is removed.
pub struct SnapshotExport {
    core: Arc<Core>,
    number: u32,
    records_prefix: Vec<u8>,
    manifest: SnapshotManifest,
}

impl SnapshotExport {
    pub fn manifest(&self) -> &SnapshotManifest {
        &self.manifest
    }

    /// The records as they were when the export began, in order.
    pub fn records(&self) -> FrozenRecords<'_> {
        FrozenRecords {
            export: self,
            ready: Vec::new().into_iter(),
            after: None,
            is_done: false,
        }
    }

    /// The whole snapshot. `live` names what the frozen records refer to.
    pub fn chunks<'a>(
        &'a self,
        live: impl Iterator<Item = Result<LiveRange>> + 'a,
    ) -> SnapshotChunks<'a> {
        SnapshotChunks {
            export: self,
            live: Box::new(live),
            records: self.records(),
            number: 0,
            totals: Totals::default(),
            stage: Stage::Entries,
        }
    }

    /// Reads what is needed of an entry and checks it. What cannot be read is reported as damage.
    pub fn check(&self, live: &LiveRange) -> Result<CheckedEntry> {
        let (entry, damaged) = self.read(live)?;
        let mut checked = CheckedEntry {
            damaged,
            ..CheckedEntry::default()
        };
        let Some(entry) = entry else {
            return Ok(checked);
        };
        let table = entry.body.table();
        for slot in (0..entry.body.slot_count()).filter(|slot| entry.body.has_slot(*slot)) {
            // Checked against the bytes when they were read.
            let slot_crc = table.crc_of(slot);
            checked.crc = crc32c_append(checked.crc, &slot.to_le_bytes());
            checked.crc = crc32c_append(checked.crc, &slot_crc.to_le_bytes());
            checked.messages += 1;
        }
        checked.bytes = u64::from(entry.body.payload_len());
        Ok(checked)
    }

    fn read(&self, live: &LiveRange) -> Result<(Option<LogEntry>, u32)> {
        self.check_open()?;
        let group = self.manifest.group;
        self.core.live_entry(group, live.index, &live.slots)
    }

    /// An export ends with the log: as long as one lives, a log that waits for disk space cannot be opened
    /// again.
    fn check_open(&self) -> Result<()> {
        self.core.state.lock().check_open()
    }

    /// The next records behind `after`, old values in place of those changed since; `None` stands
    /// for a record that did not exist when the export began.
    fn batch_after(&self, after: Option<&[u8]>) -> Result<Vec<(Vec<u8>, Option<Bytes>)>> {
        self.check_open()?;
        // A commit in between would move a record from one of the two scans to the other.
        let _no_commits = self.core.commits.lock();
        if self.core.commits.records_prefix(self.manifest.group) != self.records_prefix {
            return Err(StorageError::Snapshot {
                what: "the group's state was replaced meanwhile",
            });
        }
        let undo_prefix = keys::undo_prefix(self.number);
        let scan = |prefix: &[u8]| {
            let mut scan = StateScan::new(self.core.index.clone(), prefix, b"");
            if let Some(after) = after {
                // The first key that can follow is the same with a zero byte behind it.
                scan.start_at(&[after, &[0]].concat());
            }
            scan.peekable()
        };
        let mut current = scan(&self.records_prefix);
        let mut undone = scan(&undo_prefix);
        let mut batch = Vec::new();
        while batch.len() < RECORDS_AT_ONCE {
            let take_undone = match (current.peek(), undone.peek()) {
                (Some(Ok((key, _))), Some(Ok((old, _)))) if old == key => {
                    current.next();
                    true
                }
                (Some(Ok((key, _))), Some(Ok((old, _)))) => old < key,
                (None, Some(_)) => true,
                (None, None) => break,
                (Some(_), _) => false,
            };
            let next = if take_undone {
                undone.next()
            } else {
                current.next()
            };
            let Some((key, value)) = next.transpose()? else {
                break;
            };
            let value = if take_undone {
                Fields::new(&value, "saved record").optional(Fields::string)?
            } else {
                Some(value)
            };
            batch.push((key, value));
        }
        Ok(batch)
    }
}

impl Drop for SnapshotExport {
    fn drop(&mut self) {
        self.core.commits.lock().exports.remove(&self.number);
        if let Some(pins) = self
            .core
            .retention
            .lock()
            .pins
            .get_mut(&self.manifest.group)
        {
            *pins -= 1;
        }
        if let Err(error) = remove_all(&self.core.index, &keys::undo_prefix(self.number)) {
            // Left to the next start, which removes what no export uses.
            tracing::warn!(%error, "failed to remove what an export had saved");
        }
    }
}

/// What is needed of one entry, as it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckedEntry {
    /// Messages that are whole.
    pub messages: u32,
    /// Their bytes.
    pub bytes: u64,
    /// Over their numbers and checksums.
    pub crc: u32,
    /// Messages that are not whole; 1 if it cannot be told how many.
    pub damaged: u32,
}

/// Records of a frozen view, in the order of their keys.
pub struct FrozenRecords<'a> {
    export: &'a SnapshotExport,
    ready: std::vec::IntoIter<(Vec<u8>, Option<Bytes>)>,
    after: Option<Vec<u8>>,
    is_done: bool,
}

impl Iterator for FrozenRecords<'_> {
    type Item = Result<(Vec<u8>, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            for (key, value) in self.ready.by_ref() {
                if let Some(value) = value {
                    return Some(Ok((key, value)));
                }
            }
            if self.is_done {
                return None;
            }
            match self.export.batch_after(self.after.as_deref()) {
                Ok(batch) => {
                    match batch.last() {
                        Some((key, _)) => self.after = Some(key.clone()),
                        None => self.is_done = true,
                    }
                    self.ready = batch.into_iter();
                }
                Err(error) => {
                    self.is_done = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Entries,
    Records,
    End,
    Done,
}

/// The chunks of a snapshot. Memory: one chunk, and one entry.
pub struct SnapshotChunks<'a> {
    export: &'a SnapshotExport,
    live: Box<dyn Iterator<Item = Result<LiveRange>> + 'a>,
    records: FrozenRecords<'a>,
    number: u64,
    totals: Totals,
    stage: Stage,
}

impl SnapshotChunks<'_> {
    fn next_chunk(&mut self) -> Result<Bytes> {
        let mut items = BytesMut::new();
        while items.len() < CHUNK_BYTES && self.stage != Stage::Done {
            match self.stage {
                Stage::Entries => match self.live.next().transpose()? {
                    Some(range) => self.put_entry(&range, &mut items)?,
                    None => self.stage = Stage::Records,
                },
                Stage::Records => match self.records.next().transpose()? {
                    Some((key, value)) => {
                        items.put_u8(ITEM_RECORD);
                        put_string(&mut items, &key);
                        put_string(&mut items, &value);
                        self.totals.records += 1;
                    }
                    None => {
                        self.stage = Stage::End;
                        // The end is a chunk of its own: its digest covers all before it.
                        if !items.is_empty() {
                            break;
                        }
                    }
                },
                Stage::End => {
                    items.put_u8(ITEM_END);
                    items.put_u64_le(self.totals.entries);
                    items.put_u64_le(self.totals.records);
                    items.put_u64_le(self.totals.payload_bytes);
                    items.put_u64_le(self.totals.damaged_slots);
                    items.put_u32_le(self.totals.digest);
                    self.stage = Stage::Done;
                }
                Stage::Done => {}
            }
        }
        let mut chunk = BytesMut::with_capacity(CHUNK_HEADER_BYTES + items.len());
        chunk.put_u32_le(chunk_crc(self.number, &items));
        chunk.put_u64_le(self.number);
        chunk.put_slice(&items);
        self.number += 1;
        self.totals.digest = crc32c_append(self.totals.digest, &chunk[..4]);
        Ok(chunk.freeze())
    }

    fn put_entry(&mut self, range: &LiveRange, items: &mut BytesMut) -> Result<()> {
        if range.index > self.export.manifest.upto.index {
            return Err(StorageError::Snapshot {
                what: "a live entry lies behind the snapshot",
            });
        }
        let (entry, damaged_slots) = self.export.read(range)?;
        self.totals.damaged_slots += u64::from(damaged_slots);
        let Some(entry) = entry else {
            return Ok(());
        };
        items.put_u8(ITEM_ENTRY);
        items.put_u64_le(entry.index);
        items.put_u64_le(entry.term);
        items.put_u64_le(entry.leader);
        items.put_u8(entry.kind);
        put_string(items, &entry.body.to_bytes());
        self.totals.entries += 1;
        self.totals.payload_bytes += u64::from(entry.body.payload_len());
        Ok(())
    }
}

impl Iterator for SnapshotChunks<'_> {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.stage == Stage::Done {
            return None;
        }
        let chunk = self.next_chunk();
        if chunk.is_err() {
            self.stage = Stage::Done;
        }
        Some(chunk)
    }
}
