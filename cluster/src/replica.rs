//! What the parts of one group share on this node: its state, its clock and its condition.
//!
//! ```text
//!   Raft's apply worker --> state machine --+
//!   checkpointer ---------------------------+--> Replica <-- proposer, outbox, Shard handles
//! ```
//!
//! A replica lives as long as the node, while the Raft under it may be stopped and started again when
//! disk space ran out and came back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use flotilla_model::command::Command;
use flotilla_model::format::FEATURE_LEVEL_FIRST;
use flotilla_model::ids::{NodeId, ShardId, ShardTime};
use flotilla_model::outcome::{Applied, Change};
use flotilla_model::query;
use flotilla_model::records::{NeedsKeys, Records};
use flotilla_storage::{CheckpointStore, GroupId, LogHealth, NodeLog};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, watch};

use crate::checkpoint::{FreezePoint, Frozen};
use crate::codec;
use crate::config::CheckpointConfig;
use crate::error::{ClusterError, chain};
use crate::leadership::LeaderView;
use crate::log_window::LogWindow;
use crate::observer::{Observer, Role};
use crate::start::check_level;
use crate::state::{Pins, Released, StateCache, StoredRecords};
use crate::time::ShardClock;
use crate::types::{LogId, StoredMembership};

/// A query that asks for more rounds than this asks for ever.
const QUERY_ROUNDS_MAX: usize = 100_000;

/// A node that was just deposed gets what it lacks within moments, or it is cut off.
const APPLIED_WAIT_MAX: Duration = Duration::from_secs(1);

/// How far the state machine is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AppliedMark {
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
}

/// What apply did since the last freeze. Changed between entries only.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub applied: AppliedMark,
    pub released: Released,
    /// Entry bytes applied since the last freeze.
    pub log_bytes: u64,
    /// Something was applied since the last freeze.
    pub changed: bool,
}

/// Counters of a group; they only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub proposals: AtomicU64,
    pub commands: AtomicU64,
    pub entries_applied: AtomicU64,
    pub records_loaded: AtomicU64,
    pub checkpoints: AtomicU64,
    pub checkpoint_last_ms: AtomicU64,
    pub apply_pause_max_us: AtomicU64,
    pub outbox_sent: AtomicU64,
    pub outbox_dropped: AtomicU64,
    pub ticks: AtomicU64,
    /// Reads that a peer answered.
    pub read_elsewhere: AtomicU64,
    /// Batches that other nodes brought to this leader.
    pub forwarded_here: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

/// What a replica is opened with.
pub(crate) struct ReplicaSettings {
    pub clock: ShardClock,
    pub checkpoint: CheckpointConfig,
    pub dirty_bytes_max: u64,
    pub clean_bytes_max: u64,
    pub writers: Arc<Semaphore>,
    pub level_max: u16,
}

/// One group on this node.
pub(crate) struct Replica {
    pub group: GroupId,
    pub shard: ShardId,
    pub log: NodeLog,
    pub store: CheckpointStore,
    pub state: Arc<StateCache>,
    pub clock: ShardClock,
    pub checkpoint: CheckpointConfig,
    /// This group's part of the changed records that may wait in memory.
    pub dirty_bytes_max: u64,
    /// Bounds how many groups of the node write checkpoints at a time: each holds its records twice.
    pub writers: Arc<Semaphore>,
    /// One checkpoint at a time; holds the one that could not be written yet.
    pub checkpointing: tokio::sync::Mutex<Option<Frozen>>,
    /// Where apply is to freeze the state.
    pub freeze_point: FreezePoint,
    /// Held over each entry by apply, and by the checkpointer to freeze between two entries.
    pub entry_gate: tokio::sync::Mutex<()>,
    pub progress: Mutex<Progress>,
    /// How large the log is that other members may still need.
    pub log_window: Mutex<LogWindow>,
    /// What the last durable checkpoint covers.
    pub durable: watch::Sender<AppliedMark>,
    /// A checkpoint is wanted before its time.
    pub checkpoint_wanted: Notify,
    /// A checkpoint ended: apply may go on.
    pub checkpoint_ended: Notify,
    pub role: watch::Sender<Role>,
    /// Who leads, this node included once it has taken over.
    pub leader: watch::Sender<Option<NodeId>>,
    view: Mutex<LeaderView>,
    /// This node's wall clock from the median of the voters' ones, in microseconds.
    pub clock_offset_us: AtomicI64,
    /// No other node is in the group: nobody else will take over.
    alone: AtomicBool,
    pub next_due: watch::Sender<Option<ShardTime>>,
    /// The outbox has something to send, perhaps.
    pub outbox_wake: Notify,
    pub counters: Counters,
    /// Shard time of the last applied entry, in ms.
    applied_time_ms: AtomicU64,
    /// The newest entry that was ever applied in this life: up to there the log holds what was committed.
    applied_index: watch::Sender<u64>,
    /// Counts the resets: what an older Raft still applies is not for this state.
    epoch: AtomicU64,
    /// The highest feature level that this node follows.
    pub level_max: u16,
    /// The one that the last applied entry left.
    feature_level: AtomicU16,
    /// Everything that was committed before this start is applied.
    recovered: AtomicBool,
    observers: RwLock<Vec<Arc<dyn Observer>>>,
    failed: Mutex<Option<String>>,
}

