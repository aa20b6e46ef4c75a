//! Checkpoints: the changed records of a group, written to the store in one atomic batch.
//!
//! ```text
//!   freeze between two entries: records, applied log id, membership, released slots    (pauses apply)
//!   encode and write, then truly durable                                               (beside apply)
//!   thaw: the records become evictable
//!   Raft: snapshot = this checkpoint, then purge up to it
//! ```
//!
//! The order purged <= snapshot <= durable checkpoint holds at every moment, so that a restart always
//! finds the log from its checkpoint on. A checkpoint that could not be written, for want of space, is
//! kept and written later as it is: what was frozen is not thawed before it is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_model::outcome::ReleasedSlots;
use flotilla_storage::{CheckpointBatch, CheckpointStore, GroupId, Released, SnapshotExport};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use crate::blocking::blocking;
use crate::codec;
use crate::error::{ClusterError, chain};
use crate::release::release_log;
use crate::replica::{AppliedMark, Counters, Replica};
use crate::state::FrozenRecords;
use flotilla_raft::Raft;

/// Before a checkpoint that could not be written is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A generation between freeze and thaw.
pub(crate) struct Frozen {
    records: Arc<FrozenRecords>,
    mark: AppliedMark,
    released: Vec<ReleasedSlots>,
}

/// Where apply is to freeze a generation, for a checkpoint of exactly that entry's state. Whoever asks for
/// it keeps other checkpoints away meanwhile.
#[derive(Default)]
pub(crate) struct FreezePoint {
    // Held by apply while it freezes, so that whoever gives up finds either nothing or a generation.
    state: Mutex<FreezeState>,
    reached: Notify,
}

#[derive(Default)]
struct FreezeState {
    /// The entry that is wanted.
    at: Option<u64>,
    /// Frozen there, and not taken by whoever asked for it.
    frozen: Option<Frozen>,
}

impl FreezePoint {
    /// To be called by apply after each entry, before the next.
    pub fn pass(&self, replica: &Replica, index: u64) {
        let mut state = self.state.lock();
        if state.at == Some(index) {
            state.at = None;
            state.frozen = freeze_now(replica);
            self.reached.notify_one();
        }
    }

    /// Wants nothing any more, and gives what was frozen.
    pub fn clear(&self) -> Option<Frozen> {
        let mut state = self.state.lock();
        state.at = None;
        state.frozen.take()
    }

    fn is_reached(&self) -> bool {
        self.state.lock().at.is_none()
    }
}

/// Keeps other checkpoints of a replica away, until one was made at a certain entry. What is frozen would be
/// lost if the futures of its functions were dropped half way, but for [`Self::reached`].
pub(crate) struct ExactCheckpoint<'a> {
    replica: &'a Arc<Replica>,
    unfinished: tokio::sync::MutexGuard<'a, Option<Frozen>>,
}

impl Drop for ExactCheckpoint<'_> {
    fn drop(&mut self) {
        // What was frozen in the last moment is written by the next checkpoint.
        if let Some(frozen) = self.replica.freeze_point.clear() {
            *self.unfinished = Some(frozen);
        }
    }
}

impl<'a> ExactCheckpoint<'a> {
    pub async fn begin(replica: &'a Arc<Replica>) -> Result<Self, ClusterError> {
        let mut exact = Self {
            replica,
            unfinished: replica.checkpointing.lock().await,
        };
        exact.finish().await?;
        Ok(exact)
    }

    /// Writes what is frozen, so that something newer can be.
    async fn finish(&mut self) -> Result<(), ClusterError> {
        if let Some(frozen) = self.replica.freeze_point.clear() {
            *self.unfinished = Some(frozen);
        }
        if self.unfinished.is_some() {
            let writer = self.replica.writers.acquire().await;
            let _writer = writer.map_err(|_| ClusterError::Stopped)?;
            write_out(self.replica, &mut self.unfinished).await?;
        }
        Ok(())
    }

