//! The one way by which frames get into the index.
//!
//! The index thread and recovery feed the same [`Applier`], with the same operations in the order of
//! the log, so an index rebuilt from the segments equals the one written behind. Every batch carries
//! the position it reaches: after a crash the scan goes on from there.
//!
//! sled takes a process-wide lock for the length of a batch, which stops every reader; batches are
//! therefore small.

mod damage;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::damage::DamagedRange;
use crate::error::{Result, StorageError};
use crate::frame::Position;
use crate::group::{GroupMeta, GroupTable, SegmentPreamble};
use crate::index::Index;
use crate::records::{
    EntryKey, IndexRecord, Indexed, POSITION_KEY, SegmentRecord, Space, damage_key, group_key,
    segment_key, share_key,
};
use crate::retention::{Retention, SegmentStats};
use crate::segment::SegmentKey;
use crate::sled_guard::guarded;
use crate::{GroupId, LogPoint, SegmentId};

/// Changes per sled batch: a fraction of a millisecond under sled's lock.
const BATCH_CHANGES_MAX: usize = 256;

/// One frame as the index sees it.
#[derive(Clone, Debug)]
pub(crate) enum LogOp {
    SegmentStarted(Option<SegmentPreamble>),
    SegmentEnded {
        end: u64,
    },
    Entry {
        group: GroupId,
        space: Space,
        point: LogPoint,
        kind: u8,
        frame_bytes: u32,
        payload_bytes: u32,
    },
    Vote(GroupId, Bytes),
    Committed(GroupId, Bytes),
    Truncate(GroupId, Option<LogPoint>),
    Purge(GroupId, LogPoint),
    /// The group got everything anew, so that what was damaged of it is not missed any more.
    Healed(GroupId),
    Mark,
    Damaged {
        range: DamagedRange,
        /// Frames of any kind may have been there.
        contents_unknown: bool,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct LoggedOp {
    pub at: Position,
    pub generation: u16,
    pub op: LogOp,
    /// Where the log goes on.
    pub next: Position,
    pub round: u64,
}

/// Turns logged operations into atomic batches of the index tree.
pub(crate) struct Applier {
    index: Arc<Index>,
    retention: Arc<Mutex<Retention>>,
    groups: GroupTable,
    batch: sled::Batch,
    /// What the batch says about entries, for look-ups before it is applied.
    pending: HashMap<EntryKey, Option<IndexRecord>>,
    touched_groups: BTreeSet<GroupId>,
    touched_segments: BTreeSet<SegmentId>,
    changes: usize,
    reached: Indexed,
    damage: Vec<DamagedRange>,
    /// The last stretch in which nothing was readable: what is found missing later lay there.
    gap: Option<DamagedRange>,
    /// A batch was lost on its way to the index: to write what comes after it would pass that over.
    has_failed: bool,
}

impl Applier {
    pub(crate) fn new(
        index: Arc<Index>,
        retention: Arc<Mutex<Retention>>,
        groups: GroupTable,
        reached: Indexed,
        damage: Vec<DamagedRange>,
    ) -> Applier {
        Applier {
            index,
            retention,
            groups,
            batch: sled::Batch::default(),
            pending: HashMap::new(),
            touched_groups: BTreeSet::new(),
            touched_segments: BTreeSet::new(),
            changes: 0,
            reached,
            damage,
            gap: None,
            has_failed: false,
        }
    }

    pub(crate) fn groups(&self) -> &GroupTable {
        &self.groups
    }

    pub(crate) fn damage(&self) -> &[DamagedRange] {
        &self.damage
    }

    pub(crate) fn reached(&self) -> Indexed {
        self.reached
    }

    /// Applies one operation; the batch is written when it is full, or by [`Applier::write`].
    pub(crate) fn apply(&mut self, logged: &LoggedOp) -> Result<()> {
        let segment = logged.at.segment;
        if !matches!(logged.op, LogOp::SegmentStarted(_)) {
            self.know_segment(logged);
        }
        match &logged.op {
            LogOp::SegmentStarted(preamble) => {
                if let Some(preamble) = preamble {
                    self.adopt(preamble);
                }
                let record = SegmentRecord {
                    generation: logged.generation,
                    end: u64::from(logged.next.offset),
                    sealed: false,
                };
                self.retention
                    .lock()
                    .segments
                    .insert(segment, SegmentStats::new(segment, record));
            }
            LogOp::SegmentEnded { end } => {
                if let Some(stats) = self.retention.lock().segments.get_mut(&segment) {
                    stats.sealed = true;
                    stats.end = *end;
                }
            }
            LogOp::Entry { .. } => self.apply_entry(logged)?,
            LogOp::Vote(group, vote) => {
                self.touched_groups.insert(*group);
                self.groups.get_mut(*group).vote = Some(vote.clone());
            }
            LogOp::Committed(group, committed) => {
                self.touched_groups.insert(*group);
                self.groups.get_mut(*group).committed = Some(committed.clone());
            }
            LogOp::Truncate(group, last_kept) => {
                self.truncate(*group, last_kept.map(|point| point.index))?;
                self.touched_groups.insert(*group);
                let meta = self.groups.get_mut(*group);
                meta.last = last_kept.or(meta.purged);
            }
            LogOp::Purge(group, upto) => {
                self.touched_groups.insert(*group);
                self.groups.get_mut(*group).purge(*upto);
            }
            LogOp::Healed(group) => {
                self.touched_groups.insert(*group);
                self.groups.get_mut(*group).suspect = false;
                self.settle_damage(|range| range.forget(*group));
            }
            LogOp::Mark => {}
            LogOp::Damaged {
                range,
                contents_unknown,
            } => self.record_damage(range, *contents_unknown),
        }
        self.touched_segments.insert(segment);
        if !matches!(logged.op, LogOp::SegmentEnded { .. })
            && let Some(stats) = self.retention.lock().segments.get_mut(&segment)
            && logged.next.segment == segment
        {
            stats.end = stats.end.max(u64::from(logged.next.offset));
        }
        self.reached = Indexed {
            position: logged.next,
            round: self.reached.round.max(logged.round),
        };
        self.changes += 1;
        if self.changes >= BATCH_CHANGES_MAX {
            self.write()?;
        }
        Ok(())
    }

    /// A segment whose preamble is damaged is a segment all the same.
    fn know_segment(&mut self, logged: &LoggedOp) {
        let id = logged.at.segment;
        let record = SegmentRecord {
            generation: logged.generation,
            end: u64::from(logged.at.offset),
            sealed: false,
        };
        self.retention
            .lock()
            .segments
            .entry(id)
            .or_insert_with(|| SegmentStats::new(id, record));
    }

    /// A preamble is what the writer knew; it wins over what a scan with holes found.
    fn adopt(&mut self, preamble: &SegmentPreamble) {
        for (group, meta) in &preamble.groups {
            if self.groups.get(*group) != Some(meta) {
                if let Some(last) = meta.last_index() {
                    self.note_missing(*group, last.saturating_add(1));
                }
                *self.groups.get_mut(*group) = meta.clone();
                self.touched_groups.insert(*group);
            }
        }
        self.gap = None;
    }

    fn apply_entry(&mut self, logged: &LoggedOp) -> Result<()> {
        let LogOp::Entry {
            group,
            space,
            point,
            kind,
            frame_bytes,
            payload_bytes,
        } = logged.op
        else {
            return Ok(());
        };
        if space == Space::Log {
            let last = self.groups.get(group).and_then(GroupMeta::last_index);
            if last.is_some_and(|last| last >= point.index) {
                // A truncation record that damage swallowed is implied by what follows it.
                self.truncate(group, point.index.checked_sub(1))?;
            }
            self.note_missing(group, point.index);
            self.groups.get_mut(group).last = Some(point);
            self.touched_groups.insert(group);
        }
        let record = IndexRecord {
            segment: SegmentKey {
                id: logged.at.segment,
                generation: logged.generation,
            },
            offset: logged.at.offset,
            frame_bytes,
            kind,
            term: point.term,
            leader: point.leader,
            payload_bytes,
        };
        let key = EntryKey {
            space,
            group,
            index: point.index,
        };
        self.batch.insert(key.encode(), &record.encode()[..]);
        self.pending.insert(key, Some(record));
        let mut retention = self.retention.lock();
        if let Some(share) = retention.share(logged.at.segment, group) {
            share
                .record
                .add(space, point.index, u64::from(payload_bytes));
        }
        Ok(())
    }

    fn lookup(&self, key: EntryKey) -> Result<Option<IndexRecord>> {
        match self.pending.get(&key) {
            Some(record) => Ok(*record),
            None => self.index.get(key),
        }
    }

    /// Removes records from the last one backwards, so that a crash in between leaves no gap.
    fn truncate(&mut self, group: GroupId, last_kept: Option<u64>) -> Result<()> {
        let Some(last) = self.groups.get(group).and_then(GroupMeta::last_index) else {
            return Ok(());
        };
        let first = last_kept.map_or(0, |kept| kept + 1);
        let floor = self.groups.get(group).map_or(0, GroupMeta::first_visible);
        let mut index = last;
        while index >= first.max(floor) {
            let key = EntryKey {
                space: Space::Log,
                group,
                index,
            };
            if let Some(record) = self.lookup(key)? {
                self.batch.remove(key.encode());
                self.pending.insert(key, None);
                let segment = record.segment.id;
                if let Some(share) = self.retention.lock().share(segment, group) {
                    // Its bytes die at once.
                    share.record.subtract(Space::Log, &record);
                    share.record.index_max = share.record.index_max.min(last_kept.unwrap_or(0));
                }
                self.touched_segments.insert(segment);
                self.changes += 1;
                if self.changes >= BATCH_CHANGES_MAX {
                    self.write()?;
                }
            }
            match index.checked_sub(1) {
                Some(previous) => index = previous,
                None => break,
            }
        }
        Ok(())
    }

    /// After a gap in the log: the entries between the last one known and `next` lay in it.
    fn note_missing(&mut self, group: GroupId, next: u64) {
        let Some(gap) = &self.gap else {
            return;
        };
        // Of a group not seen before, all that came before may have lain in it.
        let last = self.groups.get(group).and_then(GroupMeta::last_index);
        let first = last.map_or(0, |last| last.saturating_add(1));
        if first >= next {
            return;
        }
        let place = (gap.segment, gap.offset);
        let known = self
            .damage
            .iter_mut()
            .enumerate()
            .find(|(_, known)| (known.segment, known.offset) == place);
        if let Some((number, known)) = known {
            known.entries.push((group, first..=next - 1));
            self.batch
                .insert(damage_key(number as u32), &known.encode()[..]);
        }
    }

    /// Writes what was applied so far as one atomic batch.
    pub(crate) fn write(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.has_failed, true) {
            return Err(StorageError::Failed {
                reason: "the index could not be written before".to_owned(),
            });
        }
        for group in std::mem::take(&mut self.touched_groups) {
            if let Some(meta) = self.groups.get(group) {
                self.batch.insert(group_key(group), &meta.encode()[..]);
            }
        }
        {
            let retention = self.retention.lock();
            for segment in std::mem::take(&mut self.touched_segments) {
                let Some(stats) = retention.segments.get(&segment) else {
                    continue;
                };
                self.batch
                    .insert(segment_key(segment), &stats.record().encode()[..]);
                for (group, share) in &stats.shares {
                    self.batch
                        .insert(share_key(segment, *group), &share.record.encode()[..]);
                }
            }
        }
        self.batch.insert(POSITION_KEY, &self.reached.encode()[..]);
        let batch = std::mem::take(&mut self.batch);
        guarded("write the index", || self.index.log.apply_batch(batch))?;
        self.pending.clear();
        self.changes = 0;
        self.has_failed = false;
        Ok(())
    }

    /// Takes the records of a removed segment's entries out of the index. An entry that was written
    /// again elsewhere keeps its newer record.
    pub(crate) fn remove_segment(&mut self, key: SegmentKey, entries: &[EntryKey]) -> Result<()> {
        // Nobody needed anything in it any more.
        self.settle_segment(key.id);
        self.write()?;
        for chunk in entries.chunks(BATCH_CHANGES_MAX) {
            let mut batch = sled::Batch::default();
            for entry in chunk {
                if let Some(record) = self.index.get(*entry)?
                    && record.segment == key
                {
                    batch.remove(entry.encode());
                }
            }
            guarded("remove records", || self.index.log.apply_batch(batch))?;
        }
        let mut batch = sled::Batch::default();
        batch.remove(segment_key(key.id));
        if let Some(stats) = self.retention.lock().segments.remove(&key.id) {
            for group in stats.shares.keys() {
                batch.remove(share_key(key.id, *group));
            }
        }
        guarded("remove a segment's records", || {
            self.index.log.apply_batch(batch)
        })
    }

    /// Points the index at a compacted segment's entries. A record that points into neither generation is left
    /// alone: what was truncated meanwhile does not count any more. One that points into the new one was moved
    /// before a crash.
    pub(crate) fn move_segment(
        &mut self,
        old: SegmentKey,
        moved: &[(EntryKey, Option<IndexRecord>)],
        mut stats: SegmentStats,
    ) -> Result<()> {
        self.write()?;
        let new = stats.key();
        for chunk in moved.chunks(BATCH_CHANGES_MAX) {
            let mut batch = sled::Batch::default();
            for (entry, record) in chunk {
                let known = self.index.get(*entry)?.map(|known| known.segment);
                match record {
                    Some(record) if known == Some(old) => {
                        batch.insert(entry.encode(), &record.encode()[..]);
                    }
                    Some(record) if known != Some(new) => {
                        if let Some(share) = stats.shares.get_mut(&entry.group) {
                            share.record.subtract(entry.space, record);
                        }
                    }
                    None if known == Some(old) => batch.remove(entry.encode()),
                    Some(_) | None => {}
                }
            }
            guarded("move records", || self.index.log.apply_batch(batch))?;
        }
        let mut batch = sled::Batch::default();
        batch.insert(segment_key(old.id), &stats.record().encode()[..]);
        let mut retention = self.retention.lock();
        if let Some(before) = retention.segments.get(&old.id) {
            for (group, share) in &before.shares {
                batch.remove(share_key(old.id, *group));
                if let Some(after) = stats.shares.get_mut(group) {
                    after.record.index_max = after.record.index_max.min(share.record.index_max);
                }
            }
        }
        for (group, share) in &stats.shares {
            batch.insert(share_key(old.id, *group), &share.record.encode()[..]);
        }
        guarded("move a segment's records", || {
            self.index.log.apply_batch(batch)
        })?;
        retention.segments.insert(old.id, stats);
        Ok(())
    }
}
