//! Signals: the first one asks for a graceful end, the second ends the process at once.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::error::DaemonError;

/// Exit code after a second signal: the shutdown was not graceful.
const EXIT_CODE_FORCED: i32 = 1;

/// Signals this soon after the first one are the same wish: some supervisors signal the process and
/// then its whole group.
const SAME_WISH: Duration = Duration::from_millis(500);

/// SIGTERM and SIGINT, which mean the same.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen; from now on the signals do not end the process by themselves.
    pub fn listen() -> Result<Self, DaemonError> {
        let listen = |kind| {
            signal(kind).map_err(|source| DaemonError::Runtime {
                action: "listen for signals",
                source,
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Ends the process at the next signal. What was acknowledged is safe all the same: the node
    /// promises that for a kill at any moment.
    pub fn exit_at_next(mut self) {
        let first = Instant::now();
        tokio::spawn(async move {
            let mut signal = self.next().await;
            while first.elapsed() < SAME_WISH {
                signal = self.next().await;
            }
            warn!(signal, "second signal: ending at once");
            std::process::exit(EXIT_CODE_FORCED);
        });
        info!("a second signal ends the process at once");
    }
}
