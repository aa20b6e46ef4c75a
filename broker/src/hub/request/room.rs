//! A number of bytes that many may take from, and give back.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is taken of so many bytes.
#[derive(Debug)]
pub(crate) struct Room {
    used: AtomicU64,
    bytes_max: u64,
}

impl Room {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            used: AtomicU64::new(0),
            bytes_max,
        }
    }

    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Takes bytes, if there are as many. What is larger than the whole room is taken alone, and what
    /// weighs nothing always.
    pub fn take(&self, bytes: u64) -> bool {
        let taken = |used: u64| {
            let sum = used.checked_add(bytes)?;
            (used == 0 || bytes == 0 || sum <= self.bytes_max).then_some(sum)
        };
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, taken)
            .is_ok()
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_but_for_what_is_larger_than_all() {
        let room = Room::new(100);
        assert!(room.take(60) && !room.take(41) && room.take(40));
        assert!(!room.take(1) && room.take(0));
        room.give_back(100);
        assert!(room.take(1_000), "alone");
        assert!(!room.take(1) && room.take(0));
        room.give_back(1_000);
        assert_eq!(room.used(), 0);
    }
}
