//! One attempt to put an entry into a group's log, and what can come of it.

use flotilla_model::ids::NodeId;
use flotilla_storage::EntryBody;
use futures::future::BoxFuture;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;

use crate::error::ClusterError;
use crate::leadership::Lead;
use crate::pending::Outcomes;
use crate::types::Batch;

/// What became of an attempt.
pub(crate) type Answer = Result<Outcomes, NotWritten>;

/// Why an attempt has no outcome.
#[derive(Clone, Debug)]
pub(crate) enum NotWritten {
    /// It is not in the log and will not be: the node asked does not lead, or not yet. Who does, and in
    /// which term, if that node knows.
    NotLeader { leader: Option<(u64, NodeId)> },
    /// It is not in the log and will not be, and asking again would not change that.
    Refused(ClusterError),
    /// It is not in the log and will not be; later it may be taken.
    Unavailable { reason: String },
    /// It may be in the log.
    Unknown,
    /// Raft has stopped here; `logged` if it may have taken the entry before.
    Stopped { logged: bool },
}

/// Hands an entry to Raft on this node. The order of the calls is the order in the log.
pub(crate) async fn write(lead: &Lead, body: EntryBody) -> BoxFuture<'static, Answer> {
    let (responder, outcome) = ProgressResponder::complete_only();
    let taken = lead
        .raft
        .write(Batch(body))
        .with_leader(lead.id)
        .responder(responder)
        .await;
    Box::pin(async move {
        if taken.is_err() {
            return Err(NotWritten::Stopped { logged: false });
        }
        match outcome.await {
            Ok(Ok(written)) => Ok(written.data.0),
            // Raft watches its leaders itself: its word is not needed here.
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => {
                Err(NotWritten::NotLeader { leader: None })
            }
            // Anything else leaves open whether the entry is or will be committed.
            Ok(Err(_)) => Err(NotWritten::Unknown),
            Err(_) => Err(NotWritten::Stopped { logged: true }),
        }
    })
}
