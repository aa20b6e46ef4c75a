//! Who of a group holds which messages: pure bookkeeping, without I/O and without clock.
//!
//! ```text
//!          low water                         next
//!   settled    |  outstanding, settled, returned |  never handed out
//!  ------------+---------------------------------+------------------->  offsets
//! ```
//!
//! Invariant: every offset from the low-water mark up to `next` is in exactly one of three sets:
//! settled, returned, or outstanding at exactly one member; and the mark itself is not settled.

use std::collections::BTreeMap;

use flotilla_model::ids::Offset;

use crate::topic::ranges::Ranges;

/// Ranges of one position at most: what one `AdvanceCursor` may carry.
const POSITION_RANGES_MAX: usize = 64;

/// A member of a group, or any other reader: dense within the actor's life.
pub(crate) type MemberId = u64;

/// What a group has handed out, what came back, and what is done.
#[derive(Clone, Debug)]
pub(crate) struct GroupLedger {
    low_water: u64,
    next: u64,
    settled: Ranges,
    returned: Ranges,
    outstanding: BTreeMap<MemberId, Ranges>,
}

impl GroupLedger {
    /// A ledger that goes on where the durable cursor stands.
    pub fn new(low_water: Offset, settled: &[(Offset, Offset)]) -> Self {
        let mut ledger = Self {
            low_water: low_water.0,
            next: low_water.0,
            settled: Ranges::default(),
            returned: Ranges::default(),
            outstanding: BTreeMap::new(),
        };
        for (from, to) in settled {
            if from.0 < ledger.next || to < from {
                // Not ascending: what it says cannot be told apart, and delivering twice is allowed.
                continue;
            }
            if from.0 > ledger.next {
                ledger.returned.insert(ledger.next, from.0 - 1);
            }
            ledger.settled.insert(from.0, to.0);
            ledger.next = to.0 + 1;
        }
        ledger.raise();
        ledger
    }

    /// The next offset to hand out: what came back goes first.
    pub fn wanted(&self) -> Offset {
        Offset(self.returned.first().map_or(self.next, |(from, _)| from))
    }

    /// How many offsets from [`Self::wanted`] on may be handed out as one range, at most `most`.
    pub fn stretch(&self, most: u64) -> u64 {
        match self.returned.first() {
            Some((from, to)) => most.min(to - from + 1),
            None => most,
        }
    }

    /// Hands the next `count` offsets to a member; `count` is at most what [`Self::stretch`] says.
    pub fn hand_out(&mut self, member: MemberId, count: u64) {
        if count == 0 {
            return;
        }
        let (from, to) = self.leave_pool(count);
        self.outstanding.entry(member).or_default().insert(from, to);
    }

    /// Settles the next `count` offsets without handing them out: there is nothing to deliver.
    pub fn skip(&mut self, count: u64) {
        let mut left = count;
        while left > 0 {
            let step = self.stretch(left);
            let (from, to) = self.leave_pool(step);
            self.settled.insert(from, to);
            left -= step;
        }
        self.raise();
    }

    /// A member is done with these; what it does not hold is ignored.
    pub fn settle(&mut self, member: MemberId, from: Offset, to: Offset) {
        let Some(held) = self.outstanding.get_mut(&member) else {
            return;
        };
        for (from, to) in held.remove(from.0, to.0) {
            self.settled.insert(from, to);
        }
        self.raise();
    }

    /// A member holds this from before this ledger began; false if another has it or it is done.
    pub fn claim(&mut self, member: MemberId, offset: Offset) -> bool {
        self.open_up(offset.0);
        let free = !self.returned.remove(offset.0, offset.0).is_empty();
        if free {
            let held = self.outstanding.entry(member).or_default();
            held.insert(offset.0, offset.0);
        }
        free
    }

    /// These were done before this ledger began, as far as nobody has them now.
    pub fn finish(&mut self, from: Offset, to: Offset) {
        if from > to {
            return;
        }
        self.open_up(to.0);
        for (from, to) in self.returned.remove(from.0, to.0) {
            self.settled.insert(from, to);
        }
        self.raise();
    }

