//! How much was received, told to who sends, so that no more is under way than a system can hold: what
//! was signalled would be lost, and what lies in a queue would be measured as a backlog.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Notify;

pub struct Flow {
    /// By each receiver.
    received: Vec<AtomicU64>,
    changed: Notify,
}

impl Flow {
    pub fn new(receivers: usize) -> Self {
        Self {
            received: (0..receivers).map(|_| AtomicU64::new(0)).collect(),
            changed: Notify::new(),
        }
    }

    /// Notes what a receiver has received.
    pub fn received(&self, receiver: usize, messages: u64) {
        self.received[receiver].fetch_add(messages, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub fn total(&self) -> u64 {
        let counts = self.received.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub fn slowest(&self) -> u64 {
        let counts = self.received.iter();
        let slowest = counts.map(|count| count.load(Ordering::Relaxed)).min();
        slowest.unwrap_or(0)
    }

    /// Waits until something was received since the last call; false if nothing was until the deadline.
    pub async fn changed(&self, deadline: Instant) -> bool {
        tokio::time::timeout_at(deadline.into(), self.changed.notified())
            .await
            .is_ok()
    }
}
