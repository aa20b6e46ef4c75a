//! The node's log as its callers see it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::checkpoint::{CheckpointStore, Commits};
use crate::config::LogConfig;
use crate::damage::DamagedRange;
use crate::disk::Disk;
use crate::error::{Result, StorageError};
use crate::group::HINT_BYTES_MAX;
use crate::index::{Applier, Index};
use crate::index_thread::{self, IndexQueue};
use crate::metrics::{Gauges, LogMetrics, Metrics};
use crate::preparer::Preparer;
use crate::read::TableCache;
use crate::recovery::{self, RecoveryReport};
use crate::retention::{Retention, SegmentInfo};
use crate::segment::SegmentTable;
use crate::tail::Tail;
use crate::writer::{Op, Queued, Work};
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    Drain,
    Abandon,
}

/// What callers and the writer share.
pub(crate) struct LogState {
    pub tail: Tail,
    queue: VecDeque<Queued>,
    queued_bytes: u64,
    /// Operations ever queued, and ever taken by the writer.
    queued_ops: u64,
    taken_ops: u64,
    /// Latest commit hint per group, and how many operations were queued before it: a hint is not
    /// written ahead of the entries it names.
    hints: BTreeMap<GroupId, (u64, Bytes)>,
    health: LogHealth,
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
    pub compacting_bytes: AtomicU64,
}

impl Core {
    pub(crate) fn new(parts: recovery::Recovered, config: LogConfig, disk: Arc<dyn Disk>) -> Core {
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
            compacting_bytes: AtomicU64::new(0),
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
        let reason = chain_of(error.as_ref());
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

    fn refuse_queue(&self, error: &Arc<StorageError>) {
        let refused: Vec<Queued> = {
            let mut state = self.state.lock();
            let refused: Vec<Queued> = state.queue.drain(..).collect();
            state.queued_bytes -= refused.iter().map(|queued| queued.bytes).sum::<u64>();
            refused
        };
        for queued in refused {
            (queued.done)(Err(error.clone()));
        }
    }

    /// Queues one operation; `prepare` sees the state first, under the same lock, and may refuse.
    pub(crate) fn submit(&self, done: Done, prepare: impl FnOnce(&mut LogState) -> Result<Op>) {
        let refused = {
            let mut state = self.state.lock();
            match state.check_open().and_then(|()| prepare(&mut state)) {
                Ok(op) => {
                    let bytes = op.bytes();
                    state.queued_bytes += bytes;
                    state.queued_ops += 1;
                    state.queue.push_back(Queued {
                        op,
                        done,
                        at: Instant::now(),
                        bytes,
                    });
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

    fn close(&self, closing: Closing) {
        self.state.lock().closing = closing;
        self.work.notify_all();
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
    fn check_open(&self) -> Result<()> {
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

fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A running core and its threads.
struct Running {
    core: Arc<Core>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    fn start(config: LogConfig, disk: Arc<dyn Disk>) -> Result<(Running, RecoveryReport)> {
        let recovered = recovery::recover(&config, disk.as_ref())?;
        let report = recovered.report.clone();
        let round = recovered.applier.reached().round + 1;
        let before = recovered.end;
        let first = recovered.first_segment;
        let core = Arc::new(Core::new(recovered, config, disk));
        let mut running = Running {
            core: core.clone(),
            threads: Vec::new(),
        };
        let groups = core.applier.lock().groups().clone();
        let segment = core.preparer.take(first)?;
        let writer = crate::writer::Writer::begin(core.clone(), segment, groups, before, round)?;
        running.spawn("log-writer", move || writer.run())?;
        let for_index = core.clone();
        running.spawn("log-index", move || index_thread::run(&for_index))?;
        running.spawn("log-preparer", move || core.preparer.run())?;
        Ok((running, report))
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(StorageError::io(
                "start a thread for",
                &self.core.config.dir,
            ))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Ends the threads. With `drain` everything queued is written and the index made durable
    /// first; without, it is as if the process had been killed.
    fn end(&mut self, drain: bool) -> Result<()> {
        let core = &self.core;
        core.close(if drain {
            Closing::Drain
        } else {
            Closing::Abandon
        });
        let mut outcome = Ok(());
        if !drain {
            core.index_queue.close(true);
        }
        let mut threads = self.threads.drain(..);
        let mut join = |thread: Option<JoinHandle<()>>| {
            // The last handle may be dropped by a completion, on the writer thread itself.
            if let Some(thread) = thread
                && thread.thread().id() != thread::current().id()
                && thread.join().is_err()
            {
                outcome = Err(StorageError::Failed {
                    reason: "a thread of the log panicked".to_owned(),
                });
            }
        };
        join(threads.next());
        core.index_queue.close(!drain);
        join(threads.next());
        core.preparer.close();
        join(threads.next());
        drop(threads);
        core.refuse_queue(&Arc::new(StorageError::Closed));
        if drain {
            core.applier.lock().write()?;
            core.index.flush()?;
        }
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.threads.is_empty()
            && let Err(error) = self.end(false)
        {
            tracing::error!(%error, "the log did not end well");
        }
    }
}

struct Handle {
    config: LogConfig,
    disk: Arc<dyn Disk>,
    /// `None` after shutdown, and while the log is opened again.
    running: RwLock<Option<Running>>,
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
        match self.core() {
            Ok(core) => core.state.lock().health.clone(),
            Err(_) => LogHealth::Failed {
                reason: StorageError::Closed.to_string(),
            },
        }
    }

    /// Every damaged range found so far, at start or by a read.
    pub fn damage(&self) -> Result<Vec<DamagedRange>> {
        Ok(self.core()?.applier.lock().damage().to_vec())
    }

    /// Bytes that wait for the writer.
    pub fn queued_bytes(&self) -> u64 {
        self.core().map_or(0, |core| core.state.lock().queued_bytes)
    }

    /// Whether `bytes` more of client data may be written. Settlements, purges and checkpoints need
    /// not ask.
    pub fn admission(&self, bytes: u64) -> Result<()> {
        let core = self.core()?;
        let queued_bytes = {
            let state = core.state.lock();
            state.check_open()?;
            state.queued_bytes
        };
        let in_flight = queued_bytes + core.compacting_bytes.load(Ordering::Relaxed);
        let free = core.free_bytes()?.saturating_sub(in_flight);
        let reserve = core.config.reserve();
        if free < reserve.saturating_add(bytes) {
            return Err(StorageError::Full { free, reserve });
        }
        Ok(())
    }

    /// After [`LogHealth::FullWaiting`]: when the disk has room again, closes the log and opens it
    /// anew. Returns `None` while there is no room. Groups must be opened again by the caller
    /// afterwards: of what was not acknowledged, some may be there and some not.
    pub fn try_recover(&self) -> Result<Option<RecoveryReport>> {
        {
            let core = self.core()?;
            if !matches!(core.state.lock().health, LogHealth::FullWaiting { .. }) {
                return Ok(None);
            }
            if core.free_bytes()? < core.config.reserve() {
                return Ok(None);
            }
        }
        self.reopen().map(Some)
    }

    /// Closes the log as it is and opens it anew.
    pub fn reopen(&self) -> Result<RecoveryReport> {
        let mut running = self.handle.running.write();
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
        match self.handle.running.write().take() {
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