    /// Counts everything up to an offset as handed out before and returned.
    fn open_up(&mut self, to: u64) {
        if to >= self.next {
            self.returned.insert(self.next, to);
            self.next = to + 1;
        }
    }

    /// A member is gone: what it held is handed out again, lowest first.
    pub fn leave(&mut self, member: MemberId) {
        let Some(held) = self.outstanding.remove(&member) else {
            return;
        };
        for (from, to) in held.iter() {
            self.returned.insert(from, to);
        }
    }

    /// Whether there are messages below others that were handed out, and that nobody has.
    pub fn has_gaps(&self) -> bool {
        !self.returned.is_empty()
    }

    /// What the durable cursor should say: the mark, and what is done above it.
    ///
    /// A position holds a bounded number of ranges. What does not fit is delivered again if all
    /// members are lost, which is what "at least once" permits.
    pub fn position(&self) -> (Offset, Vec<(Offset, Offset)>) {
        let settled = self
            .settled
            .iter()
            .take(POSITION_RANGES_MAX)
            .map(|(from, to)| (Offset(from), Offset(to)))
            .collect();
        (Offset(self.low_water), settled)
    }

    /// Messages that members hold and are not done with.
    pub fn outstanding(&self) -> u64 {
        self.outstanding.values().map(Ranges::count).sum()
    }

    fn leave_pool(&mut self, count: u64) -> (u64, u64) {
        let from = self.wanted().0;
        let to = from + count - 1;
        if self.returned.is_empty() {
            self.next = to + 1;
        } else {
            self.returned.remove(from, to);
        }
        (from, to)
    }

    /// Lifts the mark over what is settled without a gap.
    fn raise(&mut self) {
        if let Some((from, to)) = self.settled.first()
            && from <= self.low_water
        {
            self.settled.remove(from, to);
            self.low_water = to + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Place {
        Settled,
        Returned,
        Held(MemberId),
    }

    #[derive(Clone, Debug)]
    enum Step {
        HandOut {
            member: MemberId,
            count: u64,
        },
        Skip {
            count: u64,
        },
        Settle {
            member: MemberId,
            from: u64,
            more: u64,
        },
        Leave {
            member: MemberId,
        },
        Claim {
            member: MemberId,
            offset: u64,
        },
        Finish {
            from: u64,
            more: u64,
        },
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..3, 1u64..9).prop_map(|(member, count)| Step::HandOut { member, count }),
            1 => (1u64..5).prop_map(|count| Step::Skip { count }),
            4 => (0u64..3, 1u64..60, 0u64..9)
                .prop_map(|(member, from, more)| Step::Settle { member, from, more }),
            1 => (0u64..3).prop_map(|member| Step::Leave { member }),
            1 => (0u64..3, 1u64..70).prop_map(|(member, offset)| Step::Claim { member, offset }),
            1 => (1u64..60, 0u64..9).prop_map(|(from, more)| Step::Finish { from, more }),
            1 => Just(Step::Restart),
        ]
    }

    fn take_lowest(model: &mut BTreeMap<u64, Place>, next: &mut u64, to: Place) -> u64 {
        let returned = model.iter().find(|(_, place)| **place == Place::Returned);
        let offset = returned.map_or(*next, |(offset, _)| *offset);
        if offset == *next {
            *next += 1;
        }
        model.insert(offset, to);
        offset
    }

    fn open_up(model: &mut BTreeMap<u64, Place>, next: &mut u64, to: u64) {
        while *next <= to {
            model.insert(*next, Place::Returned);
            *next += 1;
        }
    }

