//! Shard time: the clock that decides leases, delays, expiry and retention.
//!
//! ```text
//!   shard time = where the last entry left it
//!              + monotonic time since
//!              + at most 1 % of that, towards the wall clock
//! ```
//!
//! It never runs backwards and never jumps while a node is up, whatever is done to the wall clock.
//! Only when the whole cluster was down does it jump, forwards, to the wall clock, so that what fell
//! due meanwhile is due at once. Wall time is kept beside it, for display only.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flotilla_model::ids::{ShardTime, WallTime};
use parking_lot::Mutex;

/// Where the clocks are read. The second implementation is a test's.
pub trait TimeSource: Send + Sync + std::fmt::Debug {
    /// Runs evenly and never backwards.
    fn monotonic(&self) -> Duration;
    /// Time since the Unix epoch, as the machine believes it.
    fn wall(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemTimeSource {
    start: Instant,
}

impl Default for SystemTimeSource {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl TimeSource for SystemTimeSource {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Duration {
        // A clock set before 1970 is a wrong clock; zero keeps shard time going all the same.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// The machine's clocks with the wall clock moved, as after a reboot much later.
#[derive(Debug, Default)]
pub struct ShiftedTimeSource {
    machine: SystemTimeSource,
    shift_ms: AtomicI64,
}

impl ShiftedTimeSource {
    /// Moves the wall clock by this much from the machine's.
    pub fn shift_ms(&self, shift_ms: i64) {
        self.shift_ms.store(shift_ms, Ordering::SeqCst);
    }
}

impl TimeSource for ShiftedTimeSource {
    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }

    fn wall(&self) -> Duration {
        let shift_ms = self.shift_ms.load(Ordering::SeqCst);
        let shift = Duration::from_millis(shift_ms.unsigned_abs());
        if shift_ms < 0 {
            self.machine.wall().saturating_sub(shift)
        } else {
            self.machine.wall() + shift
        }
    }
}

/// At most this part of the elapsed time is added or taken to follow the wall clock.
const SLEW_DIVISOR: i64 = 100;

/// The shard time of one group on this node.
#[derive(Debug)]
pub(crate) struct ShardClock {
    source: Arc<dyn TimeSource>,
    // Held for a few additions.
    state: Mutex<ClockState>,
}

#[derive(Debug)]
struct ClockState {
    /// Microseconds of shard time, so that slewing does not get lost in rounding.
    shard_us: i64,
    read_at: Duration,
}

impl ShardClock {
    /// A clock that has seen nothing yet: it shows the wall time.
    pub fn new(source: Arc<dyn TimeSource>) -> Self {
        let state = ClockState {
            shard_us: micros(source.wall()),
            read_at: source.monotonic(),
        };
        Self {
            source,
            state: Mutex::new(state),
        }
    }

    /// The present shard time. Two readings never go backwards.
    pub fn now(&self) -> ShardTime {
        let monotonic = self.source.monotonic();
        let wall_us = micros(self.source.wall());
        let mut state = self.state.lock();
        // Another thread may have read the source later and got here first.
        let elapsed_us = micros(monotonic.saturating_sub(state.read_at));
        state.read_at = state.read_at.max(monotonic);
        let straight_us = state.shard_us.saturating_add(elapsed_us);
        let slew_us = elapsed_us / SLEW_DIVISOR;
        let correction_us = wall_us.saturating_sub(straight_us).clamp(-slew_us, slew_us);
        state.shard_us = straight_us.saturating_add(correction_us);
        ShardTime(state.shard_us.max(0).unsigned_abs() / 1_000)
    }

    /// Goes on from the time of an applied entry, if that is later than this clock.
    pub fn observe(&self, entry_time: ShardTime) {
        let entry_us = i64::try_from(entry_time.0.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let mut state = self.state.lock();
        state.shard_us = state.shard_us.max(entry_us);
    }

    /// The wall clock of this node.
    pub fn wall(&self) -> WallTime {
        WallTime(u64::try_from(self.source.wall().as_nanos()).unwrap_or(u64::MAX))
    }

    /// The wall time that goes with a shard time, as far as this node can tell. For display.
    pub fn wall_at(&self, at: ShardTime) -> WallTime {
        let now = self.now();
        let wall = self.wall().0;
        let nanos = |ms: u64| ms.saturating_mul(1_000_000);
        if at >= now {
            WallTime(wall.saturating_add(nanos(at.0 - now.0)))
        } else {
            WallTime(wall.saturating_sub(nanos(now.0 - at.0)))
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[derive(Debug, Default)]
    struct ManualSource {
        monotonic_ms: AtomicI64,
        wall_ms: AtomicI64,
    }

    impl TimeSource for ManualSource {
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst).unsigned_abs())
        }
        fn wall(&self) -> Duration {
            Duration::from_millis(self.wall_ms.load(Ordering::SeqCst).unsigned_abs())
        }
    }

    fn clock_at(wall_ms: i64) -> (Arc<ManualSource>, ShardClock) {
        let source = Arc::new(ManualSource::default());
        source.wall_ms.store(wall_ms, Ordering::SeqCst);
        (source.clone(), ShardClock::new(source))
    }

    #[test]
    fn a_first_start_begins_at_the_wall_clock() {
        let (_, clock) = clock_at(1_700_000_000_000);
        assert_eq!(clock.now(), ShardTime(1_700_000_000_000));
    }

    #[test]
    fn a_wall_clock_set_back_does_not_set_back_shard_time() {
        let (source, clock) = clock_at(1_000_000);
        source.wall_ms.store(0, Ordering::SeqCst);
        source.monotonic_ms.store(1_000, Ordering::SeqCst);
        // A second went by, of which at most 1 % is taken away.
        assert_eq!(clock.now(), ShardTime(1_000_990));
    }

    #[test]
    fn a_wall_clock_set_forward_is_followed_slowly() {
        let (source, clock) = clock_at(1_000_000);
        source.wall_ms.store(9_000_000, Ordering::SeqCst);
        source.monotonic_ms.store(1_000, Ordering::SeqCst);
        assert_eq!(clock.now(), ShardTime(1_001_010));
    }

    #[test]
    fn a_restart_after_downtime_is_at_the_wall_clock_and_with_a_late_one_at_the_last_entry() {
        let (_, ahead) = clock_at(5_000_000);
        ahead.observe(ShardTime(1_000_000));
        assert_eq!(ahead.now(), ShardTime(5_000_000));
        let (_, behind) = clock_at(5_000_000);
        behind.observe(ShardTime(6_000_000));
        assert_eq!(behind.now(), ShardTime(6_000_000));
    }

    proptest! {
        #[test]
        fn shard_time_never_runs_backwards_and_stays_near_the_monotonic_clock(
            steps in vec((0i64..5_000, -10_000_000i64..10_000_000), 1..100)
        ) {
            let (source, clock) = clock_at(1_000_000_000);
            let begin = clock.now();
            let mut before = begin;
            let mut elapsed_ms = 0;
            for (step_ms, wall_jump_ms) in steps {
                elapsed_ms += step_ms;
                source.monotonic_ms.fetch_add(step_ms, Ordering::SeqCst);
                source.wall_ms.fetch_add(wall_jump_ms, Ordering::SeqCst);
                let now = clock.now();
                prop_assert!(now >= before);
                before = now;
            }
            let shown_ms = (before.0 - begin.0) as i64;
            let allowed_ms = elapsed_ms / 100 + 1;
            prop_assert!((shown_ms - elapsed_ms).abs() <= allowed_ms);
        }
    }
}
