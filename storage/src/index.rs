//! The database of the node: how it is opened, made durable and looked things up in.
//!
//! What is written to it comes from `applier` (the log's index) and `checkpoint` (the groups' state).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::codec::Fields;
use crate::damage::DamagedRange;
use crate::dirs::{create_dir_durably, sync_dir};
use crate::error::{Result, StorageError};
use crate::group::{GroupMeta, GroupTable};
use crate::records::{
    DAMAGE_PREFIX, EntryKey, GROUP_PREFIX, IndexRecord, Indexed, POSITION_KEY, SEGMENT_PREFIX,
    SHARE_PREFIX, SegmentRecord, ShareRecord, Space, entry_prefix, index_of_key, number_at,
};
use crate::retention::{Retention, SegmentStats, Share};
use crate::sled_guard::guarded;
use crate::sync_override::sync_calls;
use crate::{GroupId, SegmentId};

/// The database of the node: a tree for the log's index and one for the groups' state.
pub(crate) struct Index {
    db: sled::Db,
    pub(crate) log: sled::Tree,
    pub(crate) state: sled::Tree,
    db_file: File,
    db_path: PathBuf,
}

/// Where sled keeps the settings that a database was made with.
const SETTINGS_FILE: &str = "conf";

/// Has sled write its settings anew. They are the same constants at every start, and sled never syncs
/// them: after a power cut the file may hold anything, and sled would refuse a sound database.
fn forget_settings(dir: &Path) -> Result<()> {
    let path = dir.join(SETTINGS_FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StorageError::io("remove", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Counts the times that the database was opened; anything else than a count starts again.
fn next_opening(opened: Option<&[u8]>) -> Vec<u8> {
    let count = opened
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    count.wrapping_add(1).to_le_bytes().to_vec()
}

impl Index {
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<Index> {
        create_dir_durably(dir).map_err(StorageError::io("create", dir))?;
        forget_settings(dir)?;
        let db = guarded("open the database", || {
            sled::Config::new()
                .path(dir)
                .cache_capacity(cache_bytes)
                .flush_every_ms(None)
                .open()
        })?;
        let log = guarded("open the index tree", || db.open_tree(b"log"))?;
        let state = guarded("open the state tree", || db.open_tree(b"state"))?;
        let db_path = dir.join("db");
        let db_file = File::open(&db_path).map_err(StorageError::io("open", &db_path))?;
        let index = Index {
            db,
            log,
            state,
            db_file,
            db_path,
        };
        index.prove_syncs_are_real()?;
        // sled syncs neither its settings nor the names of its files.
        let settings = dir.join(SETTINGS_FILE);
        File::open(&settings)
            .and_then(|file| file.sync_all())
            .map_err(StorageError::io("sync", &settings))?;
        sync_dir(dir).map_err(StorageError::io("sync", dir))?;
        Ok(index)
    }

    /// A build in which sled's flush does not end in a real sync would lose state at a power cut
    /// and show nothing before: refuse to start.
    fn prove_syncs_are_real(&self) -> Result<()> {
        let before = sync_calls();
        // A value that was there already would not be written, and nothing would need a sync.
        guarded("write the opening mark", || {
            self.log
                .update_and_fetch(b"o", |opened| Some(next_opening(opened)))
        })?;
        self.flush()?;
        if cfg!(target_os = "linux") && sync_calls() == before {
            return Err(StorageError::Failed {
                reason: "the index database does not sync in this build".to_owned(),
            });
        }
        Ok(())
    }

    /// Returns when everything written so far survives a power cut.
    pub(crate) fn flush(&self) -> Result<()> {
        guarded("flush", || self.db.flush())?;
        self.db_file
            .sync_data()
            .map_err(StorageError::io("sync", &self.db_path))
    }

    pub(crate) fn size_on_disk(&self) -> Result<u64> {
        guarded("measure the database", || self.db.size_on_disk())
    }

    pub(crate) fn apply_state(&self, batch: sled::Batch) -> Result<()> {
        guarded("write state", || self.state.apply_batch(batch))
    }

    pub(crate) fn indexed(&self) -> Result<Option<Indexed>> {
        guarded("read the position", || self.log.get(POSITION_KEY))?
            .map(|value| Indexed::decode(&value))
            .transpose()
    }

    pub(crate) fn get(&self, key: EntryKey) -> Result<Option<IndexRecord>> {
        guarded("read a record", || self.log.get(key.encode()))?
            .map(|value| IndexRecord::decode(&value))
            .transpose()
    }

    /// Records of `indexes` in order, at most `limit`.
    pub(crate) fn range(
        &self,
        space: Space,
        group: GroupId,
        indexes: Range<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, IndexRecord)>> {
        let key = |index| {
            EntryKey {
                space,
                group,
                index,
            }
            .encode()
        };
        let mut records = Vec::new();
        if indexes.is_empty() {
            return Ok(records);
        }
        let mut items = self.log.range(key(indexes.start)..key(indexes.end));
        while records.len() < limit {
            match guarded("read records", || items.next().transpose())? {
                Some((key, value)) => {
                    let index = index_of_key(&key)
                        .ok_or(StorageError::InvalidRecord { what: "index key" })?;
                    records.push((index, IndexRecord::decode(&value)?));
                }
                None => break,
            }
        }
        Ok(records)
    }

    pub(crate) fn imports(&self, group: GroupId) -> Result<BTreeSet<u32>> {
        let mut prefix = vec![b'i'];
        prefix.extend_from_slice(&group.0.to_be_bytes());
        let mut imports = BTreeSet::new();
        let mut from = prefix.clone();
        // One step per import, not per record: go on behind the last key of the one just seen.
        while let Some((key, _)) = guarded("read imports", || {
            self.log.range(from.clone()..).next().transpose()
        })? {
            if !key.starts_with(&prefix) {
                break;
            }
            let Some(import) = number_at(&key, 5) else {
                break;
            };
            imports.insert(import);
            match import.checked_add(1) {
                Some(next) => from = entry_prefix(Space::Import(next), group),
                None => break,
            }
        }
        Ok(imports)
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<(sled::IVec, sled::IVec)>> {
        guarded("scan", || self.log.scan_prefix(prefix).collect())
    }

    pub(crate) fn groups(&self) -> Result<GroupTable> {
        let mut metas = Vec::new();
        for (key, value) in self.scan(GROUP_PREFIX)? {
            let group =
                number_at(&key, 1).ok_or(StorageError::InvalidRecord { what: "group key" })?;
            let meta = GroupMeta::decode(&mut Fields::new(&value, "group record"))?;
            metas.push((GroupId(group), meta));
        }
        Ok(GroupTable::from_metas(metas))
    }

    pub(crate) fn damage(&self) -> Result<Vec<DamagedRange>> {
        self.scan(DAMAGE_PREFIX)?
            .iter()
            .map(|(_, value)| DamagedRange::decode(value))
            .collect()
    }

    /// Segments and shares; the dead counts come from the state tree.
    pub(crate) fn retention(&self) -> Result<Retention> {
        let malformed = || StorageError::InvalidRecord {
            what: "segment key",
        };
        let mut retention = Retention::default();
        for (key, value) in self.scan(SEGMENT_PREFIX)? {
            let id = SegmentId(number_at(&key, 1).ok_or_else(malformed)?);
            let record = SegmentRecord::decode(&value)?;
            retention.segments.insert(id, SegmentStats::new(id, record));
        }
        for (key, value) in self.scan(SHARE_PREFIX)? {
            let id = SegmentId(number_at(&key, 1).ok_or_else(malformed)?);
            let group = GroupId(number_at(&key, 5).ok_or_else(malformed)?);
            let record = ShareRecord::decode(&value)?;
            if let Some(stats) = retention.segments.get_mut(&id) {
                stats.shares.insert(group, Share { record, dead: 0 });
            }
        }
        Ok(retention)
    }
}
