//! Loading records from the checkpoint store, away from the lock and from the async threads.

use std::sync::Arc;

use flotilla_model::key::Key;
use flotilla_model::record::Record;
use flotilla_model::records::{Lookup, NeedsKeys, Records};
use flotilla_storage::{CheckpointStore, GroupId};

use super::{Pins, StateCache, Value};
use crate::error::ClusterError;

/// One record of the last durable checkpoint.
fn load(store: &CheckpointStore, group: GroupId, key: &Key) -> Result<Value, ClusterError> {
    let Some(bytes) = store.get(group, &key.encode())? else {
        return Ok(None);
    };
    let record = Record::decode(key, &bytes).map_err(|error| ClusterError::Corrupt {
        shard: flotilla_model::ids::ShardId(group.0),
        what: format!("state record {key:?}: {error}"),
    })?;
    Ok(Some(Arc::new(record)))
}

impl StateCache {
    /// Loads records for an operation. Afterwards each of them is in memory or among the pins.
    pub async fn load(
        self: &Arc<Self>,
        wanted: NeedsKeys,
        pins: &mut Pins,
    ) -> Result<u64, ClusterError> {
        let cache = self.clone();
        let outcome = tokio::task::spawn_blocking(move || cache.load_blocking(&wanted.0)).await;
        let (loaded, generation) = match outcome {
            Ok(loaded) => loaded?,
            Err(error) => {
                return Err(ClusterError::Unavailable {
                    reason: format!("loading state records failed: {error}"),
                });
            }
        };
        if pins.generation != generation {
            pins.records.clear();
            pins.generation = generation;
        }
        let count = loaded.len() as u64;
        pins.records.extend(loaded);
        Ok(count)
    }

    /// Also gives the generation that the records belong to.
    fn load_blocking(&self, keys: &[Key]) -> Result<(Vec<(Key, Value)>, u64), ClusterError> {
        loop {
            let (loaded, generation) = self.read_store(keys)?;
            if let Some(news) = self.keep(loaded, generation) {
                return Ok((news, generation));
            }
        }
    }

    fn read_store(&self, keys: &[Key]) -> Result<(Vec<(Key, Value)>, u64), ClusterError> {
        let generation = self.layers.read().generation;
        let mut loaded = Vec::with_capacity(keys.len());
        for key in keys {
            loaded.push((*key, load(&self.store, self.group, key)?));
        }
        Ok((loaded, generation))
    }

    /// Puts what was read into the clean layer and gives back what no layer knew. `None` if a
    /// checkpoint ended meanwhile: what was read before may be old now, see the module's text.
    fn keep(&self, mut loaded: Vec<(Key, Value)>, generation: u64) -> Option<Vec<(Key, Value)>> {
        let mut layers = self.layers.write();
        if layers.generation != generation {
            return None;
        }
        loaded.retain(|(key, value)| {
            let news = layers.known_in_memory(key).is_none();
            if news {
                layers.clean.insert(*key, value.clone());
            }
            news
        });
        Some(loaded)
    }
}

/// The last durable checkpoint alone, without what was applied since. Blocks on the disk.
pub(crate) struct StoredRecords<'a> {
    pub store: &'a CheckpointStore,
    pub group: GroupId,
    /// The first error, since [`Records`] cannot tell one.
    pub error: std::cell::RefCell<Option<ClusterError>>,
}

impl<'a> StoredRecords<'a> {
    pub fn new(store: &'a CheckpointStore, group: GroupId) -> Self {
        Self {
            store,
            group,
            error: std::cell::RefCell::new(None),
        }
    }

    /// Runs a query on the checkpoint.
    pub fn query<T>(
        &self,
        query: impl FnOnce(&dyn Records) -> Result<T, NeedsKeys>,
    ) -> Result<T, ClusterError> {
        let answer = query(self);
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        answer.map_err(|NeedsKeys(keys)| ClusterError::Unavailable {
            reason: format!("{} stored state records could not be read", keys.len()),
        })
    }
}

impl Records for StoredRecords<'_> {
    fn get(&self, key: &Key) -> Lookup {
        match load(self.store, self.group, key) {
            Ok(Some(record)) => Lookup::Found(record),
            Ok(None) => Lookup::Absent,
            Err(error) => {
                self.error.borrow_mut().get_or_insert(error);
                Lookup::Missing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::WriteView;
    use flotilla_model::records::RecordsMut;
    use flotilla_storage::{CheckpointBatch, LogConfig, NodeLog, RealDisk};

    const GROUP: GroupId = GroupId(1);
    const KEY: Key = Key::Live(1);

    /// A cache too small to keep anything, over a store that has been written once.
    fn cache(dir: &std::path::Path) -> StateCache {
        let (log, _) = NodeLog::open(LogConfig::new(dir), Arc::new(RealDisk)).unwrap();
        StateCache::new(GROUP, log.checkpoints(), 0, false)
    }

    fn change(cache: &StateCache, value: Value) {
        let mut layers = cache.layers.write();
        WriteView {
            layers: &mut layers,
            pins: &Pins::default(),
        }
        .put(KEY, value);
    }

    #[test]
    fn a_record_read_before_a_checkpoint_ended_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let (old, generation) = cache.read_store(&[KEY]).unwrap();
        // Changed, written out, thawed and evicted: no layer knows of the change any more.
        change(&cache, None);
        let frozen = cache.freeze();
        let batch = CheckpointBatch::default();
        cache.store.commit(GROUP, batch).unwrap();
        cache.thaw(&frozen);
        assert!(cache.layers.read().known_in_memory(&KEY).is_none());
        assert!(cache.keep(old, generation).is_none());
        let (now, generation) = cache.read_store(&[KEY]).unwrap();
        assert_eq!(cache.keep(now, generation).unwrap().len(), 1);
    }

    #[test]
    fn a_record_changed_while_it_was_read_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let (old, generation) = cache.read_store(&[KEY]).unwrap();
        change(&cache, None);
        assert!(cache.keep(old.clone(), generation).unwrap().is_empty());
        // The same while a checkpoint of the change is being written.
        let _frozen = cache.freeze();
        assert!(cache.keep(old, generation).unwrap().is_empty());
    }
}
