//! Work that waits for a disk, kept off the threads that everything else runs on.

use crate::error::ClusterError;

/// Runs work on a thread of its own. `what` names it should it be broken off, by a panic or by the end
/// of the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, ClusterError> + Send + 'static,
) -> Result<T, ClusterError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ClusterError::Unavailable {
            reason: format!("{what} was broken off: {error}"),
        })?
}
