//! The place of one connection: it is opened when it is needed, once for all who need it.
//!
//! ```text
//!   idle --> connecting --> open --(broke)--> connecting
//!                 |
//!                 '--> failed: refuses at once until its pause is over, then connecting
//! ```
//!
//! Opening is a task of its own, since those who wait for it may be in more of a hurry than a handshake
//! takes. A peer that is down must not cost each of its groups a connection attempt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::connection::{Connection, Dialer};
use super::lane::{Lane, RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN};
use super::peers::PeerError;
use crate::error::chain;

#[derive(Clone)]
enum Phase {
    Idle,
    /// The number tells this attempt from one that was given up.
    Connecting(u64),
    Open(Connection),
    Failed {
        until: Instant,
        pause: Duration,
        reason: Arc<str>,
    },
}

pub(crate) struct Slot {
    lane: Lane,
    dialer: Dialer,
    phase: watch::Sender<Phase>,
}

impl Slot {
    pub fn new(lane: Lane, dialer: &Dialer) -> Arc<Self> {
        Arc::new(Self {
            lane,
            dialer: dialer.clone(),
            phase: watch::Sender::new(Phase::Idle),
        })
    }

    /// The open connection, or a new one. Fails at once while the last failure is fresh.
    pub async fn connection(self: &Arc<Self>, address: &str) -> Result<Connection, PeerError> {
        if let Phase::Open(connection) = &*self.phase.borrow()
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        let mut phases = self.phase.subscribe();
        self.begin(address);
        loop {
            match &*phases.borrow_and_update() {
                Phase::Open(connection) => return Ok(connection.clone()),
                Phase::Failed { reason, .. } => {
                    return Err(PeerError::unreachable(&**reason));
                }
                Phase::Idle => return Err(PeerError::unreachable("the link was closed")),
                Phase::Connecting(_) => {}
            }
            if phases.changed().await.is_err() {
                return Err(PeerError::unreachable("the link was closed"));
            }
        }
    }

    /// Starts an attempt if it is time for one.
    fn begin(self: &Arc<Self>, address: &str) {
        let number = rand::random();
        let mut pause = RECONNECT_PAUSE_MIN;
        let begun = self.phase.send_if_modified(|phase| {
            match phase {
                Phase::Idle => {}
                Phase::Open(connection) if connection.is_closed() => {}
                Phase::Failed {
                    until, pause: last, ..
                } if *until <= Instant::now() => {
                    pause = (*last * 2).min(RECONNECT_PAUSE_MAX);
                }
                Phase::Open(_) | Phase::Failed { .. } | Phase::Connecting(_) => return false,
            }
            *phase = Phase::Connecting(number);
            true
        });
        if begun {
            let attempt = self.clone().attempt(address.to_owned(), number, pause);
            self.dialer.runtime.spawn(attempt);
        }
    }

    async fn attempt(self: Arc<Self>, address: String, number: u64, pause: Duration) {
        let next = match self.dialer.open(&address, self.lane).await {
            Ok(connection) => Phase::Open(connection),
            Err(error) => Phase::Failed {
                until: Instant::now() + pause.mul_f64(rand::random_range(0.75..1.25)),
                pause,
                reason: format!("{address}: {}", chain(&error)).into(),
            },
        };
        self.phase.send_if_modified(|phase| {
            let is_wanted = matches!(phase, Phase::Connecting(wanted) if *wanted == number);
            if is_wanted {
                *phase = next;
            }
            is_wanted
        });
    }

    /// The peer was heard: an attempt need not wait any more.
    pub fn hurry(&self) {
        self.phase.send_if_modified(|phase| {
            let waits = matches!(phase, Phase::Failed { .. });
            if waits {
                *phase = Phase::Idle;
            }
            waits
        });
    }

    /// Ends the connection, and what runs on it with an error.
    pub fn reset(&self) {
        self.phase.send_modify(|phase| {
            if let Phase::Open(connection) = phase {
                connection.cut();
            }
            *phase = Phase::Idle;
        });
    }
}
