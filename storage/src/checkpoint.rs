//! The durable state of the groups.
//!
//! A group's records live under an epoch. A commit changes some of them, the applied position and
//! the dead counts of segments as one. Replacing all of a group's state writes the new records under
//! the next epoch, however many there are, and then switches with one small change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};

use crate::codec::{Fields, put_optional, put_string};
use crate::core::Core;
use crate::dead_counts;
use crate::error::{Result, StorageError, unshared};
use crate::index::Index;
use crate::metrics::count;
use crate::redo::{self, CHUNK, Change};
use crate::retention::Retention;
use crate::sled_guard::guarded;
use crate::state_keys as keys;
use crate::writer::Op;
use crate::{GroupId, SegmentId};
use std::ops::Range;

/// Slots of one entry that no record refers to any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    pub index: u64,
    /// For compaction that runs at the same time; the count below is what is added up.
    pub slots: Range<u32>,
    /// Payload bytes of those slots.
    pub bytes: u64,
}

/// One checkpoint of one group.
#[derive(Clone, Debug, Default)]
pub struct CheckpointBatch {
    /// Keys of at most 64 bytes; `None` removes. A later change of a key wins.
    pub changes: Vec<(Vec<u8>, Option<Bytes>)>,
    /// Opaque: what the records are the result of.
    pub applied: Bytes,
    /// Each slot may be released once.
    pub released: Vec<Released>,
}

/// What is known of a group's state without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct GroupHeader {
    epoch: u32,
    /// References up to this index mean the payload that came with this import.
    boundary: Option<(u64, u32)>,
    /// The state was lost together with the database, and the log before this entry is gone.
    lost: Option<u64>,
}

impl GroupHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        out.put_u32_le(self.epoch);
        put_optional(&mut out, self.boundary.as_ref(), |out, (upto, import)| {
            out.put_u64_le(*upto);
            out.put_u32_le(*import);
        });
        put_optional(&mut out, self.lost.as_ref(), |out, purged| {
            out.put_u64_le(*purged)
        });
        out.to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<GroupHeader> {
        let mut fields = Fields::new(bytes, "group checkpoint");
        Ok(GroupHeader {
            epoch: fields.u32()?,
            boundary: fields.optional(|fields| Ok((fields.u64()?, fields.u32()?)))?,
            lost: fields.optional(Fields::u64)?,
        })
    }
}

/// A running export: the old value of every record changed meanwhile is kept for it.
pub(crate) struct ExportState {
    pub group: GroupId,
    pub undo_prefix: Vec<u8>,
}

/// What commits change besides the records.
#[derive(Default)]
pub(crate) struct CommitState {
    pub exports: BTreeMap<u32, ExportState>,
    pub next_export: u32,
    /// Segments a compaction works on, with what was released from them meanwhile. One that holds
    /// something of a group whose state is replaced is taken out: its compaction gives up.
    pub compacting: HashMap<SegmentId, Vec<(GroupId, Released)>>,
}

#[derive(Default)]
pub(crate) struct Commits {
    headers: Mutex<BTreeMap<GroupId, GroupHeader>>,
    durable: AtomicU64,
    /// One commit at a time; compaction takes it for the moment of its switch.
    state: Mutex<CommitState>,
}

impl Commits {
    /// Reads the headers and dead counts, and removes what unfinished work left behind.
    pub(crate) fn load(index: &Index, retention: &mut Retention) -> Result<Commits> {
        let tree = &index.state;
        let mut headers = BTreeMap::new();
        for item in tree.scan_prefix(keys::GROUP_PREFIX) {
            let (key, value) = guarded("read group checkpoints", || item)?;
            let group = crate::records::number_at(&key, 1).ok_or(StorageError::InvalidRecord {
                what: "group checkpoint key",
            })?;
            headers.insert(GroupId(group), GroupHeader::decode(&value)?);
        }
        dead_counts::load(index, retention)?;
        remove_all(index, keys::UNDO_PREFIX)?;
        let durable = match guarded("read the commit count", || tree.get(keys::COMMITS_KEY))? {
            Some(value) => Fields::new(&value, "commit count").u64()?,
            None => 0,
        };
        let commits = Commits {
            headers: Mutex::new(headers),
            durable: AtomicU64::new(durable),
            state: Mutex::default(),
        };
        commits.remove_other_epochs(index)?;
        Ok(commits)
    }

