//! Ends the calls whose time is over: one task for all of them.

use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::core::Core;

/// Runs as long as there is the broker.
pub(crate) async fn run(core: Weak<Core>) {
    let Some(bell) = core.upgrade().map(|core| Arc::clone(&core.requests.timer)) else {
        return;
    };
    loop {
        let Some(next) = look(&core) else {
            return;
        };
        match next {
            // Earlier, if a call comes whose time is over earlier. An error means that time is over.
            Some(deadline) => {
                let _ = tokio::time::timeout_at(deadline.into(), bell.notified()).await;
            }
            None => bell.notified().await,
        }
    }
}

fn look(core: &Weak<Core>) -> Option<Option<Instant>> {
    let core = core.upgrade().filter(|core| !core.is_closing())?;
    Some(core.requests.expire(&core))
}
