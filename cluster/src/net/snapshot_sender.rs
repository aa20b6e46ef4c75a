//! Sends a checkpoint to a node that lacks the log behind it.
//!
//! The checkpoint is frozen and its segments pinned while the transfer runs. Its chunks are read one by
//! one on a thread of their own, at the pace of the receiver and of the node's limit, so that memory
//! holds a few of them, however large the state is. A transfer that broke off goes on where it was if
//! the checkpoint is still the same.

use std::future::Future;
use std::time::Instant;

use bytes::Bytes;
use flotilla_storage::SnapshotExport;
use futures::stream::{self, StreamExt};
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;

use super::group_network::{GroupPeer, unreachable};
use super::lane::Lane;
use super::links::Links;
use super::snapshot_head::SnapshotHead;
use super::wire::proto::SnapshotPart;
use crate::codec;
use crate::error::{ClusterError, chain};
use crate::pace::Pace;
use crate::snapshot::{SnapshotHandle, live_ranges};
use crate::types::{Groups, Snapshot, Vote};

type Outcome = Result<SnapshotResponse<Groups>, StreamingError<Groups>>;

/// Read ahead of the link.
const CHUNKS_AHEAD: usize = 1;

impl Links {
    /// Limits what snapshots take of the network and of the disks at both ends.
    pub fn set_snapshot_rate(&self, bytes_per_second: u64) {
        self.inner.snapshot_pace.set(bytes_per_second);
    }

    /// Bytes per second that leave this node in snapshots, all of them together.
    pub fn snapshot_pace(&self) -> &Pace {
        &self.inner.snapshot_pace
    }
}

impl GroupPeer {
    pub(super) async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot<SnapshotHandle>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
    ) -> Outcome {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            outcome = self.transfer(vote, snapshot) => outcome,
        }
    }

    async fn transfer(&self, vote: Vote, snapshot: Snapshot<SnapshotHandle>) -> Outcome {
        let turn = self.links.inner.snapshots_out.acquire().await;
        let _turn = turn.map_err(|_| Unreachable::<Groups>::from_string("this node stops"))?;
        // First, since to freeze a checkpoint for a node that is away is work for nothing.
        let connection = self.links.connection(self.target, Lane::Bulk).await;
        let mut client = connection.map_err(unreachable)?.client();
        let export = snapshot.snapshot.freeze_as(&snapshot.meta).await;
        // Another one is the newest by now, or too many run: Raft asks again.
        let export = export.map_err(|error| NetworkError::<Groups>::from_string(chain(&error)))?;
        let begin = Instant::now();
        let head = SnapshotHead {
            vote,
            manifest: export.manifest().clone(),
        };
        let first = SnapshotPart {
            caller: Some(self.links.caller(self.target)),
            group: self.group.0,
            head: head.encode().map_err(|error| NetworkError::new(&error))?,
            chunk: Bytes::new(),
        };
        let (chunks, queue) = mpsc::channel::<Bytes>(CHUNKS_AHEAD);
        let links = self.links.clone();
        let paced = stream::unfold((queue, links), |(mut queue, links)| async move {
            let chunk = queue.recv().await?;
            links.inner.snapshot_pace.pass(chunk.len() as u64).await;
            let part = SnapshotPart {
                chunk,
                ..SnapshotPart::default()
            };
            Some((part, (queue, links)))
        });
        let parts = stream::once(async move { first }).chain(paced);
        let refused = |status: tonic::Status| unreachable(status.into());
        let answers = client.snapshot(parts).await.map_err(refused)?;
        let mut answers = answers.into_inner();
        let Some(begun) = answers.message().await.map_err(refused)? else {
            return Err(no_answer());
        };
        let present = begun.chunks_present;
        let reading = tokio::task::spawn_blocking(move || read_chunks(export, present, chunks));
        // The receiver answers once all has arrived and is installed.
        let answer = answers.message().await;
        // It ends when the transfer does, since nobody takes its chunks then.
        match reading.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Unreachable::from_string(chain(&error)).into()),
            Err(error) => return Err(Unreachable::new(&error).into()),
        }
        let answer = answer.map_err(refused)?.ok_or_else(no_answer)?;
        tracing::info!(
            group = self.group.0,
            to = self.target.0,
            upto = head.manifest.upto.index,
            present,
            elapsed_ms = begin.elapsed().as_millis() as u64,
            "snapshot sent"
        );
        self.links.inner.traffic.snapshot_sent();
        codec::decode("answer of a peer", &answer.body)
            .map_err(|error| NetworkError::new(&error).into())
    }
}

fn no_answer() -> StreamingError<Groups> {
    NetworkError::from_string("the peer gave no answer").into()
}

/// Reads what the receiver does not have yet, as fast as it is taken.
pub(crate) fn read_chunks(
    export: SnapshotExport,
    present: u64,
    chunks: mpsc::Sender<Bytes>,
) -> Result<(), ClusterError> {
    let upto = export.manifest().upto.index;
    for (number, chunk) in (0..).zip(export.chunks(live_ranges(&export, upto))) {
        let chunk = chunk?;
        if number < present {
            // Read for nothing, except that the digest at the end covers it.
            continue;
        }
        if chunks.blocking_send(chunk).is_err() {
            // The transfer was broken off: whoever did it knows why.
            break;
        }
    }
    Ok(())
}