impl Replica {
    pub fn open(group: GroupId, log: NodeLog, settings: ReplicaSettings) -> Arc<Self> {
        let store = log.checkpoints();
        let ((mark, level), problem) = match stored_mark(&store, group) {
            Ok(stored) => (stored, None),
            Err(error) => ((None, FEATURE_LEVEL_FIRST), Some(error)),
        };
        let state = Arc::new(StateCache::new(
            group,
            store.clone(),
            settings.clean_bytes_max,
            mark.is_none(),
        ));
        let mark = mark.unwrap_or_default();
        let log_window = window_at_start(&log, group, &mark, &settings.checkpoint);
        let applied_index = index_of(&mark);
        let replica = Self {
            group,
            shard: ShardId(group.0),
            log,
            store,
            state,
            clock: settings.clock,
            dirty_bytes_max: settings.dirty_bytes_max,
            checkpoint: settings.checkpoint,
            writers: settings.writers,
            checkpointing: tokio::sync::Mutex::new(None),
            freeze_point: FreezePoint::default(),
            entry_gate: tokio::sync::Mutex::new(()),
            progress: Mutex::new(Progress {
                applied: mark.clone(),
                ..Progress::default()
            }),
            log_window: Mutex::new(log_window),
            durable: watch::Sender::new(mark),
            checkpoint_wanted: Notify::new(),
            checkpoint_ended: Notify::new(),
            role: watch::Sender::new(Role::Follower),
            leader: watch::Sender::new(None),
            view: Mutex::new(LeaderView::default()),
            clock_offset_us: AtomicI64::new(0),
            alone: AtomicBool::new(false),
            next_due: watch::Sender::new(None),
            outbox_wake: Notify::new(),
            counters: Counters::default(),
            applied_time_ms: AtomicU64::new(0),
            applied_index: watch::Sender::new(applied_index),
            epoch: AtomicU64::new(0),
            level_max: settings.level_max,
            feature_level: AtomicU16::new(level),
            recovered: AtomicBool::new(false),
            observers: RwLock::new(Vec::new()),
            failed: Mutex::new(None),
        };
        // This group cannot start; the others can.
        if let Some(error) = problem {
            replica.fail(&chain(&error));
        }
        Arc::new(replica)
    }

    /// Goes back to the last durable checkpoint, to be replayed from there by a new Raft. To be called
    /// between entries, without a checkpoint running.
    pub fn reset(&self) -> Result<(), ClusterError> {
        let (mark, level) = stored_mark(&self.store, self.group)?;
        self.check_level(level)?;
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.freeze_point.clear();
        self.state.reset(mark.is_none());
        let mark = mark.unwrap_or_default();
        self.note_applied(index_of(&mark));
        *self.progress.lock() = Progress {
            applied: mark.clone(),
            ..Progress::default()
        };
        self.durable.send_replace(mark);
        self.set_feature_level(level);
        self.recovered.store(false, Ordering::Release);
        *self.failed.lock() = None;
        Ok(())
    }

