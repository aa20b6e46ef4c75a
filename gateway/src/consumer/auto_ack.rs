//! Messages that the broker settles for their consumer, once they are written to its connection.

use std::sync::Arc;

use flotilla_broker::Session;
use flotilla_model::command::{Selection, Settlement};
use flotilla_model::ids::LeaseId;
use flotilla_model::name::Name;
use tokio::sync::oneshot;
use tracing::warn;

/// Removes the messages of a lease once the response with them was written, or gives them back if it
/// never will be.
pub async fn ack_when_written(
    session: Arc<Session>,
    queue: Name,
    lease: LeaseId,
    written: oneshot::Receiver<()>,
) {
    let how = match written.await {
        Ok(()) => Settlement::Ack,
        Err(_) => Settlement::Release,
    };
    if let Err(error) = session.settle(&queue, lease, Selection::All, how).await {
        warn!(%queue, %lease, %error, "auto-acknowledged messages could not be removed and may come again");
    }
}
