//! Records that are in the checkpoint store as well: kept for speed, dropped when memory is wanted.
//!
//! Eviction is a clock: a hand goes round, clears the mark of records that were used since it last
//! came by, and drops the first one without a mark. Looking up only sets a mark, so readers share the
//! cache. Known absence is cached like a record: it spares the store a search each time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flotilla_model::key::Key;
use flotilla_model::record::Record;

use super::{Value, weight_of};

#[derive(Debug)]
struct Slot {
    key: Key,
    value: Value,
    bytes: u64,
    used: AtomicBool,
}

/// A bounded cache of records.
#[derive(Debug)]
pub(super) struct CleanCache {
    places: HashMap<Key, usize>,
    slots: Vec<Slot>,
    hand: usize,
    bytes: u64,
    bytes_max: u64,
}

impl CleanCache {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            hand: 0,
            bytes: 0,
            bytes_max,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn get(&self, key: &Key) -> Option<&Value> {
        let slot = &self.slots[*self.places.get(key)?];
        slot.used.store(true, Ordering::Relaxed);
        Some(&slot.value)
    }

    /// Keeps a record, in place of an older one of that key, and evicts others to make room.
    pub fn insert(&mut self, key: Key, value: Value) {
        let bytes = weight_of(&value);
        match self.places.get(&key) {
            Some(place) => {
                let slot = &mut self.slots[*place];
                self.bytes = self.bytes - slot.bytes + bytes;
                slot.value = value;
                slot.bytes = bytes;
            }
            None => {
                self.places.insert(key, self.slots.len());
                self.bytes += bytes;
                // Unmarked: a record that is never looked at again is the first to go.
                self.slots.push(Slot {
                    key,
                    value,
                    bytes,
                    used: AtomicBool::new(false),
                });
            }
        }
        self.evict();
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.bytes_max);
    }

    fn evict(&mut self) {
        // Two rounds at most: the first one clears every mark.
        while self.bytes > self.bytes_max && !self.slots.is_empty() {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            if self.slots[self.hand].used.swap(false, Ordering::Relaxed) {
                self.hand += 1;
                continue;
            }
            let evicted = self.slots.swap_remove(self.hand);
            self.places.remove(&evicted.key);
            self.bytes -= evicted.bytes;
            if let Some(moved) = self.slots.get(self.hand) {
                self.places.insert(moved.key, self.hand);
            }
        }
    }
}

/// What holding a record costs, for callers that have only the record.
pub(super) fn record_weight(record: &Arc<Record>) -> u64 {
    record.weight() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_cache_stays_within_its_bound_and_never_answers_with_another_key(
            steps in vec((any::<bool>(), 0u64..40), 1..400)
        ) {
            let one = weight_of(&None);
            let mut cache = CleanCache::new(one * 7);
            for (is_insert, number) in steps {
                let key = Key::Live(number);
                if is_insert {
                    cache.insert(key, None);
                } else if cache.get(&key).is_some() {
                    let place = cache.places[&key];
                    prop_assert_eq!(cache.slots[place].key, key);
                }
                prop_assert!(cache.bytes() <= one * 7);
                prop_assert_eq!(cache.bytes(), one * cache.slots.len() as u64);
                prop_assert_eq!(cache.places.len(), cache.slots.len());
            }
        }
    }

    #[test]
    fn what_is_used_again_and_again_stays_while_others_pass_through() {
        let mut cache = CleanCache::new(weight_of(&None) * 4);
        cache.insert(Key::Live(0), None);
        for number in 1..100 {
            assert!(
                cache.get(&Key::Live(0)).is_some(),
                "evicted before {number}"
            );
            cache.insert(Key::Live(number), None);
        }
    }
}
