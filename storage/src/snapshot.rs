//! Snapshots: a group's records and the payload they refer to, as a stream of bounded chunks.
//!
//! An export is a frozen view: commits go on, and keep the old value of every record they change
//! for it. Segments with entries of the group are pinned. The receiver collects the chunks in a
//! staging file, checks them, and installs them: payload becomes frames of the log under the same
//! index and slots, records become a new epoch of the group's state, and one small change switches
//! to both.
//!
//! ```text
//!   chunk: crc u32 | number u64 | items          item: entry | record | end (totals, digest)
//! ```

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use crc32c::{crc32c, crc32c_append};

use crate::checkpoint::{ExportState, StateScan, remove_all};
use crate::codec::{Fields, put_string};
use crate::disk::DiskFile;
use crate::error::{Result, StorageError};
use crate::log::{Core, NodeLog};
use crate::retention::LiveSlots;
use crate::state_keys as keys;
use crate::writer::Op;
use crate::{EntryBody, GroupId, LogEntry, LogPoint};

const VERSION: u32 = 1;
/// A chunk is sent when it reaches this size; one entry may make it larger.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_HEADER_BYTES: usize = 12;
/// Larger chunks than the largest entry makes are refused.
const CHUNK_BYTES_MAX: usize = crate::ENTRY_BYTES_MAX + CHUNK_BYTES + (1 << 16);
/// Payload handed to the log at once while a snapshot is installed.
const INSTALL_BYTES: usize = 4 << 20;
const RECORDS_AT_ONCE: usize = 256;
const EXPORTS_MAX: usize = 8;

const ITEM_ENTRY: u8 = 1;
const ITEM_RECORD: u8 = 2;
const ITEM_END: u8 = 3;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotManifest {
    pub group: GroupId,
    /// The entry the state is the result of. References up to it are carried by the snapshot.
    pub upto: LogPoint,
    /// As given to the checkpoint.
    pub applied: Bytes,
}

impl SnapshotManifest {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32_le(VERSION);
        out.put_u32_le(self.group.0);
        out.put_u64_le(self.upto.index);
        out.put_u64_le(self.upto.term);
        out.put_u64_le(self.upto.leader);
        put_string(&mut out, &self.applied);
        out.freeze()
    }

    pub fn decode(bytes: &[u8]) -> Result<SnapshotManifest> {
        let mut fields = Fields::new(bytes, "snapshot manifest");
        let version = fields.u32()?;
        if version != VERSION {
            return Err(StorageError::Version {
                what: "snapshot",
                found: version,
                known: VERSION,
            });
        }
        Ok(SnapshotManifest {
            group: GroupId(fields.u32()?),
            upto: LogPoint {
                index: fields.u64()?,
                term: fields.u64()?,
                leader: fields.u64()?,
            },
            applied: fields.string()?,
        })
    }
}

