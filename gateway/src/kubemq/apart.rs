//! Work that takes long, apart from the threads that serve connections.

use std::panic::resume_unwind;

/// Runs what would keep a thread of the runtime from its connections for long. It goes on when nobody waits for
/// it any more.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is going away, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
