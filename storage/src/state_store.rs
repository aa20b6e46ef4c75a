//! The state records of the groups, as callers see them.

use std::sync::Arc;

use bytes::Bytes;

use crate::GroupId;
use crate::checkpoint::CheckpointBatch;
use crate::error::Result;
use crate::index::Index;
use crate::log::NodeLog;
use crate::sled_guard::guarded;
use crate::state_keys as keys;

/// The state records of all groups. Clones are the same store.
#[derive(Clone)]
pub struct CheckpointStore {
    log: NodeLog,
}

impl CheckpointStore {
    pub(crate) fn new(log: NodeLog) -> CheckpointStore {
        CheckpointStore { log }
    }

    /// The record as of the latest commit.
    pub fn get(&self, group: GroupId, key: &[u8]) -> Result<Option<Bytes>> {
        let core = self.log.core()?;
        core.commits.check_not_lost(group)?;
        let prefix = core.commits.records_prefix(group);
        keys::get(&core.index.state, &prefix, key)
    }

    /// Records whose key starts with `prefix`, in order. Commits made meanwhile may or may not be
    /// seen.
    pub fn scan(&self, group: GroupId, prefix: &[u8]) -> Result<StateScan> {
        let core = self.log.core()?;
        core.commits.check_not_lost(group)?;
        let records = core.commits.records_prefix(group);
        Ok(StateScan::new(core.index.clone(), &records, prefix))
    }

    /// Like [`CheckpointStore::scan`], but starts at the first key at or above `from`.
    pub fn scan_from(&self, group: GroupId, prefix: &[u8], from: &[u8]) -> Result<StateScan> {
        let mut scan = self.scan(group, prefix)?;
        scan.start_at(from);
        Ok(scan)
    }

    /// Makes a checkpoint durable: all of it when this returns, all or nothing after a crash. Takes
    /// the time of a few syncs; not for an async task.
    pub fn commit(&self, group: GroupId, batch: CheckpointBatch) -> Result<()> {
        self.log.core()?.commit(group, batch)
    }

    /// What the latest commit gave as `applied`.
    pub fn applied(&self, group: GroupId) -> Result<Option<Bytes>> {
        let core = self.log.core()?;
        core.commits.check_not_lost(group)?;
        core.applied(group)
    }

    /// Replaces all records of a group at once. The group's payload in the log counts as dead
    /// afterwards, so this is for groups whose records refer to none; see `SnapshotImport`.
    pub fn replace(
        &self,
        group: GroupId,
        records: impl IntoIterator<Item = (Vec<u8>, Bytes)>,
        applied: Bytes,
    ) -> Result<()> {
        let mut records = records.into_iter().map(Ok);
        self.log
            .core()?
            .replace(group, &mut records, Some(&applied), None)
    }

    /// Forgets all state of a group.
    pub fn clear(&self, group: GroupId) -> Result<()> {
        self.log
            .core()?
            .replace(group, &mut std::iter::empty(), None, None)
    }
}

/// Records in the order of their keys.
pub struct StateScan {
    index: Arc<Index>,
    prefix_bytes: usize,
    records_prefix: Vec<u8>,
    wanted: Vec<u8>,
    next: Vec<u8>,
    iter: sled::Iter,
}

impl StateScan {
    pub(crate) fn new(index: Arc<Index>, records_prefix: &[u8], prefix: &[u8]) -> StateScan {
        let wanted = keys::scan_prefix(records_prefix, prefix);
        let iter = index.state.range(wanted.clone()..);
        StateScan {
            index,
            prefix_bytes: records_prefix.len(),
            records_prefix: records_prefix.to_vec(),
            next: wanted.clone(),
            wanted,
            iter,
        }
    }

    pub(crate) fn start_at(&mut self, from: &[u8]) {
        let from = keys::scan_prefix(&self.records_prefix, from);
        self.next = from.max(self.wanted.clone());
        self.iter = self.index.state.range(self.next.clone()..);
    }

    fn next_record(&mut self) -> Result<Option<(Vec<u8>, Bytes)>> {
        loop {
            let Some((stored, value)) = guarded("scan state", || self.iter.next().transpose())?
            else {
                return Ok(None);
            };
            if !stored.starts_with(&self.wanted) {
                return Ok(None);
            }
            let (key, is_first) = keys::parse_record_key(self.prefix_bytes, &stored)?;
            if !is_first {
                continue;
            }
            let value = match keys::assemble(&self.index.state, &stored, &value)? {
                Some(value) => Some(value),
                // Replaced while its pieces were read.
                None => keys::get(&self.index.state, &self.records_prefix, &key)?,
            };
            if let Some(value) = value {
                return Ok(Some((key, value)));
            }
        }
    }
}

impl Iterator for StateScan {
    type Item = Result<(Vec<u8>, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}