    fn remove_other_epochs(&self, index: &Index) -> Result<()> {
        let tree = &index.state;
        let mut from = keys::RECORD_PREFIX.to_vec();
        // One step per (group, epoch) that exists.
        while let Some((key, _)) = guarded("look for old state", || {
            tree.range(from.clone()..).next().transpose()
        })? {
            if !key.starts_with(keys::RECORD_PREFIX) {
                break;
            }
            let (Some(group), Some(epoch)) = (
                crate::records::number_at(&key, 1),
                crate::records::number_at(&key, 5),
            ) else {
                break;
            };
            let group = GroupId(group);
            if self.header(group).epoch != epoch {
                remove_all(index, &keys::records_prefix(group, epoch))?;
                remove_all(index, &keys::applied_prefix(group, epoch))?;
            }
            let mut next = keys::records_prefix(group, epoch);
            next.extend_from_slice(&[0xFF; 72]);
            from = next;
        }
        Ok(())
    }

    fn header(&self, group: GroupId) -> GroupHeader {
        self.headers.lock().get(&group).copied().unwrap_or_default()
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn boundary(&self, group: GroupId) -> Option<(u64, u32)> {
        self.headers.lock().get(&group)?.boundary
    }

    pub(crate) fn check_not_lost(&self, group: GroupId) -> Result<()> {
        match self.header(group).lost {
            Some(purged) => Err(StorageError::StateLost { group, purged }),
            None => Ok(()),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, CommitState> {
        self.state.lock()
    }

    pub(crate) fn records_prefix(&self, group: GroupId) -> Vec<u8> {
        keys::records_prefix(group, self.header(group).epoch)
    }

    /// Remembers that a group cannot be brought back from what is on this disk.
    pub(crate) fn mark_lost(&self, index: &Index, group: GroupId, purged: u64) -> Result<()> {
        let mut headers = self.headers.lock();
        let header = headers.entry(group).or_default();
        header.lost = Some(purged);
        let mut batch = sled::Batch::default();
        batch.insert(keys::group_key(group), header.encode());
        index.apply_state(batch)
    }

    /// The commit count goes on from what the segments prove, never back.
    pub(crate) fn raise_durable(&self, commits: u64) {
        self.durable.fetch_max(commits, Ordering::AcqRel);
    }
}

/// Removes every key under a prefix, a few at a time.
pub(crate) fn remove_all(index: &Index, prefix: &[u8]) -> Result<()> {
    loop {
        let mut changes: Vec<Change> = Vec::new();
        for item in index.state.scan_prefix(prefix).keys().take(CHUNK) {
            changes.push((guarded("look for old state", || item)?.to_vec(), None));
        }
        if changes.is_empty() {
            return Ok(());
        }
        index.apply_state(redo::batch_of(&changes))?;
    }
}

impl Core {
    pub(crate) fn commit(&self, group: GroupId, batch: CheckpointBatch) -> Result<()> {
        self.commits.check_not_lost(group)?;
        self.make_log_durable()?;
        let mut state = self.commits.lock();
        let header = self.commits.header(group);
        let prefix = keys::records_prefix(group, header.epoch);
        let tree = &self.index.state;
        let mut latest: BTreeMap<Vec<u8>, Option<Bytes>> = BTreeMap::new();
        for (key, value) in batch.changes {
            check_key(&key)?;
            latest.insert(key, value);
        }
        let mut changes: Vec<Change> = Vec::with_capacity(latest.len() + 4);
        for export in state
            .exports
            .values()
            .filter(|export| export.group == group)
        {
            for key in latest.keys() {
                self.save_old_value(&export.undo_prefix, &prefix, key, &mut changes)?;
            }
        }
        for (key, value) in &latest {
            keys::put(tree, &prefix, key, value.as_deref(), &mut changes)?;
        }
        let applied_prefix = keys::applied_prefix(group, header.epoch);
        keys::put(
            tree,
            &applied_prefix,
            b"",
            Some(&batch.applied),
            &mut changes,
        )?;
        let dead = self.count_released(&mut state, group, batch.released, &mut changes)?;
        let commits = self.commits.durable() + 1;
        changes.push((
            keys::COMMITS_KEY.to_vec(),
            Some(commits.to_le_bytes().to_vec()),
        ));
        self.write_state(&changes)?;
        self.commits.durable.store(commits, Ordering::Release);
        // Only now: what is not durable must not let a segment go.
        let mut retention = self.retention.lock();
        for (key, bytes) in dead {
            if let Some(stats) = retention.segments.get_mut(&key.id)
                && stats.generation == key.generation
            {
                stats.shares.entry(group).or_default().dead += bytes;
            }
        }
        drop(retention);
        count(&self.metrics.checkpoints, 1);
        Ok(())
    }

    /// A checkpoint must never be ahead of the log it is the result of, nor count what was released
    /// in entries that the index does not know.
    fn make_log_durable(&self) -> Result<()> {
        self.submit_and_wait(|_| Ok(Op::Sync)).map_err(unshared)?;
        self.index_queue.barrier()
    }

    pub(crate) fn applied(&self, group: GroupId) -> Result<Option<Bytes>> {
        let prefix = keys::applied_prefix(group, self.commits.header(group).epoch);
        keys::get(&self.index.state, &prefix, b"")
    }

    fn write_state(&self, changes: &[Change]) -> Result<()> {
        let outcome = redo::commit(&self.config, self.disk.as_ref(), &self.index, changes);
        if let Err(error) = outcome {
            // sled refuses everything after a failed write, and whether this commit is there is
            // open: only a restart of the log can tell.
            return Err(self.stopped_by(error));
        }
        Ok(())
    }

    fn save_old_value(
        &self,
        undo_prefix: &[u8],
        prefix: &[u8],
        key: &[u8],
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let tree = &self.index.state;
        if keys::get(tree, undo_prefix, key)?.is_some() {
            return Ok(());
        }
        let mut saved = BytesMut::new();
        put_optional(
            &mut saved,
            keys::get(tree, prefix, key)?.as_ref(),
            |out, old| put_string(out, old),
        );
        keys::put(tree, undo_prefix, key, Some(&saved), changes)
    }

    /// Replaces all state of a group. The records may be many; memory stays bounded. `boundary`
    /// names the payload that references up to an index mean from now on.
    pub(crate) fn replace(
        &self,
        group: GroupId,
        records: &mut dyn Iterator<Item = Result<(Vec<u8>, Bytes)>>,
        applied: Option<&Bytes>,
        boundary: Option<(u64, u32)>,
    ) -> Result<()> {
        let old = self.commits.header(group);
        let header = GroupHeader {
            epoch: old.epoch.wrapping_add(1),
            boundary,
            lost: None,
        };
        let prefix = keys::records_prefix(group, header.epoch);
        remove_all(&self.index, &prefix)?;
        let tree = &self.index.state;
        let mut changes: Vec<Change> = Vec::new();
        let mut previous: BTreeSet<Vec<u8>> = BTreeSet::new();
        for record in records {
            let (key, value) = record?;
            check_key(&key)?;
            // A repeated key within one chunk would leave stale pieces.
            if !previous.insert(key.clone()) || changes.len() >= CHUNK {
                self.index.apply_state(redo::batch_of(&changes))?;
                changes.clear();
                previous.clear();
                previous.insert(key.clone());
            }
            keys::put(tree, &prefix, &key, Some(&value), &mut changes)?;
        }
        self.index.apply_state(redo::batch_of(&changes))?;
        changes.clear();

        self.make_log_durable()?;
        let mut state = self.commits.lock();
        if let Some(applied) = applied {
            let applied_prefix = keys::applied_prefix(group, header.epoch);
            keys::put(tree, &applied_prefix, b"", Some(applied), &mut changes)?;
        }
        changes.push((keys::group_key(group), Some(header.encode())));
        // Nobody is between the counts and the index meanwhile.
        let applier = self.applier.lock();
        let dead = self.dead_after_replace(group, boundary)?;
        drop(applier);
        for (segment, bytes) in &dead {
            changes.push((
                keys::dead_key(*segment, group),
                Some(bytes.to_le_bytes().to_vec()),
            ));
            // It goes by the old state, and all it keeps for that would count as live for good.
            state.compacting.remove(&segment.id);
        }
        let commits = self.commits.durable() + 1;
        changes.push((
            keys::COMMITS_KEY.to_vec(),
            Some(commits.to_le_bytes().to_vec()),
        ));
        self.write_state(&changes)?;
        self.commits.durable.store(commits, Ordering::Release);
        self.commits.headers.lock().insert(group, header);
        let mut retention = self.retention.lock();
        for (segment, bytes) in dead {
            if let Some(share) = retention.share(segment.id, group) {
                share.dead = bytes;
            }
        }
        drop(retention);
        drop(state);
        remove_all(&self.index, &keys::records_prefix(group, old.epoch))?;
        remove_all(&self.index, &keys::applied_prefix(group, old.epoch))
    }
}

fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > keys::KEY_BYTES_MAX {
        return Err(StorageError::TooLarge {
            what: "state record key",
            bytes: key.len() as u64,
            allowed: keys::KEY_BYTES_MAX as u64,
        });
    }
    Ok(())
}
