//! Applies committed entries to the state of a group.
//!
//! Apply touches memory only. When the model asks for a record that is not there, the lock is
//! released, the record loaded, and the step taken again; the model leaves no trace of a step that it
//! did not finish. An entry that cannot be understood stops its group, with the reason; the other
//! groups of the node go on.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use flotilla_model::format::decode_head;
use flotilla_model::ids::LogIndex;
use flotilla_model::machine::EntryRun;
use flotilla_storage::EntryBody;
use futures::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{ApplyResponder, RaftStateMachine};

use crate::error::{ClusterError, chain};
use crate::replica::{Counters, Replica};
use crate::snapshot::{SnapshotBuilder, SnapshotHandle};
use crate::state::Pins;
use crate::types::{BatchOutcome, Entry, Groups, LogId, Snapshot, SnapshotMeta, StoredMembership};

/// At this many times a group's part of changed records apply waits for a checkpoint to end.
const DIRTY_HARD_FACTOR: u64 = 4;

/// The state machine that Raft drives for one group.
#[derive(Clone)]
pub(crate) struct ShardStateMachine {
    replica: Arc<Replica>,
    /// Of the state that this one may change.
    epoch: u64,
}

impl ShardStateMachine {
    pub fn new(replica: Arc<Replica>) -> Self {
        let epoch = replica.epoch();
        Self { replica, epoch }
    }

    async fn apply_entry(&self, entry: Entry) -> io::Result<BatchOutcome> {
        let replica = &self.replica;
        self.wait_for_room().await?;
        let _entry = replica.entry_gate.lock().await;
        replica
            .check_epoch(self.epoch)
            .map_err(|error| io::Error::other(chain(&error)))?;
        let log_id = entry.log_id;
        let mut log_bytes = 0;
        let mut membership = None;
        let mut outcome = BatchOutcome::default();
        let mut applied = None;
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(members) => {
                membership = Some(StoredMembership::new(Some(log_id), members));
            }
            EntryPayload::Normal(batch) => {
                log_bytes = batch.0.len() as u64;
                let mut result = self
                    .run(&log_id, &batch.0)
                    .await
                    .map_err(|error| self.fail(&log_id, &error))?;
                outcome = BatchOutcome(std::mem::take(&mut result.outcomes));
                applied = Some(result);
            }
        }
        {
            let mut progress = replica.progress.lock();
            progress.applied.log_id = Some(log_id);
            if let Some(membership) = membership {
                progress.applied.membership = membership;
            }
            progress.log_bytes += log_bytes;
            progress.changed = true;
            if let Some(applied) = &mut applied {
                progress
                    .released
                    .extend(std::mem::take(&mut applied.released));
            }
            let (dirty_bytes, _) = replica.state.dirty_bytes();
            if dirty_bytes >= replica.dirty_bytes_max
                || progress.log_bytes >= replica.checkpoint.log_bytes
            {
                replica.checkpoint_wanted.notify_one();
            }
        }
        replica.note_applied(log_id.index);
        replica.log_window.lock().note(log_id.index, log_bytes);
        Counters::add(&replica.counters.entries_applied, 1);
        if let Some(applied) = &applied {
            replica.publish(applied);
        }
        replica.freeze_point.pass(replica, log_id.index);
        Ok(outcome)
    }

    async fn run(
        &self,
        log_id: &LogId,
        body: &EntryBody,
    ) -> Result<flotilla_model::outcome::Applied, ClusterError> {
        let replica = &self.replica;
        let unreadable = |what: String| ClusterError::Corrupt {
            shard: replica.shard,
            what: format!("entry {} cannot be applied: {what}", log_id.index),
        };
        let head = decode_head(&body.head(), replica.level_max)
            .map_err(|error| unreadable(error.to_string()))?;
        replica.observe_time(head.now);
        let slot_bytes = (0..body.slot_count())
            .map(|slot| body.slot_len(slot))
            .collect();
        let mut run = EntryRun::new(replica.shard, LogIndex(log_id.index), head, slot_bytes);
        let mut pins = Pins::default();
        loop {
            match replica.state.advance(&mut run, &pins) {
                Ok(Some(applied)) => {
                    replica.set_feature_level(applied.feature_level);
                    return Ok(applied);
                }
                Ok(None) => {}
                Err(wanted) => replica.load(wanted, &mut pins).await?,
            }
        }
    }

    /// Changed records wait in memory for a checkpoint: more of them than it can take would be no
    /// bound at all.
    async fn wait_for_room(&self) -> io::Result<()> {
        let replica = &self.replica;
        let hard_max = replica.dirty_bytes_max.saturating_mul(DIRTY_HARD_FACTOR);
        let begin = Instant::now();
        let mut waited = false;
        loop {
            // Asked for before the look, so that an end in between is not missed.
            let ended = replica.checkpoint_ended.notified();
            if replica.state.dirty_bytes().0 < hard_max {
                break;
            }
            if let Some(reason) = replica.failure() {
                return Err(io::Error::other(reason));
            }
            waited = true;
            replica.checkpoint_wanted.notify_one();
            ended.await;
        }
        if waited {
            tracing::debug!(
                group = replica.group.0,
                waited_ms = begin.elapsed().as_millis() as u64,
                "apply waited for a checkpoint"
            );
        }
        Ok(())
    }

    /// Stops the group, unless this is the rest of an older Raft's work.
    fn fail_now(&self, reason: &str) {
        self.replica.fail_in(self.epoch, reason);
    }

    fn fail(&self, log_id: &LogId, error: &ClusterError) -> io::Error {
        let reason = chain(error);
        self.replica.fail(&reason);
        io::Error::other(format!("entry {}: {reason}", log_id.index))
    }
}

impl RaftStateMachine<Groups> for ShardStateMachine {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let progress = self.replica.progress.lock();
        let applied = &progress.applied;
        Ok((applied.log_id, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<(Entry, Option<ApplyResponder<Groups>>), io::Error>> + Unpin + Send,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item.inspect_err(|error| self.fail_now(&chain(error)))?;
            let outcome = self.apply_entry(entry).await?;
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        Some(SnapshotBuilder::new(self.replica.clone(), force))
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder::new(self.replica.clone(), true)
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotHandle,
    ) -> Result<(), io::Error> {
        snapshot
            .install(&self.replica, meta, &mut self.epoch)
            .await
            .map_err(|error| {
                let reason = chain(&error);
                self.fail_now(&reason);
                io::Error::other(reason)
            })
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<SnapshotHandle>>, io::Error> {
        Ok(SnapshotHandle::current(&self.replica))
    }
}
