//! Who waits for messages of a queue, and who gets them: pure, so that fairness can be tested.
//!
//! Receivers are served in order of arrival. One that wants more than there is does not keep what
//! there is from those behind it; it gets what there is when its wait is over.

use std::collections::VecDeque;
use std::time::Instant;

use crate::api::queue::Fill;

/// One that waits.
#[derive(Debug)]
pub(crate) struct Waiter<T> {
    pub messages_max: u64,
    pub bytes_max: u64,
    pub deadline: Instant,
    pub fill: Fill,
    /// Set when the first message was seen, of a [`Fill::Linger`].
    linger_until: Option<Instant>,
    /// Only wants to know that there is something.
    pub looks_only: bool,
    /// Its place in the order of arrival, given by the list.
    arrival: u64,
    pub tag: T,
}

impl<T> Waiter<T> {
    pub fn new(messages_max: u64, bytes_max: u64, deadline: Instant, fill: Fill, tag: T) -> Self {
        Self {
            messages_max,
            bytes_max,
            deadline,
            fill,
            linger_until: None,
            looks_only: false,
            arrival: 0,
            tag,
        }
    }

    /// One that takes nothing, and is told when there is something.
    pub fn looking(deadline: Instant, tag: T) -> Self {
        let mut waiter = Self::new(1, u64::MAX, deadline, Fill::Full, tag);
        waiter.looks_only = true;
        waiter
    }
}

/// What a queue has for receivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stock {
    pub messages: u64,
    /// About how many bytes one of them has.
    pub message_bytes: u64,
}

/// Waiters in order of arrival.
#[derive(Debug)]
pub(crate) struct WaitList<T> {
    waiters: VecDeque<Waiter<T>>,
    arrivals: u64,
}

/// What is to be done now.
#[derive(Debug)]
pub(crate) struct Plan<T> {
    /// These are to get messages now, in this order.
    pub serve: Vec<Waiter<T>>,
    /// Their wait is over, or they only looked: nothing is to be taken for them.
    pub answer: Vec<Waiter<T>>,
    /// Look again then, if nothing happens before.
    pub again_at: Option<Instant>,
}

impl<T> Default for WaitList<T> {
    fn default() -> Self {
        Self {
            waiters: VecDeque::new(),
            arrivals: 0,
        }
    }
}

impl<T> WaitList<T> {
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub fn push(&mut self, mut waiter: Waiter<T>) {
        self.arrivals += 1;
        waiter.arrival = self.arrivals;
        self.waiters.push_back(waiter);
    }

    /// Puts back waiters that were to be served and got nothing, where they were before.
    pub fn put_back(&mut self, waiters: impl IntoIterator<Item = Waiter<T>>) {
        self.waiters.extend(waiters);
        let waiters = self.waiters.make_contiguous();
        waiters.sort_by_key(|waiter| waiter.arrival);
    }

    pub fn retain(&mut self, keep: impl FnMut(&Waiter<T>) -> bool) {
        self.waiters.retain(keep);
    }

    /// Whether there are fewer than so many. Those who are gone are let go of only when there are not:
    /// usually nobody has to go through a crowd for a newcomer.
    pub fn has_room(&mut self, most: usize, is_gone: impl Fn(&Waiter<T>) -> bool) -> bool {
        if self.waiters.len() >= most {
            self.waiters.retain(|waiter| !is_gone(waiter));
        }
        self.waiters.len() < most
    }

    pub fn drain(&mut self) -> impl Iterator<Item = Waiter<T>> + '_ {
        self.waiters.drain(..)
    }

    /// Shares out the stock.
    pub fn plan(&mut self, now: Instant, stock: Stock) -> Plan<T> {
        let mut plan = Plan {
            serve: Vec::new(),
            answer: Vec::new(),
            again_at: None,
        };
        let mut left = stock.messages;
        let mut stay = VecDeque::with_capacity(self.waiters.len());
        for mut waiter in self.waiters.drain(..) {
            let over = waiter.deadline <= now;
            if waiter.looks_only {
                if over || left > 0 {
                    plan.answer.push(waiter);
                    continue;
                }
            } else {
                let by_bytes = (waiter.bytes_max / stock.message_bytes.max(1)).max(1);
                let wanted = waiter.messages_max.min(by_bytes);
                let ready = left > 0 && (left >= wanted || over || waiter.lingered(now));
                if ready {
                    left -= wanted.min(left);
                    plan.serve.push(waiter);
                    continue;
                }
                if over {
                    plan.answer.push(waiter);
                    continue;
                }
                if left == 0 {
                    // What was seen went to others: the first message is still to come.
                    waiter.linger_until = None;
                }
            }
            let at = waiter
                .linger_until
                .map_or(waiter.deadline, |until| until.min(waiter.deadline));
            plan.again_at = Some(plan.again_at.map_or(at, |sooner: Instant| sooner.min(at)));
            stay.push_back(waiter);
        }
        self.waiters = stay;
        plan
    }
}