    /// Has apply freeze when it gets to an entry, in place of one that was asked for before. Tells where it
    /// is if it was beyond that already.
    pub async fn arm(&mut self, index: u64) -> Result<Option<u64>, ClusterError> {
        self.finish().await?;
        let _between_entries = self.replica.entry_gate.lock().await;
        let applied = self.replica.applied_index();
        if applied > index {
            return Ok(Some(applied));
        }
        let point = &self.replica.freeze_point;
        point.state.lock().at = Some(index);
        if applied == index {
            point.pass(self.replica, index);
        }
        Ok(None)
    }

    /// Waits until apply is there.
    pub async fn reached(&self) {
        let point = &self.replica.freeze_point;
        while !point.is_reached() {
            point.reached.notified().await;
        }
    }

    /// Writes what was frozen, and gives a view of it that stays as it is.
    pub async fn export(&mut self, index: u64) -> Result<SnapshotExport, ClusterError> {
        self.finish().await?;
        let mark = self.replica.durable.borrow().clone();
        match mark.log_id {
            Some(log_id) if log_id.index == index => {
                let (log, group) = (self.replica.log.clone(), self.replica.group);
                let upto = codec::log_point(&log_id);
                blocking("freezing a state", move || {
                    Ok(log.export_snapshot(group, upto)?)
                })
                .await
            }
            _ => Err(ClusterError::Unavailable {
                reason: "the state was replaced meanwhile".to_owned(),
            }),
        }
    }
}

/// Writes a checkpoint of what is applied now, unless the last one covers it.
pub(crate) async fn checkpoint(replica: &Arc<Replica>) -> Result<AppliedMark, ClusterError> {
    // On a task of its own: a caller that stops waiting must not leave a generation frozen that no one
    // will thaw.
    tokio::spawn(checkpoint_now(replica.clone()))
        .await
        .map_err(|error| ClusterError::Unavailable {
            reason: format!("a checkpoint was broken off: {error}"),
        })?
}

/// To be polled to its end.
pub(crate) async fn checkpoint_now(replica: Arc<Replica>) -> Result<AppliedMark, ClusterError> {
    let replica = &replica;
    let mut unfinished = replica.checkpointing.lock().await;
    let writer = replica.writers.acquire().await;
    let _writer = writer.map_err(|_| ClusterError::Stopped)?;
    let begin = Instant::now();
    if unfinished.is_some() {
        // What is frozen must be written before anything newer can be.
        write_out(replica, &mut unfinished).await?;
    }
    *unfinished = freeze(replica).await;
    if unfinished.is_some() {
        write_out(replica, &mut unfinished).await?;
        let elapsed_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        Counters::add(&replica.counters.checkpoints, 1);
        replica
            .counters
            .checkpoint_last_ms
            .store(elapsed_ms, Ordering::Relaxed);
    }
    Ok(replica.durable.borrow().clone())
}

async fn freeze(replica: &Replica) -> Option<Frozen> {
    let _between_entries = replica.entry_gate.lock().await;
    freeze_now(replica)
}

/// To be called between two entries, while no generation is frozen.
fn freeze_now(replica: &Replica) -> Option<Frozen> {
    let begin = Instant::now();
    let (mark, released) = {
        let mut progress = replica.progress.lock();
        if !progress.changed {
            return None;
        }
        progress.changed = false;
        progress.log_bytes = 0;
        (progress.applied.clone(), progress.released.take())
    };
    let records = replica.state.freeze();
    let pause_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
    replica
        .counters
        .apply_pause_max_us
        .fetch_max(pause_us, Ordering::Relaxed);
    Some(Frozen {
        records,
        mark,
        released,
    })
}

