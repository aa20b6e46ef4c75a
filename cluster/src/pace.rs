//! A rate in bytes per second that several parties share.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets bytes pass at a rate, whoever they are of.
pub(crate) struct Pace {
    bytes_per_second: Mutex<u64>,
    next: Mutex<Instant>,
}

impl Pace {
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: Mutex::new(bytes_per_second.max(1)),
            next: Mutex::new(Instant::now()),
        }
    }

    pub fn set(&self, bytes_per_second: u64) {
        *self.bytes_per_second.lock() = bytes_per_second.max(1);
    }

    /// Waits until so many bytes may pass.
    pub async fn pass(&self, bytes: u64) {
        tokio::time::sleep_until(self.book(bytes).into()).await;
    }

    /// The same on a thread that may wait.
    pub fn pass_blocking(&self, bytes: u64) {
        std::thread::sleep(self.book(bytes).saturating_duration_since(Instant::now()));
    }

    /// When they may.
    fn book(&self, bytes: u64) -> Instant {
        let taken = Duration::from_secs_f64(bytes as f64 / *self.bytes_per_second.lock() as f64);
        let mut next = self.next.lock();
        let start = (*next).max(Instant::now());
        *next = start + taken;
        start
    }
}
