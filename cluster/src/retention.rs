//! Gives disk space back: drops segments that hold nothing live, rewrites those that hold little.
//!
//! Whether a message is live is asked of the last *durable* checkpoint, never of the state in memory: a
//! crash takes the state back to that checkpoint, and what it refers to must still be there. Later
//! checkpoints only refer to less of an old segment.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::ids::LogIndex;
use flotilla_model::query;
use flotilla_storage::{GroupId, LiveSlots, NodeLog, SegmentId, SegmentInfo};
use tokio::sync::mpsc;

use crate::blocking::blocking;
use crate::config::CheckpointConfig;
use crate::error::{ClusterError, chain};
use crate::replica::{Replica, stored_mark};
use crate::state::StoredRecords;

/// Without checkpoints there is nothing new to drop; this is for what failed before.
const PERIOD: Duration = Duration::from_secs(60);
/// A segment whose rewriting gained less than this is left alone for a while.
const GAIN_PERCENT_MIN: u64 = 20;
const LEFT_ALONE: Duration = Duration::from_secs(600);

/// The task of a node that looks after its segments.
pub(crate) struct Retention {
    pub log: NodeLog,
    pub replicas: Vec<Arc<Replica>>,
    pub config: CheckpointConfig,
    /// A checkpoint ended.
    pub wanted: mpsc::Receiver<()>,
    /// Segments that are as small as they get for now, and what had to be kept of them then.
    pub settled: BTreeMap<SegmentId, (Instant, u64)>,
}

impl Retention {
    pub async fn run(mut self) {
        loop {
            // Either way it is time to look.
            if let Ok(None) = tokio::time::timeout(PERIOD, self.wanted.recv()).await {
                return;
            }
            if let Err(error) = self.look().await {
                let reason = chain(&error);
                tracing::warn!(reason, "segments could not be looked after");
            }
        }
    }

    async fn look(&mut self) -> Result<(), ClusterError> {
        self.drop_dead().await?;
        let segments = self.segments().await?;
        self.settled
            .retain(|id, _| segments.iter().any(|segment| segment.id == *id));
        let mut after = None;
        while let Some(segment) = self.rewrite_next(after).await? {
            after = Some(segment.id);
            // Reading and writing must leave the disk to the clients.
            let pause = segment.bytes as f64 / self.config.compact_bytes_per_second as f64;
            if !self.pause(Duration::from_secs_f64(pause)).await? {
                break;
            }
        }
        Ok(())
    }

    async fn segments(&self) -> Result<Vec<SegmentInfo>, ClusterError> {
        let log = self.log.clone();
        blocking("looking after segments", move || Ok(log.segments()?)).await
    }

    /// Rewrites the first segment after one that is worth it, and tells what it was.
    pub(crate) async fn rewrite_next(
        &mut self,
        after: Option<SegmentId>,
    ) -> Result<Option<SegmentInfo>, ClusterError> {
        // As they are now: since the last one was rewritten, others may have been dropped.
        for segment in self.segments().await? {
            if after.is_some_and(|after| segment.id <= after) || !self.is_worth_rewriting(&segment)
            {
                continue;
            }
            match self.compact(&segment).await {
                Err(ClusterError::Storage { source }) if source.is_about_segment() => {
                    // Damaged, say. The others are looked after all the same, and this one later.
                    tracing::warn!(error = %source, "a segment was not rewritten");
                    self.settled
                        .insert(segment.id, (Instant::now(), segment.kept_bytes));
                }
                outcome => return outcome.map(|()| Some(segment)),
            }
        }
        Ok(None)
    }

    /// Waits, but drops what checkpoints free meanwhile: that costs nothing, and rewriting all segments
    /// that are worth it may take long. Tells whether the node goes on.
    async fn pause(&mut self, pause: Duration) -> Result<bool, ClusterError> {
        let over = tokio::time::Instant::now() + pause;
        while let Ok(wanted) = tokio::time::timeout_at(over, self.wanted.recv()).await {
            if wanted.is_none() {
                return Ok(false);
            }
            self.drop_dead().await?;
        }
        Ok(true)
    }

    async fn drop_dead(&self) -> Result<(), ClusterError> {
        let log = self.log.clone();
        blocking("looking after segments", move || {
            Ok(log.drop_dead_segments()?)
        })
        .await?;
        Ok(())
    }

