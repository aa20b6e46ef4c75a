//! The state of one group: records in layers, newest first.
//!
//! ```text
//!   dirty    changed since the last freeze                     written by apply only
//!   frozen   what a running checkpoint is writing out          read only
//!   clean    a bounded cache of what the store has             evicted by a clock
//!   store    the last durable checkpoint                       on disk
//! ```
//!
//! A lookup takes the first layer that knows the key. `apply` works on the upper three and never
//! waits for a disk under the lock: a missing record is loaded with the lock released.
//!
//! **Loads race with checkpoints.** A record read from the store may be old by the time it is put into
//! the clean layer: in between, apply may have changed it, a checkpoint may have written that, and
//! eviction may have dropped it from memory again. Two facts guard against it. First, while a newer
//! version is in any layer, that layer knows the key, and a load never replaces what is known.
//! Second, a newer version leaves the upper layers only when its checkpoint ends, and that raises the
//! generation: a load that began in an earlier generation is thrown away and done again.
//!
//! **A bounded cache may evict what was just loaded**, before whoever asked comes to use it. Loaded
//! records are therefore handed to that operation directly, as its *pins*. Pins of an apply stay
//! true until its entry ends: only apply changes records, its changes go to the dirty layer, which is
//! looked at first, and freezing happens between entries. Pins of a read are dropped when the
//! generation moves on.

mod clean;
mod load;

use std::collections::HashMap;
use std::sync::Arc;

use flotilla_model::key::Key;
use flotilla_model::machine::EntryRun;
use flotilla_model::outcome::{Applied, ReleasedSlots};
use flotilla_model::record::Record;
use flotilla_model::records::{Lookup, NeedsKeys, Records, RecordsMut};
use flotilla_storage::{CheckpointStore, GroupId};
use parking_lot::RwLock;

use clean::CleanCache;
pub(crate) use load::StoredRecords;

/// A record, or the knowledge that there is none.
pub(crate) type Value = Option<Arc<Record>>;

/// A key, a map slot and an allocation, about.
const ENTRY_OVERHEAD_BYTES: u64 = 112;
/// Records moved from the frozen to the clean layer under one lock.
const THAW_CHUNK: usize = 512;

fn weight_of(value: &Value) -> u64 {
    ENTRY_OVERHEAD_BYTES + value.as_ref().map_or(0, clean::record_weight)
}

/// The records of one group.
pub(crate) struct StateCache {
    group: GroupId,
    store: CheckpointStore,
    // Apply takes it to write, for one step of an entry; queries share it. No one awaits under it.
    layers: RwLock<Layers>,
}

#[derive(Debug)]
struct Layers {
    dirty: HashMap<Key, Value>,
    dirty_bytes: u64,
    frozen: Option<Arc<FrozenRecords>>,
    clean: CleanCache,
    /// Counts the checkpoints that ended.
    generation: u64,
    /// No checkpoint was ever written: what memory does not know does not exist.
    store_is_empty: bool,
}

/// The changes of one generation.
#[derive(Debug)]
pub(crate) struct FrozenRecords {
    records: HashMap<Key, Value>,
    bytes: u64,
}

impl FrozenRecords {
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.records.iter()
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }
}

/// Records that were loaded for one operation.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    records: HashMap<Key, Value>,
    generation: u64,
}

impl StateCache {
    pub fn new(
        group: GroupId,
        store: CheckpointStore,
        clean_bytes_max: u64,
        store_is_empty: bool,
    ) -> Self {
        Self {
            group,
            store,
            layers: RwLock::new(Layers {
                dirty: HashMap::new(),
                dirty_bytes: 0,
                frozen: None,
                clean: CleanCache::new(clean_bytes_max),
                generation: 0,
                store_is_empty,
            }),
        }
    }

    /// One step of an entry.
    pub fn advance(&self, run: &mut EntryRun, pins: &Pins) -> Result<Option<Applied>, NeedsKeys> {
        let mut layers = self.layers.write();
        run.advance(&mut WriteView {
            layers: &mut layers,
            pins,
        })
    }

    /// Runs a query on what is in memory.
    pub fn query<T>(
        &self,
        pins: &mut Pins,
        query: impl FnOnce(&dyn Records) -> Result<T, NeedsKeys>,
    ) -> Result<T, NeedsKeys> {
        let layers = self.layers.read();
        if pins.generation != layers.generation {
            pins.records.clear();
        }
        query(&ReadView {
            layers: &layers,
            pins,
        })
    }

    /// Bytes of changed records that no checkpoint has begun to write, and of those being written.
    pub fn dirty_bytes(&self) -> (u64, u64) {
        let layers = self.layers.read();
        let frozen = layers.frozen.as_ref().map_or(0, |frozen| frozen.bytes);
        (layers.dirty_bytes, frozen)
    }