/// What of one entry the state refers to. Indexes come in order, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRange {
    pub index: u64,
    pub slots: LiveSlots,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    entries: u64,
    records: u64,
    payload_bytes: u64,
    /// Live slots that could not be read: the receiver will not have them either.
    damaged_slots: u64,
    /// CRC over the CRCs of all chunks before the last.
    digest: u32,
}

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

    /// Starts to receive a snapshot. Nothing of the group changes before
    /// [`SnapshotImport::install`].
    pub fn import_snapshot(&self, manifest: SnapshotManifest) -> Result<SnapshotImport> {
        let core = self.core()?;
        let dir = core.config.staging_dir();
        let path = dir.join(format!("group-{}.import", manifest.group));
        let file = core
            .disk
            .create(&path)
            .map_err(StorageError::io("create", &path))?;
        Ok(SnapshotImport {
            core,
            manifest,
            path,
            file,
            bytes: 0,
            chunks: 0,
            totals: Totals::default(),
            is_complete: false,
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

    /// The next records behind `after`, old values in place of those changed since; `None` stands
    /// for a record that did not exist when the export began.
    fn batch_after(&self, after: Option<&[u8]>) -> Result<Vec<(Vec<u8>, Option<Bytes>)>> {
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
        let group = self.export.manifest.group;
        if range.index > self.export.manifest.upto.index {
            return Err(StorageError::Snapshot {
                what: "a live entry lies behind the snapshot",
            });
        }
        let (entry, damaged_slots) =
            self.export
                .core
                .live_entry(group, range.index, &range.slots)?;
        self.totals.damaged_slots += u64::from(damaged_slots);
        let Some(entry) = entry else {
            return Ok(());
        };
        items.put_u8(ITEM_ENTRY);
        items.put_u64_le(entry.index);
        items.put_u64_le(entry.term);
        items.put_u64_le(entry.leader);
        items.put_u8(entry.kind);
        put_string(items, entry.body.as_bytes());
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

fn chunk_crc(number: u64, items: &[u8]) -> u32 {
    crc32c_append(crc32c(&number.to_le_bytes()), items)
}

enum Item {
    Entry(LogEntry),
    Record(Vec<u8>, Bytes),
    End(Totals),
}

fn take_item(fields: &mut Fields<'_>) -> Result<Item> {
    Ok(match fields.u8()? {
        ITEM_ENTRY => Item::Entry(LogEntry {
            index: fields.u64()?,
            term: fields.u64()?,
            leader: fields.u64()?,
            kind: fields.u8()?,
            body: EntryBody::parse(fields.string()?)?,
        }),
        ITEM_RECORD => Item::Record(fields.string()?.to_vec(), fields.string()?),
        ITEM_END => Item::End(Totals {
            entries: fields.u64()?,
            records: fields.u64()?,
            payload_bytes: fields.u64()?,
            damaged_slots: fields.u64()?,
            digest: fields.u32()?,
        }),
        _ => return Err(wrong("an unknown item")),
    })
}

fn wrong(what: &'static str) -> StorageError {
    StorageError::Snapshot { what }
}

/// A snapshot on its way in. Dropping it before `install` leaves the group as it was.
pub struct SnapshotImport {
    core: Arc<Core>,
    manifest: SnapshotManifest,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    chunks: u64,
    totals: Totals,
    is_complete: bool,
}

impl SnapshotImport {
    pub fn manifest(&self) -> &SnapshotManifest {
        &self.manifest
    }

    /// Chunks received so far: where an interrupted transfer goes on.
    pub fn chunks_received(&self) -> u64 {
        self.chunks
    }

    /// Takes the next chunk. A chunk that does not check is refused and may be sent again.
    pub fn chunk(&mut self, chunk: &[u8]) -> Result<()> {
        if self.is_complete {
            return Err(wrong("a chunk follows the last one"));
        }
        if chunk.len() > CHUNK_BYTES_MAX {
            return Err(StorageError::TooLarge {
                what: "snapshot chunk",
                bytes: chunk.len() as u64,
                allowed: CHUNK_BYTES_MAX as u64,
            });
        }
        let items = check_chunk(chunk, self.chunks)?;
        let mut totals = self.totals;
        let mut is_complete = false;
        let mut fields = Fields::new(items, "snapshot chunk");
        while !fields.is_empty() {
            match take_item(&mut fields)? {
                Item::Entry(entry) => {
                    entry.body.verify()?;
                    if entry.index > self.manifest.upto.index {
                        return Err(wrong("an entry lies behind it"));
                    }
                    totals.entries += 1;
                    totals.payload_bytes += u64::from(entry.body.payload_len());
                }
                Item::Record(..) => totals.records += 1,
                Item::End(said) => {
                    totals.damaged_slots = said.damaged_slots;
                    if said != totals || !fields.is_empty() {
                        return Err(wrong("its totals differ from what was received"));
                    }
                    is_complete = true;
                }
            }
        }
        totals.digest = crc32c_append(totals.digest, &chunk[..4]);
        let length = (chunk.len() as u32).to_le_bytes();
        self.file
            .write_at(self.bytes, &[IoSlice::new(&length), IoSlice::new(chunk)])
            .map_err(StorageError::io("write", &self.path))?;
        self.bytes += (length.len() + chunk.len()) as u64;
        self.chunks += 1;
        self.totals = totals;
        self.is_complete = is_complete;
        Ok(())
    }

    /// Makes the snapshot the group's state. All or nothing: after a crash the group is as before
    /// or as in the snapshot. The caller purges the group's log up to the snapshot afterwards.
    pub fn install(self) -> Result<()> {
        if !self.is_complete {
            return Err(wrong("its end is missing"));
        }
        let group = self.manifest.group;
        let import = self.next_import()?;
        self.write_entries(group, import)?;
        let mut records = StagedItems::new(&self).filter_map(|item| match item {
            Ok(Item::Record(key, value)) => Some(Ok((key, value))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        self.core.replace(
            group,
            &mut records,
            Some(&self.manifest.applied),
            Some((self.manifest.upto.index, import)),
        )
    }

    fn next_import(&self) -> Result<u32> {
        let group = self.manifest.group;
        self.core.index_queue.barrier()?;
        let highest = self.core.index.imports(group)?.into_iter().next_back();
        let current = self.core.commits.boundary(group).map(|(_, import)| import);
        highest
            .max(current)
            .map_or(Some(1), |highest| highest.checked_add(1))
            .ok_or(wrong("import numbers are used up"))
    }

    fn write_entries(&self, group: GroupId, import: u32) -> Result<()> {
        let mut waiting: Vec<LogEntry> = Vec::new();
        let mut bytes = 0;
        let send = |entries: Vec<LogEntry>| {
            self.core
                .submit_and_wait(|_| {
                    Ok(Op::Restored {
                        group,
                        import,
                        entries,
                    })
                })
                .map_err(|error| {
                    Arc::try_unwrap(error).unwrap_or_else(|shared| StorageError::Failed {
                        reason: shared.to_string(),
                    })
                })
        };
        for item in StagedItems::new(self) {
            if let Item::Entry(entry) = item? {
                bytes += entry.body.len();
                waiting.push(entry);
                if bytes >= INSTALL_BYTES {
                    send(std::mem::take(&mut waiting))?;
                    bytes = 0;
                }
            }
        }
        if !waiting.is_empty() {
            send(waiting)?;
        }
        Ok(())
    }
}

impl Drop for SnapshotImport {
    fn drop(&mut self) {
        if let Err(error) = self.core.disk.remove(&self.path) {
            // Replaced by the next import of the group.
            tracing::warn!(path = %self.path.display(), %error, "failed to remove a staged snapshot");
        }
    }
}

fn check_chunk(chunk: &[u8], number: u64) -> Result<&[u8]> {
    let mut fields = Fields::new(chunk, "snapshot chunk");
    let crc = fields.u32()?;
    let found = fields.u64()?;
    let items = &chunk[CHUNK_HEADER_BYTES..];
    if crc != chunk_crc(found, items) {
        return Err(wrong("a chunk fails its checksum"));
    }
    if found != number {
        return Err(wrong("a chunk is out of order"));
    }
    Ok(items)
}

/// Reads a staging file back, one chunk in memory.
struct StagedItems<'a> {
    import: &'a SnapshotImport,
    at: u64,
    number: u64,
    ready: std::vec::IntoIter<Item>,
}

impl<'a> StagedItems<'a> {
    fn new(import: &'a SnapshotImport) -> StagedItems<'a> {
        StagedItems {
            import,
            at: 0,
            number: 0,
            ready: Vec::new().into_iter(),
        }
    }

    fn read_chunk(&mut self) -> Result<()> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let mut chunk = vec![0; u32::from_le_bytes(length) as usize];
        self.read(&mut chunk)?;
        // Checked again: what is installed is what the disk gave back.
        let mut fields = Fields::new(check_chunk(&chunk, self.number)?, "snapshot chunk");
        let mut items = Vec::new();
        while !fields.is_empty() {
            items.push(take_item(&mut fields)?);
        }
        self.number += 1;
        self.ready = items.into_iter();
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        let filled = self
            .import
            .file
            .read_at(self.at, buffer)
            .map_err(StorageError::io("read", &self.import.path))?;
        if filled < buffer.len() {
            return Err(wrong("its staging file is too short"));
        }
        self.at += buffer.len() as u64;
        Ok(())
    }
}

impl Iterator for StagedItems<'_> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.ready.next() {
                return Some(Ok(item));
            }
            if self.number == self.import.chunks {
                return None;
            }
            if let Err(error) = self.read_chunk() {
                self.number = self.import.chunks;
                return Some(Err(error));
            }
        }
    }
}
