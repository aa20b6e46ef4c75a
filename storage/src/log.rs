//! The node's log as its callers see it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::config::LogConfig;
use crate::core::{Core, LogState};
use crate::damage::DamagedRange;
use crate::disk::Disk;
use crate::error::{Result, StorageError};
use crate::group::HINT_BYTES_MAX;
use crate::metrics::{Gauges, LogMetrics};
use crate::recovery::RecoveryReport;
use crate::retention::SegmentInfo;
use crate::running::Running;
use crate::state_store::CheckpointStore;
use crate::writer::Op;
use crate::{ENTRY_BYTES_MAX, GroupId, GroupState, LogEntry, LogPoint, PurgePoint};

/// Called once, when the operation is durable (or failed for good). It runs on the writer thread, in
/// the order of the calls, so it must be short and must not wait. When an operation is refused at
/// once, it runs on the calling thread.
pub type Done = Box<dyn FnOnce(Result<(), Arc<StorageError>>) + Send>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogHealth {
    Healthy,
    /// A write or sync failed. Nothing is written any more until the process restarts; reads go on.
    Failed {
        reason: String,
    },
    /// The disk was full in the middle of a write. [`NodeLog::try_recover`] goes on once there is
    /// space again.
    FullWaiting {
        reason: String,
    },
}

struct Handle {
    config: LogConfig,
    disk: Arc<dyn Disk>,
    /// `None` after shutdown, and while the log is opened again.
    running: RwLock<Option<Running>>,
    is_shut_down: AtomicBool,
}

/// The log that all groups of a node share. Clones are the same log. When the last one is dropped
/// without [`NodeLog::shutdown`], what is queued is not written.
#[derive(Clone)]
pub struct NodeLog {
    handle: Arc<Handle>,
}

impl NodeLog {
    /// Opens or creates the log, repairs what a crash left, and says what it found.
    pub fn open(config: LogConfig, disk: Arc<dyn Disk>) -> Result<(NodeLog, RecoveryReport)> {
        config.check()?;
        let (running, report) = Running::start(config.clone(), disk.clone())?;
        let handle = Handle {
            config,
            disk,
            running: RwLock::new(Some(running)),
            is_shut_down: AtomicBool::new(false),
        };
        Ok((
            NodeLog {
                handle: Arc::new(handle),
            },
            report,
        ))
    }

    pub(crate) fn core(&self) -> Result<Arc<Core>> {
        self.handle
            .running
            .read()
            .as_ref()
            .map(|running| running.core.clone())
            .ok_or(StorageError::Closed)
    }

    pub fn config(&self) -> &LogConfig {
        &self.handle.config
    }

    fn submit(&self, done: Done, prepare: impl FnOnce(&Core, &mut LogState) -> Result<Op>) {
        match self.core() {
            Ok(core) => core.submit(done, |state| prepare(&core, state)),
            Err(error) => done(Err(Arc::new(error))),
        }
    }

