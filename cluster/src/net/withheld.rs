//! Entries that a leader cannot read any more, on their way to a peer that has them.
//!
//! A new leader does not know how far its peers' logs are, and finds out by sending entries from about the
//! middle of its own: mostly ones that they have had for long. If one of those is damaged, its id goes
//! without its contents (`ShardLog::withheld`). A peer that has the entry skips contents in any case. One that
//! has it not refuses, and the leader asks again later: by then the mender may have found the entry at
//! another replica.

use flotilla_storage::StorageError;
use openraft::raft::AppendEntriesRequest;
use tonic::Status;

use crate::codec;
use crate::replica::Replica;
use crate::types::{Groups, LogId};

/// Refuses what came without its contents and is not here.
pub(super) async fn check(
    request: &AppendEntriesRequest<Groups>,
    replica: &Replica,
) -> Result<(), Status> {
    let entries = request.entries.iter();
    let withheld: Vec<LogId> = entries
        .filter(|entry| codec::is_withheld(entry))
        .map(|entry| entry.log_id)
        .collect();
    if withheld.is_empty() {
        return Ok(());
    }
    let (log, group, applied) = (replica.log.clone(), replica.group, replica.applied_index());
    let find = move || {
        // What is applied may be purged already.
        let mut rest = withheld.into_iter().filter(|id| id.index > applied);
        rest.try_for_each(|id| match log.point(group, id.index) {
            Ok(point) if point == codec::log_point(&id) => Ok(()),
            Ok(_) | Err(StorageError::NotFound { .. }) => Err(lacking(&id)),
            Err(error) => Err(Status::unavailable(error.to_string())),
        })
    };
    let found = tokio::task::spawn_blocking(find).await;
    found.map_err(|error| Status::internal(error.to_string()))?
}

fn lacking(id: &LogId) -> Status {
    let index = id.index;
    Status::failed_precondition(format!(
        "entry {index} came without its contents, and is not here"
    ))
}