impl<T> Waiter<T> {
    /// Whether it has waited long enough since it saw the first message; begins to count if it is the first.
    fn lingered(&mut self, now: Instant) -> bool {
        match self.fill {
            Fill::Full => false,
            Fill::Linger(time) => {
                let until = *self.linger_until.get_or_insert(now + time);
                until <= now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn tags(waiters: &[Waiter<u32>]) -> Vec<u32> {
        waiters.iter().map(|waiter| waiter.tag).collect()
    }

    fn stock(messages: u64) -> Stock {
        Stock {
            messages,
            message_bytes: 10,
        }
    }

    #[test]
    fn one_that_wants_more_than_there_is_does_not_block_those_behind_it() {
        let now = Instant::now();
        let mut list = WaitList::default();
        list.push(Waiter::new(100, 1_000_000, now + ms(50), Fill::Full, 1));
        list.push(Waiter::new(2, 1_000_000, now + ms(90), Fill::Full, 2));
        let plan = list.plan(now, stock(3));
        assert_eq!(tags(&plan.serve), [2]);
        assert_eq!(plan.again_at, Some(now + ms(50)));
        let plan = list.plan(now + ms(50), stock(1));
        assert_eq!(
            tags(&plan.serve),
            [1],
            "it gets what there is when its wait is over"
        );
    }

    #[test]
    fn full_receivers_are_served_in_order_of_arrival() {
        let now = Instant::now();
        let mut list = WaitList::default();
        for tag in 1..=3 {
            list.push(Waiter::new(10, 1_000_000, now + ms(50), Fill::Full, tag));
        }
        assert_eq!(tags(&list.plan(now, stock(25)).serve), [1, 2]);
        let plan = list.plan(now + ms(50), stock(0));
        assert_eq!(tags(&plan.answer), [3]);
        assert!(list.is_empty());
    }

    #[test]
    fn a_byte_limit_is_full_too() {
        let now = Instant::now();
        let mut list = WaitList::default();
        list.push(Waiter::new(1_000, 100, now + ms(50), Fill::Full, 1));
        assert!(list.plan(now, stock(9)).serve.is_empty());
        assert_eq!(tags(&list.plan(now, stock(10)).serve), [1]);
    }

    #[test]
    fn a_linger_counts_from_the_first_message() {
        let now = Instant::now();
        let mut list = WaitList::default();
        list.push(Waiter::new(
            10,
            1_000,
            now + ms(500),
            Fill::Linger(ms(20)),
            1,
        ));
        assert_eq!(list.plan(now, stock(0)).again_at, Some(now + ms(500)));
        let plan = list.plan(now + ms(100), stock(1));
        assert_eq!(plan.again_at, Some(now + ms(120)));
        assert_eq!(tags(&list.plan(now + ms(120), stock(2)).serve), [1]);
    }

    #[test]
    fn one_that_only_looks_takes_nothing() {
        let now = Instant::now();
        let mut list = WaitList::default();
        list.push(Waiter::looking(now + ms(50), 1));
        list.push(Waiter::new(1, 1_000, now + ms(50), Fill::Full, 2));
        assert!(list.plan(now, stock(0)).answer.is_empty());
        let plan = list.plan(now, stock(1));
        assert_eq!((tags(&plan.answer), tags(&plan.serve)), (vec![1], vec![2]));
    }

    #[test]
    fn those_who_are_gone_take_no_room_from_others() {
        let now = Instant::now();
        let mut list = WaitList::default();
        for tag in 1..=4 {
            list.push(Waiter::new(1, 1_000, now + ms(50), Fill::Full, tag));
        }
        assert!(!list.has_room(4, |_| false));
        assert!(list.has_room(5, |_| true));
        assert_eq!(list.len(), 4, "nobody was in the way");
        assert!(list.has_room(4, |waiter| waiter.tag % 2 == 0));
        assert_eq!(tags(&list.plan(now, stock(4)).serve), [1, 3]);
    }

    proptest! {
        /// Nobody is lost, nobody waits beyond the deadline, what is given out is there, and among
        /// equal wishes the one that came first is served first.
        #[test]
        fn waiters_are_served_fairly(
            wishes in prop::collection::vec((1u64..20, 1u64..50, prop::option::of(0u64..10)), 1..30),
            steps in prop::collection::vec((0u64..20, 0u64..60), 1..20),
        ) {
            let start = Instant::now();
            let mut list = WaitList::default();
            for (tag, (wanted, wait, linger)) in wishes.iter().enumerate() {
                let fill = linger.map_or(Fill::Full, |time| Fill::Linger(ms(time)));
                list.push(Waiter::new(*wanted, 1_000_000, start + ms(*wait), fill, tag as u32));
            }
            let mut seen = Vec::new();
            let mut now = start;
            for (elapsed, messages) in steps {
                now += ms(elapsed);
                let plan = list.plan(now, stock(messages));
                let mut left = messages;
                for waiter in &plan.serve {
                    prop_assert!(left > 0, "served from nothing");
                    left -= waiter.messages_max.min(left);
                    for earlier in &list.waiters {
                        let equal = earlier.messages_max == waiter.messages_max
                            && earlier.fill == waiter.fill
                            && earlier.deadline <= waiter.deadline;
                        prop_assert!(!(equal && earlier.tag < waiter.tag), "overtaken by an equal");
                    }
                }
                for waiter in &list.waiters {
                    prop_assert!(waiter.deadline > now);
                    prop_assert!(plan.again_at.is_some_and(|at| at <= waiter.deadline));
                }
                seen.extend(plan.serve.iter().chain(&plan.answer).map(|waiter| waiter.tag));
            }
            seen.extend(list.waiters.iter().map(|waiter| waiter.tag));
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..wishes.len() as u32).collect::<Vec<_>>());
        }
    }
}
