//! The threads that actors run on: an actix system of the broker's own, with some arbiters.
//!
//! The broker starts its system itself, so that it can be started from any tokio task and owes
//! nothing to the system of the administration API.

use std::sync::mpsc;
use std::thread::JoinHandle;

use actix::{Arbiter, ArbiterHandle, System};
use parking_lot::Mutex;

use crate::api::error::BrokerError;

/// A running actix system; stops when dropped.
pub(crate) struct ActorThreads {
    system: System,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ActorThreads {
    /// Starts the system and `count` arbiters. Blocks for the moment that takes.
    pub fn start(count: usize) -> Result<(Self, Vec<ArbiterHandle>), BrokerError> {
        let (started, ready) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("broker-actors".to_owned())
            .spawn(move || {
                let runner = System::new();
                let handles = runner.block_on(async move {
                    (0..count.max(1))
                        .map(|_| Arbiter::new().handle())
                        .collect::<Vec<_>>()
                });
                if started.send((System::current(), handles)).is_err() {
                    return;
                }
                if let Err(error) = runner.run() {
                    tracing::error!(%error, "the actors' system ended with an error");
                }
            })
            .map_err(|error| BrokerError::Unavailable {
                reason: format!("cannot start the actors' thread: {error}"),
            })?;
        let (system, handles) = ready.recv().map_err(|_| BrokerError::Unavailable {
            reason: "the actors' thread ended while it started".to_owned(),
        })?;
        Ok((
            Self {
                system,
                thread: Mutex::new(Some(thread)),
            },
            handles,
        ))
    }

    /// Ends all arbiters and waits for the system's thread. Must not be called on one of them.
    pub fn stop(&self) {
        self.system.stop();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the actors' thread panicked");
        }
    }
}

impl Drop for ActorThreads {
    fn drop(&mut self) {
        // Without waiting: the last handle may be dropped anywhere, on an arbiter too.
        self.system.stop();
    }
}