    fn is_worth_rewriting(&self, segment: &SegmentInfo) -> bool {
        let live_percent_max = u64::from(self.config.compact_below_percent);
        let is_settled = self
            .settled
            .get(&segment.id)
            .is_some_and(|(at, kept_bytes)| {
                at.elapsed() < LEFT_ALONE && segment.kept_bytes.saturating_mul(2) > *kept_bytes
            });
        !is_settled
            && segment.sealed
            && !segment.droppable
            && !segment.pinned
            && segment.payload_bytes > 0
            && segment.kept_bytes.saturating_mul(100)
                < segment.bytes.saturating_mul(live_percent_max)
    }

    async fn compact(&mut self, segment: &SegmentInfo) -> Result<(), ClusterError> {
        let (id, kept_bytes) = (segment.id, segment.kept_bytes);
        let log = self.log.clone();
        let replicas = self.replicas.clone();
        let report = blocking("looking after segments", move || {
            let checkpoints = Checkpoints::new(&log, &replicas);
            Ok(log.compact(id, &|group, index| checkpoints.live_slots(group, index))?)
        })
        .await?;
        tracing::info!(?report, "segment rewritten");
        // Small messages come with much that is not payload, and entries that Raft may still ask for
        // stay whole: rewriting such a segment over and over would gain nothing.
        let gained = report.bytes_before.saturating_sub(report.bytes_after);
        if gained.saturating_mul(100) < report.bytes_before.saturating_mul(GAIN_PERCENT_MIN) {
            self.settled.insert(id, (Instant::now(), kept_bytes));
        }
        Ok(())
    }
}

/// The durable checkpoints, for one compaction.
pub(crate) struct Checkpoints<'a> {
    log: &'a NodeLog,
    replicas: BTreeMap<GroupId, &'a Arc<Replica>>,
    /// How far they went when they were first asked for something. What they release later is told to the
    /// compaction, which began before, and so is that a state was replaced.
    covered: RefCell<BTreeMap<GroupId, u64>>,
}

impl<'a> Checkpoints<'a> {
    pub(crate) fn new(log: &'a NodeLog, replicas: &'a [Arc<Replica>]) -> Self {
        let replicas = replicas.iter().map(|replica| (replica.group, replica));
        Self {
            log,
            replicas: replicas.collect(),
            covered: RefCell::default(),
        }
    }

    /// Up to which entry something can be said of a group, as it is on the disk: what is known in memory is
    /// behind it after a checkpoint, and ahead of it after an older state was put in its place.
    fn covered(&self, replica: &Replica) -> u64 {
        let read = || match stored_mark(&replica.store, replica.group) {
            Ok((Some(mark), _)) => mark.log_id.map_or(0, |log_id| log_id.index),
            // What was given up is not needed either. Of a group whose state is lost all is.
            Ok((None, _)) => self
                .log
                .is_vacated(replica.group)
                .unwrap_or_default()
                .unwrap_or(0),
            Err(error) => {
                let reason = chain(&error);
                tracing::error!(
                    group = replica.group.0,
                    reason,
                    "cannot tell what is covered"
                );
                0
            }
        };
        let mut covered = self.covered.borrow_mut();
        *covered.entry(replica.group).or_insert_with(read)
    }

    /// What of an entry they refer to. In doubt, all of it.
    pub(crate) fn live_slots(&self, group: GroupId, index: u64) -> LiveSlots {
        let Some(replica) = self.replicas.get(&group) else {
            return LiveSlots::All;
        };
        // Not applied as far as the checkpoint goes: nothing can be said yet.
        if index > self.covered(replica) {
            return LiveSlots::All;
        }
        let records = StoredRecords::new(&replica.store, group);
        match records.query(|records| query::live_runs(records, LogIndex(index))) {
            Ok(runs) if runs.is_empty() => LiveSlots::None,
            Ok(runs) => LiveSlots::Some(
                runs.iter()
                    .map(|run| run.first..run.first.saturating_add(run.count))
                    .collect(),
            ),
            Err(error) => {
                let reason = chain(&error);
                tracing::error!(group = group.0, index, reason, "cannot tell what is live");
                LiveSlots::All
            }
        }
    }
}