    /// Queues entries that follow the group's last one. They can be read when this returns.
    pub fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) {
        self.submit(done, |core, state| {
            check_entries(
                state.tail.meta(group).and_then(|meta| meta.last),
                group,
                &entries,
            )?;
            let bytes = entries.iter().map(|entry| entry.body.len() as u64).sum();
            state.check_room(bytes, core.config.queue_bytes_max)?;
            let first_id = state.tail.append(group, &entries);
            Ok(Op::Entries {
                group,
                first_id,
                entries,
            })
        });
    }

    /// Queues a vote (at most 160 bytes), behind all earlier calls of the group.
    pub fn save_vote(&self, group: GroupId, vote: Bytes, done: Done) {
        self.submit(done, |_, state| {
            check_hint("vote", &vote)?;
            state.tail.meta_mut(group).vote = Some(vote.clone());
            Ok(Op::Vote { group, vote })
        });
    }

    /// Remembers what is committed (at most 160 bytes). Written along with a later round; forces
    /// none.
    pub fn save_committed(&self, group: GroupId, committed: Bytes) -> Result<()> {
        check_hint("commit hint", &committed)?;
        let core = self.core()?;
        let mut state = core.state.lock();
        state.check_open()?;
        state.tail.meta_mut(group).committed = Some(committed.clone());
        let queued_before = state.queued_ops;
        state.hints.insert(group, (queued_before, committed));
        Ok(())
    }

    /// Drops the entries after `last_kept`; `None` drops all. May read the index: not for hot paths.
    pub fn truncate_after(&self, group: GroupId, last_kept: Option<u64>, done: Done) {
        let point = match last_kept.map(|index| self.point(group, index)).transpose() {
            Ok(point) => point,
            Err(error) => return done(Err(Arc::new(error))),
        };
        self.submit(done, |_, state| {
            state.tail.truncate(group, point);
            Ok(Op::Truncate {
                group,
                last_kept: point,
            })
        });
    }

    /// Hides entries up to `upto` from [`NodeLog::entries`]. Their payload stays readable.
    pub fn purge(&self, group: GroupId, upto: PurgePoint, done: Done) {
        self.submit(done, |_, state| {
            state.tail.meta_mut(group).purge(upto);
            Ok(Op::Purge { group, upto })
        });
    }

    /// Term and leader of a stored entry, or of the purge point.
    pub fn point(&self, group: GroupId, index: u64) -> Result<LogPoint> {
        self.core()?.point(group, index)
    }

    pub fn group_state(&self, group: GroupId) -> Result<GroupState> {
        let core = self.core()?;
        core.commits.check_not_lost(group)?;
        let state = core.state.lock();
        let meta = state.tail.meta(group).cloned().unwrap_or_default();
        Ok(GroupState {
            purged: meta.purged,
            last: meta.last,
            vote: meta.vote,
            committed: meta.committed,
            suspect: meta.suspect,
        })
    }

    /// Entries of `range` that Raft may see, in order and without a gap, at least one if there is
    /// any, else as many as `max_bytes` allow. Bytes from disk are checked.
    pub fn entries(
        &self,
        group: GroupId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>> {
        self.core()?.entries(group, range, max_bytes)
    }

    /// The payload of some slots of an entry, checked. Reads the entry's table and those slots
    /// only; works below the purge point as long as the slots are live.
    pub fn read_slots(&self, group: GroupId, index: u64, slots: Range<u32>) -> Result<Vec<Bytes>> {
        self.core()?.read_slots(group, index, slots)
    }

    /// Whether [`NodeLog::read_slots`] would be answered from memory.
    pub fn is_cached(&self, group: GroupId, index: u64) -> bool {
        self.core().is_ok_and(|core| core.is_cached(group, index))
    }

    pub fn read_head(&self, group: GroupId, index: u64) -> Result<Bytes> {
        self.core()?.read_head(group, index)
    }

    pub fn checkpoints(&self) -> CheckpointStore {
        CheckpointStore::new(self.clone())
    }

    pub fn segments(&self) -> Result<Vec<SegmentInfo>> {
        let core = self.core()?;
        let applier = core.applier.lock();
        let infos = core.retention.lock().infos(applier.groups());
        Ok(infos)
    }

    pub fn health(&self) -> LogHealth {
        // Whoever opens it again holds it for seconds, and whoever asks must not wait for that.
        let running = self.handle.running.try_read();
        match running.as_ref().and_then(|running| running.as_ref()) {
            Some(running) => running.core.state.lock().health.clone(),
            None if self.handle.is_shut_down.load(Ordering::Acquire) => LogHealth::Failed {
                reason: StorageError::Closed.to_string(),
            },
            // If an attempt failed, because somebody still held it, the next may succeed.
            None => LogHealth::FullWaiting {
                reason: "the log is being opened again".to_owned(),
            },
        }
    }

    /// Every damaged range found so far, at start or by a read.
    pub fn damage(&self) -> Result<Vec<DamagedRange>> {
        Ok(self.core()?.applier.lock().damage().to_vec())
    }

    /// The groups that damage took something from which they may need.
    pub fn damaged_groups(&self) -> Result<BTreeSet<GroupId>> {
        let core = self.core()?;
        let applier = core.applier.lock();
        let retention = core.retention.lock();
        let mut hit = BTreeSet::new();
        for range in applier.damage() {
            hit.extend(range.entries.iter().map(|(group, _)| *group));
            if range.entries.is_empty()
                && let Some(stats) = retention.segments.get(&range.segment)
            {
                hit.extend(stats.needed_by(applier.groups()));
            }
        }
        Ok(hit)
    }

    /// Forgets that the group was damaged: it has everything anew, and its log was brought up to that.
    /// Behind all earlier calls of the group.
    pub fn healed(&self, group: GroupId, done: Done) {
        self.submit(done, |_, state| {
            state.tail.meta_mut(group).suspect = false;
            Ok(Op::Healed { group })
        });
    }

    /// Bytes that wait for the writer.
    pub fn queued_bytes(&self) -> u64 {
        self.core().map_or(0, |core| core.state.lock().queued_bytes)
    }

    /// Whether `bytes` more of client data may be written. Settlements, purges and checkpoints need
    /// not ask.
    pub fn admission(&self, bytes: u64) -> Result<()> {
        self.core()?.admission(bytes)
    }

    /// Bytes that client data may still take before the reserve is reached.
    pub fn room_bytes(&self) -> Result<u64> {
        let (free, reserve) = self.core()?.space()?;
        Ok(free.saturating_sub(reserve))
    }

    /// After [`LogHealth::FullWaiting`]: when the disk has room again, closes the log and opens it
    /// anew. Returns `None` while there is no room. Groups must be opened again by the caller
    /// afterwards: of what was not acknowledged, some may be there and some not.
    pub fn try_recover(&self) -> Result<Option<RecoveryReport>> {
        // Not running, though nobody ended it: an earlier attempt failed halfway. Try again.
        if let Ok(core) = self.core() {
            if !matches!(core.state.lock().health, LogHealth::FullWaiting { .. }) {
                return Ok(None);
            }
            if core.free_bytes()? < core.config.recovery_bytes() {
                return Ok(None);
            }
        }
        self.reopen().map(Some)
    }

    /// Closes the log as it is and opens it anew.
    pub fn reopen(&self) -> Result<RecoveryReport> {
        let mut running = self.handle.running.write();
        // Under the lock: an end that comes later waits for it, and finds what is opened here.
        if self.handle.is_shut_down.load(Ordering::Acquire) {
            return Err(StorageError::Closed);
        }
        if let Some(mut old) = running.take() {
            // Whatever cannot be written any more is what recovery is for.
            if let Err(error) = old.end(false) {
                tracing::warn!(%error, "the log did not end well before it was opened again");
            }
        }
        let (new, report) = Running::start(self.handle.config.clone(), self.handle.disk.clone())?;
        *running = Some(new);
        Ok(report)
    }

    pub fn metrics(&self) -> Result<LogMetrics> {
        let core = self.core()?;
        let segments = self.segments()?;
        let (tail_bytes, queue_ops, queue_bytes) = {
            let state = core.state.lock();
            let tail_bytes = state.tail.cached_bytes() as u64;
            (tail_bytes, state.queue.len() as u64, state.queued_bytes)
        };
        Ok(core.metrics.snapshot(Gauges {
            tail_bytes,
            segments: segments.len() as u64,
            segment_bytes: segments.iter().map(|segment| segment.bytes).sum(),
            live_bytes: segments.iter().map(|segment| segment.live_bytes).sum(),
            index_bytes: core.index.size_on_disk()?,
            queue_ops,
            queue_bytes,
            index_backlog: core.index_queue.backlog(),
            damaged_ranges: core.applier.lock().damage().len() as u64,
        }))
    }

    /// Seals the open segment, if anything is in it, so that it can be dropped or compacted.
    pub fn seal(&self) -> Result<(), Arc<StorageError>> {
        let core = self.core().map_err(Arc::new)?;
        core.submit_and_wait(|_| Ok(Op::Rotate))?;
        core.index_queue.barrier().map_err(Arc::new)
    }

    /// Writes what is queued, brings the index up to date and ends the threads.
    pub fn shutdown(&self) -> Result<()> {
        self.handle.is_shut_down.store(true, Ordering::Release);
        // Nobody who asks meanwhile waits for the end.
        let running = self.handle.running.write().take();
        match running {
            Some(mut running) => running.end(true),
            None => Ok(()),
        }
    }
}

fn check_hint(what: &'static str, bytes: &Bytes) -> Result<()> {
    if bytes.len() > HINT_BYTES_MAX {
        return Err(StorageError::TooLarge {
            what,
            bytes: bytes.len() as u64,
            allowed: HINT_BYTES_MAX as u64,
        });
    }
    Ok(())
}

fn check_entries(last: Option<LogPoint>, group: GroupId, entries: &[LogEntry]) -> Result<()> {
    let mut last = last.map(|point| point.index);
    for entry in entries {
        if let Some(last) = last
            && last.checked_add(1) != Some(entry.index)
        {
            return Err(StorageError::Gap {
                group,
                index: entry.index,
                last,
            });
        }
        if entry.body.len() > ENTRY_BYTES_MAX {
            return Err(StorageError::TooLarge {
                what: "entry body",
                bytes: entry.body.len() as u64,
                allowed: ENTRY_BYTES_MAX as u64,
            });
        }
        last = Some(entry.index);
    }
    Ok(())
}