    proptest! {
        /// Every message is with one member, or done, or waits to be handed out again, lowest first;
        /// the position never covers one that is not done, and a restart loses none.
        #[test]
        fn nothing_is_lost_or_held_twice(steps in prop::collection::vec(step(), 1..80)) {
            let mut ledger = GroupLedger::new(Offset(1), &[]);
            let mut model: BTreeMap<u64, Place> = BTreeMap::new();
            let mut next = 1;
            for step in steps {
                match step {
                    Step::HandOut { member, count } => {
                        let count = ledger.stretch(count);
                        let from = ledger.wanted().0;
                        ledger.hand_out(member, count);
                        for place in 0..count {
                            let taken = take_lowest(&mut model, &mut next, Place::Held(member));
                            prop_assert_eq!(taken, from + place);
                        }
                    }
                    Step::Skip { count } => {
                        ledger.skip(count);
                        for _ in 0..count {
                            take_lowest(&mut model, &mut next, Place::Settled);
                        }
                    }
                    Step::Settle { member, from, more } => {
                        ledger.settle(member, Offset(from), Offset(from + more));
                        for (_, place) in model.range_mut(from..=from + more) {
                            if *place == Place::Held(member) {
                                *place = Place::Settled;
                            }
                        }
                    }
                    Step::Leave { member } => {
                        ledger.leave(member);
                        for place in model.values_mut() {
                            if *place == Place::Held(member) {
                                *place = Place::Returned;
                            }
                        }
                    }
                    Step::Claim { member, offset } => {
                        let low_water = ledger.position().0.0;
                        open_up(&mut model, &mut next, offset);
                        let free = model.get(&offset) == Some(&Place::Returned);
                        prop_assert_eq!(ledger.claim(member, Offset(offset)), free);
                        prop_assert!(!free || offset >= low_water);
                        if free {
                            model.insert(offset, Place::Held(member));
                        }
                    }
                    Step::Finish { from, more } => {
                        open_up(&mut model, &mut next, from + more);
                        ledger.finish(Offset(from), Offset(from + more));
                        for (_, place) in model.range_mut(from..=from + more) {
                            if *place == Place::Returned {
                                *place = Place::Settled;
                            }
                        }
                    }
                    Step::Restart => {
                        let (low_water, settled) = ledger.position();
                        ledger = GroupLedger::new(low_water, &settled);
                        for place in model.values_mut() {
                            if *place != Place::Settled {
                                *place = Place::Returned;
                            }
                        }
                        // What is above the last settled one is fresh again, which delivers the same.
                        let fresh: Vec<u64> = model
                            .iter()
                            .rev()
                            .take_while(|(_, place)| **place == Place::Returned)
                            .map(|(offset, _)| *offset)
                            .collect();
                        for offset in fresh {
                            model.remove(&offset);
                            next = offset;
                        }
                    }
                }
                let low_water = model
                    .iter()
                    .find(|(_, place)| **place != Place::Settled)
                    .map_or(next, |(offset, _)| *offset);
                let (told, settled) = ledger.position();
                prop_assert_eq!(told.0, low_water);
                let told: Vec<u64> = settled.iter().flat_map(|(from, to)| from.0..=to.0).collect();
                let expected: Vec<u64> = model
                    .range(low_water..)
                    .filter(|(_, place)| **place == Place::Settled)
                    .map(|(offset, _)| *offset)
                    .collect();
                prop_assert_eq!(told, expected);
                let held = model.values().filter(|place| matches!(place, Place::Held(_))).count();
                prop_assert_eq!(ledger.outstanding(), held as u64);
                let returned = model.iter().find(|(_, place)| **place == Place::Returned);
                prop_assert_eq!(ledger.wanted().0, returned.map_or(next, |(offset, _)| *offset));
            }
        }
    }

    #[test]
    fn a_position_stays_within_what_one_command_carries() {
        let mut ledger = GroupLedger::new(Offset(1), &[]);
        for member in 0..200 {
            ledger.hand_out(member, 1);
        }
        for member in (1..200).step_by(2) {
            ledger.settle(member, Offset(member + 1), Offset(member + 1));
        }
        let (low_water, settled) = ledger.position();
        assert_eq!(low_water, Offset(1));
        assert_eq!(settled.len(), POSITION_RANGES_MAX);
    }
}
