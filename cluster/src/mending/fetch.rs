//! Fetches the state of a group from a healthy replica: both sides of that conversation.

use std::time::Duration;

use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_raft::Raft;
use flotilla_storage::{SnapshotExport, SnapshotImport, SnapshotManifest};
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::mpsc;

use super::message::{Opening, Told, Words, broken, out_of_turn};
use crate::blocking::blocking;
use crate::checkpoint::checkpoint;
use crate::codec;
use crate::error::ClusterError;
use crate::group::{Group, unavailable};
use crate::net::{Lane, Links, ServiceId, read_chunks};
use crate::snapshot::SnapshotHandle;
use crate::types::Vote;

/// A leader's own entries are committed and applied within this.
const APPLY_WAIT_MAX: Duration = Duration::from_secs(10);
const APPLY_LOOK: Duration = Duration::from_millis(10);
/// A checkpoint may be followed by another before it is frozen.
const ATTEMPTS_MAX: usize = 5;
/// Chunks come at the pace of the sender's disk and of its limit.
const CHUNK_WAIT_MAX: Duration = Duration::from_secs(60);
/// For the first word: a checkpoint is made before it.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(60);

/// The state of another replica, staged here, complete and checked.
pub(crate) struct Fetched {
    pub import: SnapshotImport,
    /// Of the leader that the other replica follows or is.
    pub vote: Vote,
}

/// Brings the state of a replica here. Refused if that replica is damaged itself.
pub(crate) async fn fetch(
    links: &Links,
    from: NodeId,
    group: &Group,
    must_lead: bool,
) -> Result<Fetched, ClusterError> {
    let number = group.replica.group.0;
    let talk = links
        .peers()
        .talk(from, Lane::Bulk, ServiceId::REPLICAS)
        .await;
    let mut words = Words::from(talk.map_err(broken)?);
    let opening = Opening::Fetch {
        group: number,
        must_lead,
    };
    words.say(&opening).await?;
    let head = tokio::time::timeout(HEAD_WAIT_MAX, words.answer()).await;
    let (vote, manifest) = match head.map_err(|_| broken("the other replica does not answer"))?? {
        Told::Snapshot { vote, manifest } => (vote, manifest),
        told => return Err(out_of_turn(&told)),
    };
    let vote = codec::decode("vote of a replica", &vote).map_err(broken)?;
    let manifest = SnapshotManifest::decode(&manifest)?;
    if manifest.group != group.replica.group {
        return Err(broken("the snapshot is of another group"));
    }
    let log = group.replica.log.clone();
    let mut import = blocking("staging a snapshot", move || {
        Ok(log.import_snapshot(manifest)?)
    })
    .await?;
    while !import.is_complete() {
        let chunk = tokio::time::timeout(CHUNK_WAIT_MAX, words.raw()).await;
        let chunk = chunk.map_err(|_| broken("the other replica sends no more"))??;
        let chunk: Bytes = chunk.ok_or_else(|| broken("the other replica broke off"))?;
        import = blocking("staging a snapshot", move || {
            import.chunk(&chunk)?;
            Ok(import)
        })
        .await?;
    }
    if import.damaged_slots() > 0 {
        return Err(broken(format!(
            "node {from} has damaged messages itself: {}",
            import.damaged_slots()
        )));
    }
    Ok(Fetched { import, vote })
}

/// Answers with the state of a replica on this node.
pub(super) async fn answer(
    group: &Group,
    must_lead: bool,
    words: &mut Words,
) -> Result<(), ClusterError> {
    let replica = &group.replica;
    if let Some(reason) = replica.trouble() {
        return Err(ClusterError::Unavailable { reason });
    }
    if replica.log.damaged_groups()?.contains(&replica.group) {
        return Err(broken("the replica is damaged itself"));
    }
    let raft = group
        .raft()
        .ok_or_else(|| broken("the group does not run"))?;
    if must_lead {
        apply_all(group, &raft).await?;
    } else if !replica.is_recovered() {
        return Err(broken("the replica has not recovered yet"));
    }
    let export = freeze(group).await?;
    let vote = raft.server_metrics().borrow_watched().vote;
    if must_lead && !leads(&raft) {
        return Err(broken("the replica was deposed meanwhile"));
    }
    let told = Told::Snapshot {
        vote: codec::encode(&vote).map_err(broken)?.to_vec(),
        manifest: export.manifest().encode().to_vec(),
    };
    words.say(&told).await?;
    let (chunks, mut queue) = mpsc::channel::<Bytes>(1);
    let reading = tokio::task::spawn_blocking(move || read_chunks(export, 0, chunks));
    while let Some(chunk) = queue.recv().await {
        group
            .node
            .links
            .snapshot_pace()
            .pass(chunk.len() as u64)
            .await;
        words.sender.send(chunk).await.map_err(broken)?;
    }
    reading.await.map_err(broken)?
}

fn leads(raft: &Raft) -> bool {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    metrics.current_leader == Some(metrics.id) && metrics.vote.is_committed()
}

/// Has a majority confirm the leadership, then applies all entries that the leader had at that moment.
async fn apply_all(group: &Group, raft: &Raft) -> Result<(), ClusterError> {
    let confirmed = raft.ensure_linearizable(ReadPolicy::ReadIndex);
    let confirmed = tokio::time::timeout(APPLY_WAIT_MAX, confirmed).await;
    confirmed
        .map_err(|_| broken("no majority confirms the leader"))?
        .map_err(|error| unavailable(&error))?;
    let last = raft.metrics().borrow_watched().last_log_index.unwrap_or(0);
    let applied = async {
        while group.replica.applied_index() < last {
            tokio::time::sleep(APPLY_LOOK).await;
        }
    };
    tokio::time::timeout(APPLY_WAIT_MAX, applied)
        .await
        .map_err(|_| broken("the leader's entries are not committed in time"))
}

/// A view of a checkpoint that covers all that is applied now.
async fn freeze(group: &Group) -> Result<SnapshotExport, ClusterError> {
    let replica = &group.replica;
    let wanted = replica.applied_index();
    let mut last = broken("the group has no checkpoint");
    for _ in 0..ATTEMPTS_MAX {
        let mark = checkpoint(replica).await?;
        if mark.log_id.is_none_or(|log_id| log_id.index < wanted) {
            continue;
        }
        let Some(snapshot) = SnapshotHandle::current(replica) else {
            continue;
        };
        match snapshot.snapshot.freeze_as(&snapshot.meta).await {
            Ok(export) => return Ok(export),
            Err(error) => last = error,
        }
    }
    Err(last)
}
