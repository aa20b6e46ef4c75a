//! Receiving a snapshot: chunks are checked and staged, then installed as one.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crc32c::crc32c_append;

use crate::codec::Fields;
use crate::core::Core;
use crate::disk::DiskFile;
use crate::error::{Result, StorageError, unshared};
use crate::installing::InstallMark;
use crate::log::NodeLog;
use crate::snapshot::{
    CHUNK_BYTES_MAX, Item, SnapshotManifest, Totals, check_chunk, take_item, wrong,
};
use crate::writer::Op;
use crate::{GroupId, LogEntry};

/// Payload handed to the log at once while a snapshot is installed.
const INSTALL_BYTES: usize = 4 << 20;

/// Tells the staging files of a process apart, also those of logs that are opened one after another.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

impl NodeLog {
    /// Starts to receive a snapshot. Nothing of the group changes before
    /// [`SnapshotImport::install`].
    pub fn import_snapshot(&self, manifest: SnapshotManifest) -> Result<SnapshotImport> {
        let core = self.core()?;
        // Two of one group may be on their way: Raft's and that of a repair.
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("group-{}-{number}.import", manifest.group);
        let path = core.config.staging_dir().join(name);
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

impl NodeLog {
    /// Gives up what a group holds up to an entry: its state records, and the payload of all entries that
    /// far. What follows stays. All or nothing: after a crash the group is as before or
    /// [vacated](NodeLog::is_vacated), until a snapshot is installed. The caller purges the log that far
    /// afterwards.
    pub fn vacate(&self, group: GroupId, upto: u64) -> Result<()> {
        let core = self.core()?;
        // As an import of nothing would do it: what refers to earlier payload means nothing any more.
        let import = core.next_import(group)?;
        core.replace(group, &mut std::iter::empty(), None, Some((upto, import)))
    }

    /// The entry up to which a group was given up, if it was and has got no state since.
    pub fn is_vacated(&self, group: GroupId) -> Result<Option<u64>> {
        let core = self.core()?;
        core.commits.check_not_lost(group)?;
        match core.commits.boundary(group) {
            Some((upto, _)) if core.applied(group)?.is_none() => Ok(Some(upto)),
            _ => Ok(None),
        }
    }
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

    /// What they take on the disk; installed, the snapshot takes about as much once more.
    pub fn bytes_staged(&self) -> u64 {
        self.bytes
    }

    /// Whether the last chunk has arrived, and with it all that it speaks of.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Messages that the sender could not read: they are not in it.
    pub fn damaged_slots(&self) -> u64 {
        self.totals.damaged_slots
    }

    /// Takes the next chunk. A chunk that does not check is refused and may be sent again, and so may
    /// one that the disk has no room for.
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
        // Installing copies what is staged, here and in other imports: both must fit above the reserve, or
        // the node would fill its disk with one copy after another and have no room to let go of the
        // earlier ones. What is staged already counts.
        self.core
            .admission((chunk.len() as u64).saturating_mul(2))?;
        let length = (chunk.len() as u32).to_le_bytes();
        self.file
            .write_at(self.bytes, &[IoSlice::new(&length), IoSlice::new(chunk)])
            .map_err(StorageError::io("write", &self.path))?;
        let written = (length.len() + chunk.len()) as u64;
        self.core.staged_bytes.fetch_add(written, Ordering::Relaxed);
        self.bytes += written;
        self.chunks += 1;
        self.totals = totals;
        self.is_complete = is_complete;
        Ok(())
    }

    /// Makes the snapshot the group's state. All or nothing: after a crash the group is as before
    /// or as in the snapshot. The caller purges the group's log up to the snapshot afterwards.
    pub fn install(self) -> Result<()> {
        let mark = self.write_payload()?;
        self.switch_to(&mark)
    }

    /// Puts the payload into the log, where it is kept as long as the mark lives.
    pub(crate) fn write_payload(&self) -> Result<InstallMark<'_>> {
        if !self.is_complete {
            return Err(wrong("its end is missing"));
        }
        let group = self.manifest.group;
        let import = self.core.next_import(group)?;
        let mark = self.core.mark_installing(group, import);
        self.write_entries(group, import)?;
        Ok(mark)
    }

    /// Replaces the group's state by the one that refers to the payload.
    pub(crate) fn switch_to(&self, mark: &InstallMark<'_>) -> Result<()> {
        let mut records = StagedItems::new(self).filter_map(|item| match item {
            Ok(Item::Record(key, value)) => Some(Ok((key, value))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        self.core.replace(
            self.manifest.group,
            &mut records,
            Some(&self.manifest.applied),
            Some((self.manifest.upto.index, mark.import)),
        )
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
                .map_err(unshared)
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

impl Core {
    /// A number that no import of the group has had.
    fn next_import(&self, group: GroupId) -> Result<u32> {
        self.index_queue.barrier()?;
        let highest = self.index.imports(group)?.into_iter().next_back();
        let current = self.commits.boundary(group).map(|(_, import)| import);
        highest
            .max(current)
            .map_or(Some(1), |highest| highest.checked_add(1))
            .ok_or(wrong("import numbers are used up"))
    }
}

impl Drop for SnapshotImport {
    fn drop(&mut self) {
        self.core
            .staged_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
        if let Err(error) = self.core.disk.remove(&self.path) {
            // Removed when the log is opened the next time.
            tracing::warn!(path = %self.path.display(), %error, "failed to remove a staged snapshot");
        }
    }
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
