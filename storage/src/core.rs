//! What the callers of a log, its writer and its index thread share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::GroupId;
use crate::applier::Applier;
use crate::checkpoint::Commits;
use crate::config::LogConfig;
use crate::damage::DamagedRange;
use crate::disk::Disk;
use crate::error::{Result, StorageError, error_chain, unshared};
use crate::index::Index;
use crate::index_thread::IndexQueue;
use crate::installing::Installing;
use crate::log::{Done, LogHealth};
use crate::metrics::Metrics;
use crate::preparer::Preparer;
use crate::recovery::Recovered;
use crate::retention::Retention;
use crate::segment::SegmentTable;
use crate::table_cache::TableCache;
use crate::tail::Tail;
use crate::writer::{Op, Queued, Work};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    No,
    Drain,
    Abandon,
}

/// What callers and the writer share.
pub(crate) struct LogState {
    pub tail: Tail,
    pub queue: VecDeque<Queued>,
    pub queued_bytes: u64,
    /// Operations ever queued, and ever taken by the writer.
    pub queued_ops: u64,
    taken_ops: u64,
    /// Latest commit hint per group, and how many operations were queued before it: a hint is not
    /// written ahead of the entries it names.
    pub hints: BTreeMap<GroupId, (u64, Bytes)>,
    pub health: LogHealth,
    closing: Closing,
}

pub(crate) struct Core {
    pub config: LogConfig,
    pub disk: Arc<dyn Disk>,
    pub index: Arc<Index>,
    pub applier: Mutex<Applier>,
    pub retention: Arc<Mutex<Retention>>,
    pub segments: SegmentTable,
    pub state: Mutex<LogState>,
    work: Condvar,
    pub index_queue: IndexQueue,
    pub preparer: Preparer,
    pub metrics: Metrics,
    pub tables: Mutex<TableCache>,
    pub commits: Commits,
    pub installing: Installing,
    pub compacting_bytes: AtomicU64,
    /// Snapshots on their way in: installing them writes as much once more.
    pub staged_bytes: AtomicU64,
}

impl Core {
    pub(crate) fn new(parts: Recovered, config: LogConfig, disk: Arc<dyn Disk>) -> Core {
        let groups = parts.applier.groups().clone();
        let preparer = Preparer::new(disk.clone(), config.log_dir(), config.segment_bytes);
        Core {
            state: Mutex::new(LogState {
                tail: Tail::new(config.tail_cache_bytes, &groups),
                queue: VecDeque::new(),
                queued_bytes: 0,
                queued_ops: 0,
                taken_ops: 0,
                hints: BTreeMap::new(),
                health: LogHealth::Healthy,
                closing: Closing::No,
            }),
            config,
            disk,
            index: parts.index,
            applier: Mutex::new(parts.applier),
            retention: parts.retention,
            segments: parts.segments,
            work: Condvar::new(),
            index_queue: IndexQueue::default(),
            preparer,
            metrics: Metrics::default(),
            tables: Mutex::default(),
            commits: parts.commits,
            installing: Installing::default(),
            compacting_bytes: AtomicU64::new(0),
            staged_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().health != LogHealth::Healthy
    }

    pub(crate) fn commits_durable(&self) -> u64 {
        self.commits.durable()
    }

    /// Waits for the writer's next work.
    pub(crate) fn next_work(&self, wake_at: Option<Instant>) -> Work {
        let mut state = self.state.lock();
        loop {
            match state.closing {
                Closing::Abandon => return Work::Abandon,
                Closing::Drain if state.queue.is_empty() => {
                    let hints = state.take_hints();
                    return if hints.is_empty() || state.health != LogHealth::Healthy {
                        Work::Close
                    } else {
                        Work::Round {
                            ops: Vec::new(),
                            hints,
                        }
                    };
                }
                _ => {}
            }
            if !state.queue.is_empty() {
                let ops = state.take_round(&self.config);
                let hints = state.take_hints();
                return Work::Round { ops, hints };
            }
            match wake_at {
                Some(at) if state.health == LogHealth::Healthy => {
                    if self.work.wait_until(&mut state, at).timed_out() && state.queue.is_empty() {
                        let hints = state.take_hints();
                        return Work::Quiet { hints };
                    }
                }
                _ => self.work.wait(&mut state),
            }
        }
    }

    pub(crate) fn release_queued(&self, bytes: u64) {
        self.state.lock().queued_bytes -= bytes;
    }

    /// From here on every operation is refused.
    pub(crate) fn mark_stopped(&self, error: &Arc<StorageError>) {
        let mut state = self.state.lock();
        if state.health != LogHealth::Healthy {
            return;
        }
        let reason = error_chain(error.as_ref());
        state.health = if error.is_out_of_space() {
            tracing::error!(%reason, "the log waits for disk space");
            LogHealth::FullWaiting { reason }
        } else {
            tracing::error!(%reason, "the log has stopped");
            LogHealth::Failed { reason }
        };
    }

    /// Stops the log for good and completes what waits with the error.
    pub(crate) fn stop(&self, error: Arc<StorageError>) {
        self.mark_stopped(&error);
        self.refuse_queue(&error);
    }

    /// The same for what its caller fails with.
    pub(crate) fn stopped_by(&self, error: StorageError) -> StorageError {
        let shared = Arc::new(error);
        self.stop(shared.clone());
        unshared(shared)
    }

    pub(crate) fn refuse_queue(&self, error: &Arc<StorageError>) {
        let refused: Vec<Queued> = {
            let mut state = self.state.lock();
            let refused: Vec<Queued> = state.queue.drain(..).collect();
            state.queued_bytes -= refused.iter().map(|queued| queued.bytes).sum::<u64>();
            refused
        };
        for queued in refused {
            queued.complete(Err(error.clone()));
        }
    }

    /// Queues one operation; `prepare` sees the state first, under the same lock, and may refuse.
    pub(crate) fn submit(&self, done: Done, prepare: impl FnOnce(&mut LogState) -> Result<Op>) {
        let refused = {
            let mut state = self.state.lock();
            match state.check_open().and_then(|()| prepare(&mut state)) {
                Ok(op) => {
                    let queued = Queued::new(op, done);
                    state.queued_bytes += queued.bytes;
                    state.queued_ops += 1;
                    state.queue.push_back(queued);
                    self.work.notify_one();
                    None
                }
                Err(error) => Some((done, error)),
            }
        };
        if let Some((done, error)) = refused {
            done(Err(Arc::new(error)));
        }
    }

    /// Submits and waits until it is durable. Not for the writer thread.
    pub(crate) fn submit_and_wait(
        &self,
        prepare: impl FnOnce(&mut LogState) -> Result<Op>,
    ) -> Result<(), Arc<StorageError>> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let done: Done = Box::new(move |outcome| {
            // The receiver waits below until it is told.
            let _ = sender.send(outcome);
        });
        self.submit(done, prepare);
        receiver
            .recv()
            .unwrap_or_else(|_| Err(Arc::new(StorageError::Closed)))
    }

