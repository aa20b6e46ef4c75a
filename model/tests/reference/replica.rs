//! A replica whose records are mostly not in memory.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use flotilla_model::command::EntryHead;
use flotilla_model::ids::{LogIndex, ShardId};
use flotilla_model::key::Key;
use flotilla_model::machine::EntryRun;
use flotilla_model::outcome::Applied;
use flotilla_model::record::Record;
use flotilla_model::records::*;

/// All records as they would be stored, and the keys that are in memory.
pub struct Replica {
    shard: ShardId,
    store: MemoryRecords,
    loaded: RefCell<BTreeSet<Key>>,
}

impl Records for Replica {
    fn get(&self, key: &Key) -> Lookup {
        match self.loaded.borrow().contains(key) {
            true => self.store.get(key),
            false => Lookup::Missing,
        }
    }
}

impl RecordsMut for Replica {
    fn put(&mut self, key: Key, record: Option<Arc<Record>>) {
        self.loaded.borrow_mut().insert(key);
        self.store.put(key, record);
    }
}

impl Replica {
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            store: MemoryRecords::default(),
            loaded: RefCell::default(),
        }
    }

    pub fn apply(
        &mut self,
        index: LogIndex,
        head: EntryHead,
        slots: Vec<u32>,
        seed: u64,
    ) -> Applied {
        let mut random = seed | 1;
        let mut run = EntryRun::new(self.shard, index, head, slots);
        loop {
            match run.advance(self) {
                Ok(Some(applied)) => return applied,
                Ok(None) => self.evict(&mut random),
                Err(NeedsKeys(keys)) => self.load(keys),
            }
        }
    }

    /// Loads what is asked for, which must not be there already: else the machine would ask for ever.
    fn load(&self, keys: Vec<Key>) {
        assert!(!keys.is_empty());
        for key in keys {
            assert!(
                self.loaded.borrow_mut().insert(key),
                "{key:?} was in memory"
            );
        }
    }

    /// Runs a query as often as it takes.
    pub fn query<T>(&self, query: impl Fn(&dyn Records) -> Result<T, NeedsKeys>) -> T {
        loop {
            match query(self) {
                Ok(answer) => return answer,
                Err(NeedsKeys(keys)) => self.load(keys),
            }
        }
    }

    /// Forgets about half of what is in memory.
    pub fn evict(&mut self, random: &mut u64) {
        self.loaded.borrow_mut().retain(|_| {
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            *random & 1 == 0
        });
    }

    /// Stores everything, dies, and starts again from what was stored.
    pub fn restart(&mut self) {
        let mut again = MemoryRecords::default();
        for (key, record) in self.store.iter() {
            let key = Key::decode(&key.encode()).unwrap();
            let record = Record::decode(&key, &record.encode()).unwrap();
            again.put(key, Some(Arc::new(record)));
        }
        assert!(again.iter().eq(self.store.iter()));
        self.store = again;
        self.loaded.borrow_mut().clear();
    }

    pub fn digest(&self) -> [u8; 32] {
        self.store.digest()
    }
}