    /// Runs a query on the applied state, loading what is not in memory.
    pub async fn read<T>(
        &self,
        query: impl Fn(&dyn Records) -> Result<T, NeedsKeys>,
    ) -> Result<T, ClusterError> {
        let mut pins = Pins::default();
        for _ in 0..QUERY_ROUNDS_MAX {
            match self.state.query(&mut pins, &query) {
                Ok(answer) => return Ok(answer),
                Err(wanted) => self.load(wanted, &mut pins).await?,
            }
        }
        Err(ClusterError::Unavailable {
            reason: "a query did not come to an end".to_owned(),
        })
    }

    /// Loads records for an operation.
    pub async fn load(&self, wanted: NeedsKeys, pins: &mut Pins) -> Result<(), ClusterError> {
        let loaded = self.state.load(wanted, pins).await?;
        Counters::add(&self.counters.records_loaded, loaded);
        Ok(())
    }

    /// The time that an entry carries: timers up to it have fired, or are work left over.
    pub fn observe_time(&self, entry_time: ShardTime) {
        self.clock.observe(entry_time, !self.is_recovered());
        self.applied_time_ms
            .fetch_max(entry_time.0, Ordering::Relaxed);
    }

    /// An entry was applied, or is part of a snapshot that was installed.
    pub fn note_applied(&self, index: u64) {
        self.applied_index.send_if_modified(|applied| {
            let is_newer = index > *applied;
            *applied = index.max(*applied);
            is_newer
        });
    }

