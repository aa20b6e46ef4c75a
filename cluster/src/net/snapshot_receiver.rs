//! Receives a snapshot: chunks are staged and checked, and installed once all are there.
//!
//! What was staged when a transfer broke off is kept for a while: the next one, if it is of the same
//! checkpoint, brings only the rest. What could not be staged here is given up at once, since others may
//! wait for its room, and the next transfer waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_raft::AnySnapshot;
use flotilla_storage::{SnapshotImport, SnapshotManifest};
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc};
use tonic::{Status, Streaming};

use super::groups::{AttachedGroup, answer, malformed};
use super::links::Links;
use super::setback::{Setback, Unstored};
use super::snapshot_head::SnapshotHead;
use super::traffic::Traffic;
use super::wire::proto::{SnapshotAnswer, SnapshotPart};
use crate::snapshot::SnapshotHandle;
use crate::types::{Snapshot, SnapshotMeta};

/// How long a part of a snapshot waits for the rest.
const PARTIAL_KEPT: Duration = Duration::from_secs(60);

/// A group's transfer: one at a time, and what the last one left.
#[derive(Default)]
pub(super) struct Receiving(Arc<tokio::sync::Mutex<Left>>);

#[derive(Default)]
struct Left {
    partial: Option<Partial>,
    setback: Option<Setback>,
}

struct Partial {
    import: SnapshotImport,
    since: Instant,
}

type Slot = OwnedMutexGuard<Left>;

impl Links {
    /// Takes a snapshot in, from the first part on.
    pub(super) fn answer_snapshot(
        &self,
        first: SnapshotPart,
        rest: Streaming<SnapshotPart>,
    ) -> Result<BoxStream<'static, Result<SnapshotAnswer, Status>>, Status> {
        let group = self.group(first.group)?;
        let head = SnapshotHead::decode(&first.head).map_err(malformed)?;
        let meta = head.meta(group.replica.group).map_err(malformed)?;
        let slot = group.receiving.0.clone().try_lock_owned();
        let slot = slot.map_err(|_| Status::unavailable("another snapshot is on its way here"))?;
        let log = &group.replica.log;
        let has_room = |bytes| log.admission(bytes).is_ok();
        if let Some(setback) = &slot.setback
            && setback.holds(Instant::now(), has_room)
        {
            return Err(refused(setback));
        }
        let (answers, mut queue) = mpsc::channel(2);
        let transfer = Transfer {
            group,
            head,
            meta,
            room: self.inner.snapshots_in.clone(),
            traffic: self.inner.traffic.clone(),
        };
        // A task of its own: what is installed is installed to the end.
        self.inner.runtime.spawn(async move {
            let outcome = transfer.run(slot, rest, &answers).await;
            if let Err(status) = &outcome {
                let reason = status.message();
                tracing::info!(reason, "a snapshot was not received");
            }
            // Nobody waits for it if the sender is gone.
            let _ = answers.send(outcome).await;
        });
        Ok(futures::stream::poll_fn(move |context| queue.poll_recv(context)).boxed())
    }
}

#[cfg(test)]
impl Links {
    /// Chunks of a transfer that broke off.
    pub fn chunks_left(&self, group: flotilla_storage::GroupId) -> Option<u64> {
        let group = self.group(group.0).ok()?;
        let slot = group.receiving.0.try_lock().ok()?;
        let partial = slot.partial.as_ref()?;
        Some(partial.import.chunks_received())
    }

    /// Why the last transfer could not be stored.
    pub fn setback(&self, group: flotilla_storage::GroupId) -> Option<String> {
        let group = self.group(group.0).ok()?;
        let slot = group.receiving.0.try_lock().ok()?;
        Some(slot.setback.as_ref()?.why.reason.clone())
    }
}

struct Transfer {
    group: AttachedGroup,
    head: SnapshotHead,
    meta: SnapshotMeta,
    /// Snapshots that this node takes in at a time.
    room: Arc<Semaphore>,
    traffic: Arc<Traffic>,
}

