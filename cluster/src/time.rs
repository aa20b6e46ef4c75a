//! Shard time: the clock that decides leases, delays, expiry and retention.
//!
//! ```text
//!   leader:    where it took over                             follower:  the time of the last entry,
//!            + monotonic time since                                      or what the leader last told,
//!            + at most 1 % of that, towards the voters'                + the silence measured since
//!              median wall clock
//! ```
//!
//! It never runs backwards and never jumps while nodes are up, whatever is done to their wall clocks:
//! who takes over goes on from the latest of the voters' estimates. Only when all of them were down does
//! it jump, forwards, to the wall clock, so that what fell due meanwhile is due at once. Wall time is
//! kept beside it, for display only.

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

/// What a node believes the shard time to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEstimate {
    pub time: ShardTime,
    /// It goes back to a leader that this node heard in its present life: no downtime is missing in it.
    pub is_live: bool,
}

/// Where the shard time of a new leader begins. `estimates` are those of the voters that answered, its
/// own among them.
pub(crate) fn time_at_take_over(
    estimates: &[TimeEstimate],
    applied: ShardTime,
    wall: ShardTime,
) -> ShardTime {
    let known = estimates.iter().map(|estimate| estimate.time).max();
    let known = known.map_or(applied, |known| known.max(applied));
    if estimates.iter().any(|estimate| estimate.is_live) {
        known
    } else {
        known.max(wall)
    }
}

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
    leads: bool,
    is_live: bool,
    /// From this node's wall clock to the median of the voters'.
    wall_offset_us: i64,
}

impl ClockState {
    /// Brings the time up to a reading of the monotonic clock.
    fn advance(&mut self, monotonic: Duration, wall_us: i64) {
        // Another thread may have read the source later and got here first.
        let elapsed_us = micros(monotonic.saturating_sub(self.read_at));
        self.read_at = self.read_at.max(monotonic);
        let straight_us = self.shard_us.saturating_add(elapsed_us);
        let correction_us = if self.leads {
            let slew_us = elapsed_us / SLEW_DIVISOR;
            let target_us = wall_us.saturating_add(self.wall_offset_us);
            target_us
                .saturating_sub(straight_us)
                .clamp(-slew_us, slew_us)
        } else {
            0
        };
        self.shard_us = straight_us.saturating_add(correction_us);
    }

    fn time(&self) -> ShardTime {
        ShardTime(self.shard_us.max(0).unsigned_abs() / 1_000)
    }
}

impl ShardClock {
    /// A clock that has seen nothing yet.
    pub fn new(source: Arc<dyn TimeSource>) -> Self {
        let state = ClockState {
            shard_us: 0,
            read_at: source.monotonic(),
            leads: false,
            is_live: false,
            wall_offset_us: 0,
        };
        Self {
            source,
            state: Mutex::new(state),
        }
    }

    /// The present shard time. On a leader two readings never go backwards.
    pub fn now(&self) -> ShardTime {
        self.estimate().time
    }

    pub fn estimate(&self) -> TimeEstimate {
        let monotonic = self.source.monotonic();
        let wall_us = micros(self.source.wall());
        let mut state = self.state.lock();
        state.advance(monotonic, wall_us);
        TimeEstimate {
            time: state.time(),
            is_live: state.is_live,
        }
    }

    /// The time of an entry that is being applied. `is_replay`: it may be from before this start.
    pub fn observe(&self, entry_time: ShardTime, is_replay: bool) {
        let entry_us = shard_micros(entry_time);
        let monotonic = self.source.monotonic();
        let mut state = self.state.lock();
        if state.leads {
            state.shard_us = state.shard_us.max(entry_us);
        } else if is_replay && state.is_live {
            // Raft was started again under a node that stayed up: its own measure is the better one.
            state.advance(monotonic, 0);
            state.shard_us = state.shard_us.max(entry_us);
        } else {
            state.shard_us = entry_us;
            state.read_at = monotonic;
            state.is_live |= !is_replay;
        }
    }

    /// What the leader's clock shows, as it has just told.
    pub fn hear(&self, leader_time: ShardTime) {
        let monotonic = self.source.monotonic();
        let mut state = self.state.lock();
        if !state.leads {
            state.shard_us = shard_micros(leader_time);
            state.read_at = monotonic;
            state.is_live = true;
        }
    }

    /// From now on this clock is the shard's, and runs from here.
    pub fn lead_from(&self, time: ShardTime) {
        let monotonic = self.source.monotonic();
        let mut state = self.state.lock();
        state.shard_us = shard_micros(time);
        state.read_at = monotonic;
        state.leads = true;
        state.is_live = true;
    }

    /// Another clock is the shard's. This one goes on by itself until it hears of that.
    pub fn follow(&self) {
        // What ran until now was slewed.
        self.now();
        self.state.lock().leads = false;
    }

    /// How far the voters' median wall clock is ahead of this node's.
    pub fn set_wall_offset_us(&self, offset_us: i64) {
        self.state.lock().wall_offset_us = offset_us;
    }