/// Writes the frozen generation and thaws it. On an error it stays frozen.
async fn write_out(
    replica: &Arc<Replica>,
    unfinished: &mut Option<Frozen>,
) -> Result<(), ClusterError> {
    let Some(frozen) = unfinished.take() else {
        return Ok(());
    };
    let task = {
        let replica = replica.clone();
        move || {
            let outcome = write(&replica.store, replica.group, &frozen);
            if outcome.is_ok() {
                replica.state.thaw(&frozen.records);
            }
            (frozen, outcome)
        }
    };
    let (frozen, outcome) =
        tokio::task::spawn_blocking(task)
            .await
            .map_err(|error| ClusterError::Unavailable {
                reason: format!("a checkpoint was broken off: {error}"),
            })?;
    match outcome {
        Ok(()) => {
            replica.durable.send_replace(frozen.mark);
            replica.checkpoint_ended.notify_waiters();
            Ok(())
        }
        Err(error) => {
            *unfinished = Some(frozen);
            Err(error)
        }
    }
}

fn write(store: &CheckpointStore, group: GroupId, frozen: &Frozen) -> Result<(), ClusterError> {
    let mut changes: Vec<(Vec<u8>, Option<Bytes>)> = Vec::with_capacity(frozen.records.len());
    for (key, value) in frozen.records.iter() {
        let record = value.as_ref().map(|record| Bytes::from(record.encode()));
        changes.push((key.encode(), record));
    }
    // Neighbours share pages of the store.
    changes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    let released = frozen.released.iter().map(|run| Released {
        index: run.index.0,
        slots: run.first..run.first.saturating_add(run.count),
        bytes: run.bytes,
    });
    let applied =
        codec::encode(&frozen.mark).map_err(ClusterError::io("encode the applied mark"))?;
    store.commit(
        group,
        CheckpointBatch {
            changes,
            applied,
            released: released.collect(),
        },
    )?;
    Ok(())
}

/// Makes checkpoints of one group when they are wanted, and lets go of the log behind them.
pub(crate) struct Checkpointer {
    pub replica: Arc<Replica>,
    pub raft: watch::Receiver<Option<Raft>>,
    /// Told after each: segments may have become free.
    pub retention: mpsc::Sender<()>,
    /// Log behind the last checkpoint was kept for other members, who may have it by now.
    pub keeps_log: bool,
}

impl Checkpointer {
    pub async fn run(mut self) {
        let interval = self.replica.checkpoint.interval;
        let mut pause = interval;
        loop {
            tokio::select! {
                () = self.replica.checkpoint_wanted.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let epoch = self.replica.epoch();
            pause = match self.once().await {
                Ok(()) => interval,
                Err(error) => {
                    self.report(&error, epoch);
                    tokio::time::sleep(RETRY_PAUSE).await;
                    RETRY_PAUSE
                }
            };
        }
    }

    async fn once(&mut self) -> Result<(), ClusterError> {
        let before = self.replica.durable.borrow().log_id;
        let mark = checkpoint(&self.replica).await?;
        if mark.log_id == before && !self.keeps_log {
            return Ok(());
        }
        let raft = self.raft.borrow().clone();
        if let Some(raft) = raft {
            self.keeps_log = release_log(&self.replica, &raft, &mark).await;
        }
        // Full: a look at the segments is due anyway.
        let _ = self.retention.try_send(());
        Ok(())
    }

    /// `epoch` is that of the state that was to be written.
    fn report(&self, error: &ClusterError, epoch: u64) {
        let out_of_space = match error {
            ClusterError::Full { .. } => true,
            ClusterError::Storage { source } => source.is_out_of_space(),
            _ => false,
        };
        let reason = chain(error);
        if out_of_space {
            tracing::warn!(
                group = self.replica.group.0,
                reason,
                "a checkpoint waits for disk space"
            );
        } else {
            self.replica
                .fail_in(epoch, &format!("its state cannot be stored: {reason}"));
        }
        // Apply may be waiting for this one, and must see the failure.
        self.replica.checkpoint_ended.notify_waiters();
    }
}