impl Transfer {
    async fn run(
        self,
        mut slot: Slot,
        mut parts: Streaming<SnapshotPart>,
        answers: &mpsc::Sender<Result<SnapshotAnswer, Status>>,
    ) -> Result<SnapshotAnswer, Status> {
        let _room = self.room.acquire().await;
        let mut import = match self.begin(&mut slot).await {
            Ok(import) => import,
            Err(unstored) => return Err(self.set_back(&mut slot, unstored)),
        };
        let begun = SnapshotAnswer {
            chunks_present: import.chunks_received(),
            ..SnapshotAnswer::default()
        };
        // A sender that is gone is noticed by its parts.
        let _ = answers.send(Ok(begun)).await;
        loop {
            match parts.message().await {
                Ok(Some(part)) => match staged(import, part).await {
                    Ok(more) => import = more,
                    Err(unstored) => return Err(self.set_back(&mut slot, unstored)),
                },
                Ok(None) if import.is_complete() => break,
                Ok(None) => {
                    keep(&self.group, slot, import);
                    return Err(Status::cancelled("the sender has given up"));
                }
                Err(status) => {
                    keep(&self.group, slot, import);
                    return Err(status);
                }
            }
        }
        tracing::info!(
            group = self.group.replica.group.0,
            upto = self.head.manifest.upto.index,
            chunks = import.chunks_received(),
            "snapshot received"
        );
        self.traffic.snapshot_received();
        slot.setback = None;
        let snapshot = Snapshot {
            meta: self.meta,
            snapshot: AnySnapshot::new(SnapshotHandle::Staged(Box::new(import))),
        };
        let installed = self
            .group
            .raft
            .install_full_snapshot(self.head.vote, snapshot)
            .await;
        // Not before: the next transfer would write over the file that is being installed.
        drop(slot);
        Ok(SnapshotAnswer {
            body: answer(installed)?,
            ..SnapshotAnswer::default()
        })
    }

    /// What is left of an earlier transfer of the same checkpoint, or nothing.
    async fn begin(&self, slot: &mut Slot) -> Result<SnapshotImport, Unstored> {
        let left = slot.partial.take().map(|partial| partial.import);
        if let Some(left) = left
            && *left.manifest() == self.head.manifest
        {
            return Ok(left);
        }
        let log = self.group.replica.log.clone();
        let manifest: SnapshotManifest = self.head.manifest.clone();
        blocking(move || {
            let import = log.import_snapshot(manifest);
            import.map_err(|error| Unstored::new(&error, 0))
        })
        .await
    }

    /// Keeps the next transfers away for a while.
    fn set_back(&self, slot: &mut Slot, unstored: Unstored) -> Status {
        let setback = Setback::after(slot.setback.take(), unstored, Instant::now());
        tracing::warn!(
            group = self.group.replica.group.0,
            reason = setback.why.reason,
            pause_ms = setback.pause.as_millis() as u64,
            "a snapshot could not be stored"
        );
        let status = refused(&setback);
        slot.setback = Some(setback);
        status
    }
}

fn refused(setback: &Setback) -> Status {
    let reason = &setback.why.reason;
    Status::unavailable(format!("no snapshot can be stored for now: {reason}"))
}

async fn staged(
    mut import: SnapshotImport,
    part: SnapshotPart,
) -> Result<SnapshotImport, Unstored> {
    blocking(move || match import.chunk(&part.chunk) {
        Ok(()) => Ok(import),
        Err(error) => {
            let bytes = import.bytes_staged() + part.chunk.len() as u64;
            Err(Unstored::new(&error, bytes))
        }
    })
    .await
}

/// Keeps what has arrived, and gives its place on the disk back if nobody comes for it.
fn keep(group: &AttachedGroup, mut slot: Slot, import: SnapshotImport) {
    let since = Instant::now();
    slot.partial = Some(Partial { import, since });
    drop(slot);
    let kept = Arc::downgrade(&group.receiving.0);
    tokio::spawn(async move {
        tokio::time::sleep(PARTIAL_KEPT).await;
        if let Some(kept) = kept.upgrade()
            && let Ok(mut slot) = kept.try_lock()
        {
            slot.partial.take_if(|partial| partial.since == since);
        }
    });
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Unstored> + Send + 'static,
) -> Result<T, Unstored> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Unstored::broken_off(&error)))
}