    pub(crate) fn close(&self, closing: Closing) {
        self.state.lock().closing = closing;
        self.work.notify_all();
    }

    pub(crate) fn admission(&self, bytes: u64) -> Result<()> {
        let (free, reserve) = self.space()?;
        if free < reserve.saturating_add(bytes) {
            return Err(StorageError::Full { free, reserve });
        }
        Ok(())
    }

    /// What is free once all that is on its way is written, and how much of it is kept in reserve.
    pub(crate) fn space(&self) -> Result<(u64, u64)> {
        let queued_bytes = {
            let state = self.state.lock();
            state.check_open()?;
            state.queued_bytes
        };
        let in_flight = queued_bytes
            + self.compacting_bytes.load(Ordering::Relaxed)
            + self.staged_bytes.load(Ordering::Relaxed);
        let free = self.free_bytes()?.saturating_sub(in_flight);
        Ok((free, self.config.reserve()))
    }

    pub(crate) fn free_bytes(&self) -> Result<u64> {
        let dir = self.config.log_dir();
        self.disk
            .free_bytes(&dir)
            .map_err(StorageError::io("ask for free space in", dir))
    }

    /// Remembers damage that a read came upon.
    pub(crate) fn report_damage(&self, range: DamagedRange) {
        if self.applier.lock().add_damage(range.clone()) {
            tracing::error!(
                segment = %range.segment, offset = range.offset, bytes = range.bytes,
                entries = ?range.entries, what = range.what, "stored data is damaged"
            );
        }
    }
}

impl LogState {
    pub(crate) fn check_open(&self) -> Result<()> {
        match (&self.health, self.closing) {
            (LogHealth::Healthy, Closing::No) => Ok(()),
            (LogHealth::Healthy, _) => Err(StorageError::Closed),
            (LogHealth::Failed { reason }, _) => Err(StorageError::Failed {
                reason: reason.clone(),
            }),
            (LogHealth::FullWaiting { reason }, _) => Err(StorageError::FullWaiting {
                reason: reason.clone(),
            }),
        }
    }

    pub(crate) fn check_room(&self, bytes: u64, limit: u64) -> Result<()> {
        if self.queued_bytes + bytes > limit && self.queued_bytes > 0 {
            return Err(StorageError::QueueFull {
                queued_bytes: self.queued_bytes,
                limit,
            });
        }
        Ok(())
    }

    fn take_round(&mut self, config: &LogConfig) -> Vec<Queued> {
        let mut bytes = 0;
        let mut ops = Vec::new();
        while ops.len() < config.round_ops_max {
            match self.queue.front() {
                Some(next) if ops.is_empty() || bytes + next.bytes <= config.round_bytes_max => {
                    bytes += next.bytes;
                    ops.extend(self.queue.pop_front());
                }
                _ => break,
            }
        }
        self.taken_ops += ops.len() as u64;
        ops
    }

    fn take_hints(&mut self) -> Vec<(GroupId, Bytes)> {
        let taken_ops = self.taken_ops;
        let mut due = Vec::new();
        self.hints.retain(|group, (queued_before, hint)| {
            let is_due = *queued_before <= taken_ops;
            if is_due {
                due.push((*group, hint.clone()));
            }
            !is_due
        });
        due
    }
}
