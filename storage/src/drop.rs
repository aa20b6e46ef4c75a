//! Removing segments that nothing needs: the records leave the index durably, then the file goes,
//! then its name. A crash in between is finished by the next start.

use crate::compact::key_of;
use crate::core::Core;
use crate::error::{Result, StorageError};
use crate::log::NodeLog;
use crate::metrics::count;
use crate::retention::SegmentStats;
use crate::segment::{Scanner, SegmentKey};
use crate::{GroupId, SegmentId};

impl NodeLog {
    /// Removes every segment that nothing needs any more, and returns which.
    pub fn drop_dead_segments(&self) -> Result<Vec<SegmentId>> {
        self.core()?.drop_dead_segments()
    }
}

impl Core {
    pub(crate) fn drop_dead_segments(&self) -> Result<Vec<SegmentId>> {
        let mut dropped = Vec::new();
        loop {
            let next = {
                let applier = self.applier.lock();
                let mut retention = self.retention.lock();
                let candidate = retention
                    .segments
                    .values()
                    .find(|stats| retention.is_droppable(stats, applier.groups()))
                    .map(SegmentStats::key);
                if let Some(key) = candidate
                    && let Some(stats) = retention.segments.get_mut(&key.id)
                {
                    stats.busy = true;
                }
                candidate
            };
            let Some(key) = next else {
                return Ok(dropped);
            };
            let outcome = self.drop_segment(key);
            if let Some(stats) = self.retention.lock().segments.get_mut(&key.id) {
                stats.busy = false;
            }
            outcome?;
            count(&self.metrics.segments_dropped, 1);
            dropped.push(key.id);
        }
    }

    fn drop_segment(&self, key: SegmentKey) -> Result<()> {
        let stats = self.retention.lock().segments.get(&key.id).cloned();
        let is_damaged = {
            let applier = self.applier.lock();
            applier.damage().iter().any(|range| range.segment == key.id)
        };
        let mut entries = Vec::new();
        if is_damaged && let Some(stats) = &stats {
            // What is in it cannot be asked of the file.
            entries.extend(
                self.index
                    .entries_in(stats)?
                    .into_iter()
                    .map(|(key, _)| key),
            );
        } else if let Some(file) = self.segments.get(key) {
            let end = file.len()?;
            let mut scanner = Scanner::new(file, end);
            let mut at = 0;
            while let Some((found, header)) = scanner.next_header(at)? {
                entries.extend(key_of(&header));
                at = found + header.stride();
            }
        }
        let groups: Vec<GroupId> = stats
            .map(|stats| stats.shares.keys().copied().collect())
            .unwrap_or_default();
        self.applier.lock().remove_segment(key, &entries)?;
        self.remove_dead_counts(key, &groups)?;
        // The records must be gone for good before the bytes are.
        self.index.flush()?;
        self.remove_file(key)
    }

    pub(crate) fn remove_file(&self, key: SegmentKey) -> Result<()> {
        self.segments.remove(key);
        let dir = self.config.log_dir();
        let path = key.path(&dir);
        match self.disk.remove(&path) {
            // Lost before, and reported then.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            outcome => outcome.map_err(StorageError::io("remove", &path))?,
        }
        self.disk
            .sync_dir(&dir)
            .map_err(StorageError::io("sync", dir))
    }
}