    /// Waits until an entry is applied. Before that this node's log may hold another one under its index,
    /// which was never committed: its bytes must not be taken for those that an outcome refers to.
    pub async fn wait_until_applied(&self, index: u64) -> Result<(), ClusterError> {
        if *self.applied_index.borrow() >= index {
            return Ok(());
        }
        let mut applied = self.applied_index.subscribe();
        let reached = applied.wait_for(|applied| *applied >= index);
        match tokio::time::timeout(APPLIED_WAIT_MAX, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ClusterError::Unavailable {
                reason: format!("entry {index} has not come to this node yet"),
            }),
        }
    }

    /// Hears something about who leads.
    pub fn hear_of_leader(&self, news: impl FnOnce(&mut LeaderView)) {
        let mut view = self.view.lock();
        news(&mut view);
        let leader = view.leader().map(|(_, node)| node);
        // Under the lock, so that the last word is published last.
        self.leader.send_if_modified(|present| {
            let changed = *present != leader;
            *present = leader;
            changed
        });
    }

    /// The leader with its term.
    pub fn leader_in_term(&self) -> Option<(u64, NodeId)> {
        self.view.lock().leader()
    }

    /// The nodes whose majority decides, as the state has it: empty if the state is lost.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        let progress = self.progress.lock();
        let membership = progress.applied.membership.membership();
        membership.voter_ids().map(NodeId).collect()
    }

    /// The newest entry that the state has; 0 if there is none.
    pub fn applied_index(&self) -> u64 {
        let progress = self.progress.lock();
        progress.applied.log_id.map_or(0, |log_id| log_id.index)
    }

    pub fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    pub fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Ordering::Relaxed);
    }

    pub fn applied_time(&self) -> ShardTime {
        ShardTime(self.applied_time_ms.load(Ordering::Relaxed))
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Refuses the rest of the work of a Raft that was stopped: it is not for the state that there is now.
    /// To be called between entries.
    pub fn check_epoch(&self, epoch: u64) -> Result<(), ClusterError> {
        match self.epoch() == epoch {
            true => Ok(()),
            false => Err(ClusterError::Unavailable {
                reason: "the state was taken back to its checkpoint".to_owned(),
            }),
        }
    }

    /// Which behaviour the next entry finds.
    pub fn feature_level(&self) -> u16 {
        self.feature_level.load(Ordering::Acquire)
    }

    pub fn set_feature_level(&self, level: u16) {
        self.feature_level.store(level, Ordering::Release);
    }

    /// Refuses state of a later release.
    pub fn check_level(&self, needed: u16) -> Result<(), ClusterError> {
        let what = format!("the state of group {}", self.group.0);
        check_level(&what, needed, self.level_max)
    }

    /// Refuses to propose what is not to begin yet.
    pub fn check_commands<'a>(
        &self,
        mut commands: impl Iterator<Item = &'a Command>,
    ) -> Result<(), ClusterError> {
        let level = self.feature_level();
        match commands.find(|command| command.feature_level() > level) {
            None => Ok(()),
            Some(command) => Err(ClusterError::Invalid {
                what: format!(
                    "a command is of feature level {}, the group of level {level}",
                    command.feature_level()
                ),
            }),
        }
    }

    pub fn is_recovered(&self) -> bool {
        self.recovered.load(Ordering::Acquire)
    }

    pub fn set_recovered(&self) {
        self.recovered.store(true, Ordering::Release);
    }

    /// Tells everyone what an entry did.
    pub fn publish(&self, applied: &Applied) {
        self.set_next_due(applied.next_due);
        if applied.changes.is_empty() {
            return;
        }
        let sends = |change: &Change| matches!(change, Change::Outbox { .. });
        if applied.changes.iter().any(sends) {
            self.outbox_wake.notify_one();
        }
        for observer in self.observers.read().iter() {
            observer.applied(self.shard, &applied.changes);
        }
    }

    pub fn set_next_due(&self, next_due: Option<ShardTime>) {
        self.next_due.send_if_modified(|due| {
            let news = *due != next_due;
            *due = next_due;
            news
        });
    }

    /// After a recovery nothing was applied that would have told when the next timer is due.
    pub async fn find_next_due(&self) -> Result<(), ClusterError> {
        let next_due = self.read(|records| query::next_due(records)).await?;
        self.set_next_due(next_due);
        Ok(())
    }

    pub fn watch(&self, observer: Arc<dyn Observer>) {
        let mut observers = self.observers.write();
        // Under the lock, so that no change of role falls between the two.
        observer.role(self.shard, *self.role.borrow());
        observers.push(observer);
    }

    pub fn set_role(&self, role: Role) {
        let observers = self.observers.read();
        let changed = self.role.send_if_modified(|present| {
            let changed = *present != role;
            *present = role;
            changed
        });
        if changed {
            for observer in observers.iter() {
                observer.role(self.shard, role);
            }
        }
    }

    /// Takes the group out of service on this node. The first reason stands: later ones follow from it.
    pub fn fail(&self, reason: &str) {
        {
            let mut failed = self.failed.lock();
            if failed.is_none() {
                tracing::error!(group = self.group.0, reason, "group stopped");
                *failed = Some(reason.to_owned());
            }
        }
        self.set_role(Role::Failed);
    }

    /// The same for work on the state of an epoch: if that was replaced meanwhile, its failure says nothing of
    /// the state that there is now.
    pub fn fail_in(&self, epoch: u64, reason: &str) {
        match self.epoch() == epoch {
            true => self.fail(reason),
            false => tracing::warn!(
                group = self.group.0,
                reason,
                "work on a state failed that has been replaced meanwhile"
            ),
        }
    }

    /// Why nothing can be written, if that is so: the log's own reason first, since it causes the rest.
    pub fn trouble(&self) -> Option<String> {
        match self.log.health() {
            LogHealth::Failed { reason } | LogHealth::FullWaiting { reason } => Some(reason),
            LogHealth::Healthy => self.failure(),
        }
    }

    pub fn failure(&self) -> Option<String> {
        self.failed.lock().clone()
    }
}

fn index_of(mark: &AppliedMark) -> u64 {
    mark.log_id.as_ref().map_or(0, |log_id| log_id.index)
}

fn window_at_start(
    log: &NodeLog,
    group: GroupId,
    mark: &AppliedMark,
    config: &CheckpointConfig,
) -> LogWindow {
    // An error shows again, with consequences, as soon as Raft starts.
    let state = log.group_state(group).ok();
    let purged = state
        .and_then(|state| state.purged)
        .map_or(0, |point| point.index);
    LogWindow::new(purged, index_of(mark), config.log_keep_bytes)
}

/// What the last durable checkpoint of a group covers, if there is one, and its feature level.
pub(crate) fn stored_mark(
    store: &CheckpointStore,
    group: GroupId,
) -> Result<(Option<AppliedMark>, u16), ClusterError> {
    let Some(bytes) = store.applied(group)? else {
        return Ok((None, FEATURE_LEVEL_FIRST));
    };
    let mark = codec::decode("applied mark", &bytes).map_err(|error| ClusterError::Corrupt {
        shard: ShardId(group.0),
        what: error.to_string(),
    })?;
    let stats = StoredRecords::new(store, group).query(query::shard_stats)?;
    Ok((Some(mark), stats.feature_level))
}
