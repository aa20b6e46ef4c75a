//! Messages that were sent and not answered yet, where each answer names the slot of its message.
//!
//! Answers may come in another order than that of sending, as from several streams of one server. They are
//! counted in the order of sending: one that comes early waits for those before it.

use crate::BenchError;
use std::collections::VecDeque;

/// How many messages can be under way at a time.
pub const SLOTS: usize = 16_384;

#[derive(Default)]
pub struct Pending {
    /// The slot of the oldest message.
    first: usize,
    /// For each message from the oldest one on, whether it is answered.
    answered: VecDeque<bool>,
}

impl Pending {
    /// Takes a slot for a message that is about to be sent.
    pub fn push(&mut self) -> Result<usize, BenchError> {
        if self.answered.len() == SLOTS {
            return Err(BenchError::Refused {
                doing: "another message under way".to_owned(),
                text: format!("at most {SLOTS} are possible"),
            });
        }
        self.answered.push_back(false);
        Ok((self.first + self.answered.len() - 1) % SLOTS)
    }

    /// Notes an answer.
    pub fn answer(&mut self, slot: usize) -> Result<(), BenchError> {
        let place = (slot + SLOTS - self.first) % SLOTS;
        match self.answered.get_mut(place) {
            Some(answered) if !*answered => {
                *answered = true;
                Ok(())
            }
            _ => Err(BenchError::Refused {
                doing: "an answer".to_owned(),
                text: format!("no message waits for it in slot {slot}"),
            }),
        }
    }

    /// How many messages more are answered, with all before them.
    pub fn take(&mut self) -> usize {
        let mut count = 0;
        while self.answered.front() == Some(&true) {
            self.answered.pop_front();
            count += 1;
        }
        self.first = (self.first + count) % SLOTS;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_answer_waits_for_those_before_it() {
        let mut pending = Pending::default();
        let slots: Vec<usize> = (0..3)
            .map(|_| pending.push().expect("there is room"))
            .collect();
        pending.answer(slots[1]).expect("it waits");
        assert_eq!(pending.take(), 0);
        pending.answer(slots[0]).expect("it waits");
        assert_eq!(pending.take(), 2);
        pending.answer(slots[2]).expect("it waits");
        assert_eq!(pending.take(), 1);
    }

    #[test]
    fn slots_are_used_again_and_again() {
        let mut pending = Pending::default();
        for _ in 0..3 {
            let slots: Vec<usize> = (0..SLOTS)
                .map(|_| pending.push().expect("there is room"))
                .collect();
            assert!(pending.push().is_err());
            for slot in slots.into_iter().rev() {
                pending.answer(slot).expect("it waits");
            }
            assert_eq!(pending.take(), SLOTS);
            assert_eq!(pending.push().expect("there is room"), pending.first);
            pending.answer(pending.first).expect("it waits");
            assert_eq!(pending.take(), 1);
        }
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_an_error() {
        let mut pending = Pending::default();
        assert!(pending.answer(0).is_err());
        let slot = pending.push().expect("there is room");
        pending.answer(slot).expect("it waits");
        assert!(pending.answer(slot).is_err());
        pending.take();
        assert!(pending.answer(slot).is_err());
    }
}