    /// This node's own wall clock.
    pub fn own_wall_us(&self) -> i64 {
        micros(self.source.wall())
    }

    /// The voters' median wall clock, as far as this node knows it.
    pub fn wall(&self) -> WallTime {
        let offset_us = self.state.lock().wall_offset_us;
        let wall_us = micros(self.source.wall()).saturating_add(offset_us);
        WallTime(wall_us.max(0).unsigned_abs().saturating_mul(1_000))
    }

    /// This node's wall clock moved by an offset, as a shard time: where that begins after the whole
    /// cluster was down.
    pub fn wall_as_time(&self, offset_us: i64) -> ShardTime {
        let wall_us = self.own_wall_us().saturating_add(offset_us);
        ShardTime(wall_us.max(0).unsigned_abs() / 1_000)
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

fn shard_micros(time: ShardTime) -> i64 {
    i64::try_from(time.0.saturating_mul(1_000)).unwrap_or(i64::MAX)
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

    fn leading_at(wall_ms: i64) -> (Arc<ManualSource>, ShardClock) {
        let (source, clock) = clock_at(wall_ms);
        clock.lead_from(clock.wall_as_time(0));
        (source, clock)
    }

    fn estimate(time: u64, is_live: bool) -> TimeEstimate {
        TimeEstimate {
            time: ShardTime(time),
            is_live,
        }
    }

    #[test]
    fn a_wall_clock_set_back_does_not_set_back_shard_time() {
        let (source, clock) = leading_at(1_000_000);
        source.wall_ms.store(0, Ordering::SeqCst);
        source.monotonic_ms.store(1_000, Ordering::SeqCst);
        // A second went by, of which at most 1 % is taken away.
        assert_eq!(clock.now(), ShardTime(1_000_990));
    }

    #[test]
    fn a_wall_clock_set_forward_is_followed_slowly() {
        let (source, clock) = leading_at(1_000_000);
        source.wall_ms.store(9_000_000, Ordering::SeqCst);
        source.monotonic_ms.store(1_000, Ordering::SeqCst);
        assert_eq!(clock.now(), ShardTime(1_001_010));
    }

    #[test]
    fn a_leader_follows_the_median_and_not_its_own_wall_clock() {
        let (source, clock) = leading_at(1_000_000);
        source.wall_ms.store(9_001_000, Ordering::SeqCst);
        clock.set_wall_offset_us(-8_000_000_000);
        source.monotonic_ms.store(1_000, Ordering::SeqCst);
        assert_eq!(clock.now(), ShardTime(1_001_000));
        assert_eq!(clock.wall(), WallTime(1_001_000 * 1_000_000));
    }

    #[test]
    fn a_follower_goes_by_the_last_entry_and_never_by_its_wall_clock() {
        let (source, clock) = clock_at(9_000_000);
        clock.observe(ShardTime(5_000), false);
        source.monotonic_ms.store(1_000, Ordering::SeqCst);
        assert_eq!(clock.now(), ShardTime(6_000));
        clock.observe(ShardTime(5_900), false);
        assert_eq!(clock.estimate(), estimate(5_900, true));
    }

    #[test]
    fn a_replay_tells_the_time_only_to_who_does_not_know_it_better() {
        let (source, clock) = clock_at(9_000_000);
        clock.observe(ShardTime(5_000), true);
        assert_eq!(clock.estimate(), estimate(5_000, false));
        clock.lead_from(ShardTime(8_000));
        source.monotonic_ms.store(1_000, Ordering::SeqCst);
        clock.follow();
        let stopped = clock.now();
        clock.observe(ShardTime(5_000), true);
        assert_eq!(clock.now(), stopped);
    }

    #[test]
    fn who_takes_over_goes_on_from_the_latest_estimate_and_jumps_only_if_all_were_down() {
        let (applied, wall) = (ShardTime(1_000), ShardTime(90_000));
        let begin = |estimates: &[TimeEstimate]| time_at_take_over(estimates, applied, wall);
        assert_eq!(
            begin(&[estimate(1_500, true), estimate(1_700, true)]),
            ShardTime(1_700)
        );
        // The new leader itself was restarted; another voter measured the silence.
        assert_eq!(
            begin(&[estimate(1_000, false), estimate(2_500, true)]),
            ShardTime(2_500)
        );
        assert_eq!(
            begin(&[estimate(1_000, false), estimate(1_200, false)]),
            wall
        );
        // A wall clock behind the last entry does not set the time back.
        assert_eq!(
            time_at_take_over(&[estimate(1_200, false)], ShardTime(99_000), wall),
            ShardTime(99_000)
        );
    }

    proptest! {
        #[test]
        fn shard_time_never_runs_backwards_and_stays_near_the_monotonic_clock(
            steps in vec((0i64..5_000, -10_000_000i64..10_000_000), 1..100)
        ) {
            let (source, clock) = leading_at(1_000_000_000);
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