    pub fn clean_bytes(&self) -> u64 {
        self.layers.read().clean.bytes()
    }

    /// Begins a generation: later changes are kept apart from those returned. To be called between
    /// entries, and not again before [`Self::thaw`].
    pub fn freeze(&self) -> Arc<FrozenRecords> {
        let mut layers = self.layers.write();
        assert!(layers.frozen.is_none(), "a checkpoint is running already");
        // Room for as many again, so that apply does not pay for growing the map step by step.
        let next = HashMap::with_capacity(layers.dirty.len());
        let frozen = Arc::new(FrozenRecords {
            records: std::mem::replace(&mut layers.dirty, next),
            bytes: std::mem::take(&mut layers.dirty_bytes),
        });
        layers.frozen = Some(frozen.clone());
        frozen
    }

    /// Ends a generation: its records are durable in the store now.
    pub fn thaw(&self, frozen: &FrozenRecords) {
        let mut records = frozen.records.iter().peekable();
        // In chunks, since apply waits for the lock. The frozen layer hides the clean one until the
        // end, so that it does not matter which of the records are in both.
        while records.peek().is_some() {
            let mut layers = self.layers.write();
            for (key, value) in records.by_ref().take(THAW_CHUNK) {
                layers.clean.insert(*key, value.clone());
            }
        }
        let mut layers = self.layers.write();
        layers.generation += 1;
        layers.store_is_empty = false;
        let ended = layers.frozen.take();
        drop(layers);
        // Freed here, not under the lock.
        drop(ended);
    }

    /// Every record that there is, encoded, whichever layer has it.
    #[cfg(test)]
    pub fn all_records(&self) -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
        let layers = self.layers.read();
        let stored = self.store.scan(self.group, b"").expect("the store is open");
        let mut all: std::collections::BTreeMap<Vec<u8>, Vec<u8>> = stored
            .map(|record| record.expect("the store is readable"))
            .map(|(key, record)| (key, record.to_vec()))
            .collect();
        let frozen = layers
            .frozen
            .iter()
            .flat_map(|frozen| frozen.records.iter());
        for (key, value) in frozen.chain(layers.dirty.iter()) {
            match value {
                Some(record) => all.insert(key.encode(), record.encode()),
                None => all.remove(&key.encode()),
            };
        }
        all
    }

    /// Forgets everything but the store, which holds `store_is_empty` or a checkpoint.
    pub fn reset(&self, store_is_empty: bool) {
        let mut layers = self.layers.write();
        layers.dirty = HashMap::new();
        layers.dirty_bytes = 0;
        layers.frozen = None;
        layers.clean.clear();
        layers.generation += 1;
        layers.store_is_empty = store_is_empty;
    }
}

impl Layers {
    fn lookup(&self, key: &Key, pins: &Pins) -> Lookup {
        let known = self.known_in_memory(key).or_else(|| pins.records.get(key));
        match known {
            Some(Some(record)) => Lookup::Found(record.clone()),
            Some(None) => Lookup::Absent,
            None if self.store_is_empty => Lookup::Absent,
            None => Lookup::Missing,
        }
    }

    fn known_in_memory(&self, key: &Key) -> Option<&Value> {
        self.dirty
            .get(key)
            .or_else(|| self.frozen.as_ref()?.records.get(key))
            .or_else(|| self.clean.get(key))
    }
}

struct ReadView<'a> {
    layers: &'a Layers,
    pins: &'a Pins,
}

impl Records for ReadView<'_> {
    fn get(&self, key: &Key) -> Lookup {
        self.layers.lookup(key, self.pins)
    }
}

struct WriteView<'a> {
    layers: &'a mut Layers,
    pins: &'a Pins,
}

impl Records for WriteView<'_> {
    fn get(&self, key: &Key) -> Lookup {
        self.layers.lookup(key, self.pins)
    }
}

impl RecordsMut for WriteView<'_> {
    fn put(&mut self, key: Key, record: Option<Arc<Record>>) {
        self.layers.dirty_bytes += weight_of(&record);
        if let Some(replaced) = self.layers.dirty.insert(key, record) {
            self.layers.dirty_bytes -= weight_of(&replaced);
        }
    }
}

/// Where the state stands, kept beside the records and stored with them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Released(Vec<ReleasedSlots>);

impl Released {
    /// Adds slots whose bytes died, merging with the run before where they are neighbours.
    pub fn extend(&mut self, released: Vec<ReleasedSlots>) {
        for run in released {
            match self.0.last_mut() {
                Some(last) if last.index == run.index && last.first + last.count == run.first => {
                    last.count += run.count;
                    last.bytes += run.bytes;
                }
                _ => self.0.push(run),
            }
        }
    }

    pub fn take(&mut self) -> Vec<ReleasedSlots> {
        std::mem::take(&mut self.0)
    }
}
