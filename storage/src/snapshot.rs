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

    /// The next records behind `after`, old values in place of those changed since.
    fn batch_after(&self, after: Option<&[u8]>) -> Result<Vec<(Vec<u8>, Bytes)>> {
        let commits = self.core.commits.lock();
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
            if !take_undone {
                batch.push((key, value));
            } else if let Some(old) =
                Fields::new(&value, "saved record").optional(Fields::string)?
            {
                batch.push((key, old));
            } else {
                // Created since: not there in the frozen view, but progress must show.
                batch.push((key, Bytes::new()));
                let created = batch.len() - 1;
                batch[created].1 = Bytes::from_static(CREATED_SINCE);
            }
        }
        drop(commits);
        Ok(batch)
    }
}

/// Stands for a record that did not exist when the export began.
const CREATED_SINCE: &[u8] = b"\0flotilla: created since";

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
