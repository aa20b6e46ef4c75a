//! How state is reached: one record at a time, by key, and perhaps not in memory.
//!
//! The caller keeps the records: hot ones in memory, all of them in a store. Code that reads state
//! gets a [`Lookup::Missing`] for a record that must be loaded first, passes it up as
//! [`NeedsKeys`], and is run again from its beginning once the caller has loaded what was named.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::key::Key;
use crate::record::{Record, Stored};

/// What is known about a key.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The record.
    Found(Arc<Record>),
    /// There is none, and that is certain.
    Absent,
    /// It is not in memory: whether it exists is known only after loading it.
    Missing,
}

/// State, for reading.
pub trait Records {
    /// The record under a key, as far as it is in memory.
    fn get(&self, key: &Key) -> Lookup;
}

/// State, for writing.
pub trait RecordsMut: Records {
    /// Replaces the record under a key; `None` removes it.
    fn put(&mut self, key: Key, record: Option<Arc<Record>>);
}

/// Records that must be in memory before the work can be done: load them and try again.
///
/// Never empty. It may name more than the present step needs, to save the caller further rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedsKeys(pub Vec<Key>);

/// A record of a known kind, shared.
pub(crate) struct Shared<T> {
    record: Arc<Record>,
    kind: std::marker::PhantomData<T>,
}

impl<T: Stored> std::ops::Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        T::peel(&self.record)
    }
}

/// Finds a record of a kind.
pub(crate) fn find<T: Stored>(
    records: &dyn Records,
    key: Key,
) -> Result<Option<Shared<T>>, NeedsKeys> {
    match records.get(&key) {
        Lookup::Found(record) => Ok(Some(Shared {
            record,
            kind: std::marker::PhantomData,
        })),
        Lookup::Absent => Ok(None),
        Lookup::Missing => Err(NeedsKeys(vec![key])),
    }
}

/// Asks for all keys at once, so that one round of loading serves them all.
pub(crate) fn require(
    records: &dyn Records,
    keys: impl IntoIterator<Item = Key>,
) -> Result<(), NeedsKeys> {
    let missing: Vec<Key> = keys
        .into_iter()
        .filter(|key| matches!(records.get(key), Lookup::Missing))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(NeedsKeys(missing))
    }
}

/// All records of a shard in memory: for tests, and for state that is small.
#[derive(Clone, Debug, Default)]
pub struct MemoryRecords {
    records: BTreeMap<Key, Arc<Record>>,
}

impl MemoryRecords {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether the shard is as new.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All records in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Record>)> {
        self.records.iter()
    }

    /// A digest of all keys and records: equal for equal state.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (key, record) in &self.records {
            for bytes in [key.encode(), record.encode()] {
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(&bytes);
            }
        }
        *hasher.finalize().as_bytes()
    }
}

impl Records for MemoryRecords {
    fn get(&self, key: &Key) -> Lookup {
        match self.records.get(key) {
            Some(record) => Lookup::Found(record.clone()),
            None => Lookup::Absent,
        }
    }
}

impl RecordsMut for MemoryRecords {
    fn put(&mut self, key: Key, record: Option<Arc<Record>>) {
        match record {
            Some(record) => self.records.insert(key, record),
            None => self.records.remove(&key),
        };
    }
}
