//! A host's clocks: they run a little fast or slow, and the wall clock may be set.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flotilla_cluster::TimeSource;

#[derive(Debug)]
pub struct HostClock {
    start: Instant,
    /// Nanoseconds gained in a millisecond.
    gain: i64,
    shift_ms: AtomicI64,
}

impl HostClock {
    pub fn new(gain: i64, shift_ms: i64) -> Self {
        Self {
            start: Instant::now(),
            gain,
            shift_ms: AtomicI64::new(shift_ms),
        }
    }

    /// Sets the wall clock, as an operator does.
    pub fn shift_ms(&self, shift_ms: i64) {
        self.shift_ms.store(shift_ms, Ordering::SeqCst);
    }

    fn drift_ns(&self) -> i64 {
        let elapsed_ms = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        elapsed_ms.saturating_mul(self.gain)
    }
}

fn moved(time: Duration, by_ns: i64) -> Duration {
    let by = Duration::from_nanos(by_ns.unsigned_abs());
    match by_ns >= 0 {
        true => time.saturating_add(by),
        false => time.saturating_sub(by),
    }
}

impl TimeSource for HostClock {
    fn monotonic(&self) -> Duration {
        moved(self.start.elapsed(), self.drift_ns())
    }

    fn wall(&self) -> Duration {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let shift_ms = self.shift_ms.load(Ordering::SeqCst);
        let by_ns = shift_ms
            .saturating_mul(1_000_000)
            .saturating_add(self.drift_ns());
        moved(wall.unwrap_or_default(), by_ns)
    }
}
