//! How much of each segment's payload no durable checkpoint refers to any more: counted per segment, generation and
//! group, and stored in the state tree with the checkpoint, or the compaction, that changes it.

use std::collections::BTreeMap;

use crate::GroupId;
use crate::checkpoint::{CommitState, Released};
use crate::codec::Fields;
use crate::core::Core;
use crate::error::Result;
use crate::index::Index;
use crate::records::{IndexRecord, Space};
use crate::redo::{self, CHUNK, Change};
use crate::retention::{Retention, SegmentStats};
use crate::segment::SegmentKey;
use crate::sled_guard::guarded;
use crate::state_keys as keys;

/// Reads all of them, and removes those of segments that are gone.
pub(crate) fn load(index: &Index, retention: &mut Retention) -> Result<()> {
    let mut stale = Vec::new();
    for item in index.state.scan_prefix(keys::DEAD_PREFIX) {
        let (key, value) = guarded("read dead counts", || item)?;
        let share = keys::parse_dead_key(&key).and_then(|(segment, group)| {
            Some((segment, group, retention.segments.get_mut(&segment.id)?))
        });
        match share {
            Some((segment, group, stats)) if stats.generation == segment.generation => {
                stats.shares.entry(group).or_default().dead =
                    Fields::new(&value, "dead count").u64()?;
            }
            // Of a compaction that may have got as far as its file's name.
            Some((segment, _, stats)) if stats.generation < segment.generation => {}
            _ => stale.push((key.to_vec(), None)),
        }
    }
    for chunk in stale.chunks(CHUNK) {
        index.apply_state(redo::batch_of(chunk))?;
    }
    Ok(())
}

/// Adds what is stored of a segment's dead payload to what is known of it.
pub(crate) fn load_dead_counts(index: &Index, stats: &mut SegmentStats) -> Result<()> {
    let key = stats.key();
    for (group, share) in &mut stats.shares {
        let stored = guarded("read a dead count", || {
            index.state.get(keys::dead_key(key, *group))
        })?;
        if let Some(value) = stored {
            share.dead = Fields::new(&value, "dead count").u64()?;
        }
    }
    Ok(())
}

impl Core {
    /// Adds what was released to the dead counts of the segments that hold it.
    pub(crate) fn count_released(
        &self,
        state: &mut CommitState,
        group: GroupId,
        released: Vec<Released>,
        changes: &mut Vec<Change>,
    ) -> Result<BTreeMap<SegmentKey, u64>> {
        let mut dead: BTreeMap<SegmentKey, u64> = BTreeMap::new();
        let mut last: Option<(u64, IndexRecord)> = None;
        for released in released {
            let record = match last {
                Some((index, record)) if index == released.index => record,
                // Not stored: the entry was lost to damage, and its bytes are not counted either.
                _ => match self.stored_record(group, released.index)? {
                    Some(record) => record,
                    None => continue,
                },
            };
            last = Some((released.index, record));
            *dead.entry(record.segment).or_default() += released.bytes;
            if let Some(during) = state.compacting.get_mut(&record.segment.id) {
                during.push((group, released));
            }
        }
        let retention = self.retention.lock();
        for (segment, bytes) in &dead {
            let before = retention
                .segments
                .get(&segment.id)
                .filter(|stats| stats.generation == segment.generation)
                .and_then(|stats| stats.shares.get(&group))
                .map_or(0, |share| share.dead);
            changes.push((
                keys::dead_key(*segment, group),
                Some((before + bytes).to_le_bytes().to_vec()),
            ));
        }
        Ok(dead)
    }

    /// What is dead once the old references are gone: all payload of the group but what came with
    /// the new state and what entries behind it hold.
    pub(crate) fn dead_after_replace(
        &self,
        group: GroupId,
        boundary: Option<(u64, u32)>,
    ) -> Result<BTreeMap<SegmentKey, u64>> {
        let mut dead: BTreeMap<SegmentKey, u64> = self
            .retention
            .lock()
            .segments
            .values()
            .filter_map(|stats| {
                let share = stats.shares.get(&group)?;
                let came_with_it = match boundary {
                    Some((_, import)) if share.record.import == import => share.record.import_bytes,
                    _ => 0,
                };
                let bytes = share.record.payload_bytes.saturating_sub(came_with_it);
                Some((stats.key(), bytes))
            })
            .collect();
        let mut next = boundary.map_or(0, |(upto, _)| upto.saturating_add(1));
        loop {
            let records = self.index.range(Space::Log, group, next..u64::MAX, CHUNK)?;
            let Some((last, _)) = records.last() else {
                return Ok(dead);
            };
            next = last + 1;
            for (_, record) in records {
                if let Some(bytes) = dead.get_mut(&record.segment) {
                    *bytes = bytes.saturating_sub(u64::from(record.payload_bytes));
                }
            }
        }
    }

    /// What is dead in a generation is durable before that has its name.
    pub(crate) fn store_dead_counts(&self, stats: &SegmentStats) -> Result<()> {
        let mut batch = sled::Batch::default();
        for (group, share) in &stats.shares {
            batch.insert(
                keys::dead_key(stats.key(), *group),
                &share.dead.to_le_bytes(),
            );
        }
        self.index.apply_state(batch)?;
        self.index.flush()
    }

    pub(crate) fn remove_dead_counts(&self, key: SegmentKey, groups: &[GroupId]) -> Result<()> {
        let mut batch = sled::Batch::default();
        for group in groups {
            batch.remove(keys::dead_key(key, *group));
        }
        self.index.apply_state(batch)
    }
}
