//! The changes of one unit of work, kept apart until it is finished.
//!
//! A unit is a command, a timer, or a step of a long command. It reads through its overlay and
//! writes into it. Only when it has finished do its changes reach the state, so that a record that
//! turns out not to be in memory half-way stops it without a trace.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::ids::{LogIndex, ShardId, ShardTime, WallTime};
use crate::key::{Key, KeyMap};
use crate::outcome::{Change, ReleasedSlots};
use crate::record::{Record, ShardMeta, Stored};
use crate::records::{Lookup, NeedsKeys, Records, RecordsMut, Shared, find};

/// What a unit of work has changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    records: KeyMap<Option<Arc<Record>>>,
    /// For whoever watches.
    pub notes: Vec<Change>,
    /// Slots of earlier entries that died.
    pub released: Vec<ReleasedSlots>,
    /// Slots of this entry that came to life or died again, in order.
    pub own_slots: Vec<OwnSlots>,
    /// About how many messages and pages were touched.
    pub effort: u64,
}

/// Slots of the entry that is being applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnSlots {
    /// The first one.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Whether they are referred to from now on, or not any more.
    pub live: bool,
}

impl Changes {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.records.clear();
        self.notes.clear();
        self.released.clear();
        self.own_slots.clear();
        self.effort = 0;
    }

    /// Writes the records to the state.
    pub fn write_to(&mut self, state: &mut dyn RecordsMut) {
        for (key, record) in self.records.drain() {
            state.put(key, record);
        }
    }
}

/// State as a unit of work sees it, with the circumstances of its entry.
pub(crate) struct Work<'a> {
    base: &'a dyn Records,
    /// What it changes.
    pub changes: &'a mut Changes,
    /// The root record; put back as it was if the unit does not finish.
    pub meta: &'a mut ShardMeta,
    /// The shard.
    pub shard: ShardId,
    /// The entry.
    pub index: LogIndex,
    /// The lengths of the entry's slots.
    pub slot_bytes: &'a [u32],
}

impl<'a> Work<'a> {
    /// A unit of work that has changed nothing yet.
    pub fn new(
        base: &'a dyn Records,
        changes: &'a mut Changes,
        meta: &'a mut ShardMeta,
        shard: ShardId,
        index: LogIndex,
        slot_bytes: &'a [u32],
    ) -> Self {
        changes.clear();
        Self {
            base,
            changes,
            meta,
            shard,
            index,
            slot_bytes,
        }
    }

    /// Shard time.
    pub fn now(&self) -> ShardTime {
        self.meta.time
    }

    /// The wall time that belongs to a shard time, near now.
    pub fn wall_at(&self, at: ShardTime) -> WallTime {
        wall_at(self.meta, at)
    }

    /// Says that a unit of work touched this many messages or pages.
    pub fn count_effort(&mut self, effort: u64) {
        self.changes.effort += effort;
    }

    /// Tells whoever watches.
    pub fn note(&mut self, change: Change) {
        self.changes.notes.push(change);
    }

    /// A record, for reading.
    pub fn find<T: Stored>(&self, key: Key) -> Result<Option<Shared<T>>, NeedsKeys> {
        find(self, key)
    }

    /// A record's value, for changing and putting back.
    pub fn take<T: Stored>(&self, key: Key) -> Result<Option<T>, NeedsKeys> {
        Ok(self.find::<T>(key)?.map(|record| T::clone(&record)))
    }

    /// A record, for changing in place.
    pub fn edit<T: Stored>(&mut self, key: Key) -> Result<Option<&mut T>, NeedsKeys> {
        let slot = match self.changes.records.entry(key) {
            Entry::Occupied(occupied) => occupied.into_mut(),
            Entry::Vacant(vacant) => match self.base.get(&key) {
                Lookup::Found(record) => vacant.insert(Some(record)),
                Lookup::Absent => return Ok(None),
                Lookup::Missing => return Err(NeedsKeys(vec![key])),
            },
        };
        Ok(slot
            .as_mut()
            .map(|record| T::peel_mut(Arc::make_mut(record))))
    }

    /// A record, for changing in place, created where there is none.
    pub fn edit_or_default<T: Stored + Default>(&mut self, key: Key) -> Result<&mut T, NeedsKeys> {
        let slot = match self.changes.records.entry(key) {
            Entry::Occupied(occupied) => occupied.into_mut(),
            Entry::Vacant(vacant) => match self.base.get(&key) {
                Lookup::Found(record) => vacant.insert(Some(record)),
                Lookup::Absent => vacant.insert(None),
                Lookup::Missing => return Err(NeedsKeys(vec![key])),
            },
        };
        let record = slot.get_or_insert_with(|| Arc::new(T::default().wrap()));
        Ok(T::peel_mut(Arc::make_mut(record)))
    }

    /// A record for changing in place. Where it is certain that there is none yet, one is created
    /// without asking: asking would cost a look into the store.
    pub fn edit_or_create<T: Stored + Default>(
        &mut self,
        key: Key,
        is_new: bool,
    ) -> Result<&mut T, NeedsKeys> {
        if is_new {
            self.put(key, T::default());
        }
        self.edit_or_default(key)
    }

    /// Replaces a record.
    pub fn put<T: Stored>(&mut self, key: Key, value: T) {
        self.changes
            .records
            .insert(key, Some(Arc::new(value.wrap())));
    }

    /// Removes a record, whether it exists or not.
    pub fn delete(&mut self, key: Key) {
        self.changes.records.insert(key, None);
    }
}

impl Records for Work<'_> {
    fn get(&self, key: &Key) -> Lookup {
        match self.changes.records.get(key) {
            Some(Some(record)) => Lookup::Found(record.clone()),
            Some(None) => Lookup::Absent,
            None => self.base.get(key),
        }
    }
}

/// The wall time that belongs to a shard time, as far as the last entry tells.
pub(crate) fn wall_at(meta: &ShardMeta, at: ShardTime) -> WallTime {
    const NANOS_PER_MS: u64 = 1_000_000;
    let (ahead, behind) = (
        at.0.saturating_sub(meta.time.0),
        meta.time.0.saturating_sub(at.0),
    );
    WallTime(
        meta.wall
            .0
            .saturating_add(ahead.saturating_mul(NANOS_PER_MS))
            .saturating_sub(behind.saturating_mul(NANOS_PER_MS)),
    )
}
