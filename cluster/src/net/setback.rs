//! When a node takes in a snapshot again after one that it could not store.
//!
//! Raft asks twice a second, and each time all would be read, sent and written from the start: a disk that
//! has no room for a snapshot would be filled and emptied for ever, and so would the links. So each attempt
//! that failed is followed by a longer pause, and where room was all that was missing, by none before there
//! is some.

use std::time::{Duration, Instant};

use flotilla_storage::StorageError;

use crate::error::chain;

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After that it is tried without the room that was missing: the snapshot may be smaller by now.
const ROOM_PAUSE_MAX: Duration = Duration::from_secs(600);

/// Why a snapshot could not be stored.
#[derive(Debug)]
pub(super) struct Unstored {
    pub reason: String,
    /// If room was all that was missing: with less than this free, it would not come further next time.
    room_bytes: Option<u64>,
}

impl Unstored {
    /// `bytes` is what had come of it.
    pub fn new(error: &StorageError, bytes: u64) -> Self {
        Self {
            reason: chain(error),
            // It lies there twice when it is installed.
            room_bytes: error.is_out_of_space().then(|| bytes.saturating_mul(2)),
        }
    }

    /// The work was broken off.
    pub fn broken_off(error: &tokio::task::JoinError) -> Self {
        Self {
            reason: chain(error),
            room_bytes: None,
        }
    }
}

/// The last attempt of a group, if it failed here.
#[derive(Debug)]
pub(super) struct Setback {
    since: Instant,
    pub pause: Duration,
    pub why: Unstored,
}

impl Setback {
    /// `before` is the one that the attempt followed.
    pub fn after(before: Option<Self>, why: Unstored, now: Instant) -> Self {
        Self {
            since: now,
            pause: before.map_or(PAUSE_MIN, |before| (before.pause * 2).min(PAUSE_MAX)),
            why,
        }
    }

    /// Whether it is too early for the next attempt.
    pub fn holds(&self, now: Instant, has_room: impl FnOnce(u64) -> bool) -> bool {
        let waited = now.saturating_duration_since(self.since);
        let lacks_room = |bytes| waited < ROOM_PAUSE_MAX && !has_room(bytes);
        waited < self.pause || self.why.room_bytes.is_some_and(lacks_room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: StorageError = StorageError::Full {
        free: 0,
        reserve: 1,
    };

    fn unsound() -> Unstored {
        let what = "a chunk was missing";
        Unstored::new(&StorageError::Snapshot { what }, 100)
    }

    #[test]
    fn pauses_grow_up_to_a_minute_and_begin_anew_after_a_success() {
        let begin = Instant::now();
        let mut last = None;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let setback = Setback::after(last.take(), unsound(), begin);
            let pause = Duration::from_secs(seconds);
            let nearly = begin + pause - Duration::from_millis(1);
            // Room is not what was missing.
            assert!(setback.holds(nearly, |_| true), "{setback:?}");
            assert!(!setback.holds(begin + pause, |_| false), "{setback:?}");
            last = Some(setback);
        }
        assert_eq!(Setback::after(None, unsound(), begin).pause, PAUSE_MIN);
    }

    #[test]
    fn without_room_for_what_had_come_it_waits_for_that_but_not_for_ever() {
        let begin = Instant::now();
        let setback = Setback::after(None, Unstored::new(&FULL, 100), begin);
        assert!(setback.holds(begin, |_| true));
        let later = begin + PAUSE_MAX;
        assert!(setback.holds(later, |bytes| bytes < 200));
        assert!(!setback.holds(later, |bytes| bytes <= 200));
        assert!(!setback.holds(begin + ROOM_PAUSE_MAX, |_| false));
    }
}
