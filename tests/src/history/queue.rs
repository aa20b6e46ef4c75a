//! What is promised about a queue: one holder of a message at a time, nothing comes back after its
//! removal was confirmed, and what was acknowledged is removed once, drained, or a dead letter.

use super::delivery::{Delivery, End, by_message};
use super::event::{Fault, HoldId, Moment, QueueHistory, Receipt, Send};
use super::order::against_time;
use crate::checker::{Name, Violation, nothing_invented, producer_order};
use crate::journal::{Attempt, Seen};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// After a fault leaders move, back to where they were too, and sessions of silent nodes end: an answer on
/// its way then may reach nobody.
const AFTERMATH: Duration = Duration::from_secs(12);

/// A queue with what may get into it and what may leave it.
pub struct Checked<'a> {
    pub queue: &'a QueueHistory,
    /// What was sent to queues whose dead letters come here.
    pub dead_sends: Vec<&'a Send>,
    /// Dead letters of this queue, as they were received: by name, the first moment.
    pub dead: BTreeMap<Name, Moment>,
    pub faults: &'a [Fault],
}

impl Checked<'_> {
    /// Every broken promise.
    pub fn violations(&self) -> Vec<Violation> {
        if !self.queue.was_drained {
            return vec![Violation::NotRead];
        }
        let deliveries = by_message(self.queue);
        let mut violations = self.contents(&deliveries);
        violations.extend(sequences(self.queue));
        for (name, of_message) in &deliveries {
            violations.extend(damaged(*name, of_message));
            violations.extend(self.one_holder(*name, of_message));
            violations.extend(self.removed_once(*name, of_message));
            violations.extend(self.not_too_often(*name, of_message));
        }
        violations.extend(self.died_in_time(&deliveries));
        violations.extend(self.order(&deliveries));
        violations
    }

    /// Everything acknowledged has left in one of the ways it may leave, and nothing else was there.
    fn contents(&self, deliveries: &BTreeMap<Name, Vec<Delivery<'_>>>) -> Vec<Violation> {
        let mut attempts: Vec<Attempt> = self.queue.sends.iter().map(Send::attempt).collect();
        attempts.extend(self.dead_sends.iter().map(|send| Attempt {
            // It need not have died.
            acknowledged: false,
            ..send.attempt()
        }));
        let there: BTreeSet<Name> = deliveries.keys().copied().collect();
        let mut violations = nothing_invented(&attempts, &there);
        for send in self.queue.sends.iter().filter(|send| send.acknowledged) {
            let of_message = deliveries.get(&send.name).map_or(&[][..], Vec::as_slice);
            let has_left = of_message.iter().any(Delivery::may_be_removed);
            if !has_left && !self.dead.contains_key(&send.name) {
                violations.push(Violation::Lost(send.name));
            }
        }
        violations
    }

    fn one_holder(&self, name: Name, of_message: &[Delivery<'_>]) -> Vec<Violation> {
        let mut violations = Vec::new();
        // Of the deliveries before, the one that was held longest.
        let mut holder: Option<(&Delivery<'_>, Moment)> = None;
        for same in of_message.chunk_by(|one, other| count(one) == count(other)) {
            if same.len() > 1 {
                violations.push(Violation::SameDelivery {
                    name,
                    count: count(&same[0]),
                    times: same.len(),
                });
            }
            for delivery in same {
                violations
                    .extend(holder.and_then(|(holder, until)| after(holder, until, delivery)));
            }
            for delivery in same {
                let until = delivery.held_until(self.faults);
                if holder.is_none_or(|(_, longest)| until > longest) {
                    holder = Some((delivery, until));
                }
            }
        }
        violations
    }

    /// A delivery after the one that removed it for certain, or as a dead letter too.
    fn removed_once(&self, name: Name, of_message: &[Delivery<'_>]) -> Vec<Violation> {
        let Some(removal) = of_message.iter().position(Delivery::is_removed) else {
            return Vec::new();
        };
        let removed_at = count(&of_message[removal]);
        let came_back = of_message.iter().any(|later| count(later) > removed_at);
        if came_back || self.dead.contains_key(&name) {
            return vec![Violation::CameBack(name)];
        }
        Vec::new()
    }

    /// No message was delivered more often than it may be.
    fn not_too_often(&self, name: Name, of_message: &[Delivery<'_>]) -> Option<Violation> {
        let allowed = self.queue.receive_count_max?;
        let last = count(of_message.last()?);
        (last > allowed).then_some(Violation::TooManyDeliveries {
            name,
            count: last,
            allowed,
        })
    }

    /// Dead letters were delivered as often as they may be.
    fn died_in_time(&self, deliveries: &BTreeMap<Name, Vec<Delivery<'_>>>) -> Vec<Violation> {
        let Some(allowed) = self.queue.receive_count_max else {
            return Vec::new();
        };
        let mut violations = Vec::new();
        for (name, died) in &self.dead {
            let last = deliveries
                .get(name)
                .and_then(|of_message| of_message.last());
            let (last, seen) = last.map_or((0, Moment(0)), |last| (count(last), last.receipt.at));
            // A delivery that nobody saw is explained by a fault only, or by what it set going.
            let mut faults = self.faults.iter();
            let is_explained =
                faults.any(|fault| fault.from < *died && fault.until.plus(AFTERMATH) > seen);
            if last < allowed && !is_explained {
                violations.push(Violation::DeadTooEarly {
                    name: *name,
                    count: last,
                    allowed,
                });
            }
        }
        violations
    }

    /// Messages were queued in the order in which they were sent, as far as their first sequences
    /// are known.
    fn order(&self, deliveries: &BTreeMap<Name, Vec<Delivery<'_>>>) -> Vec<Violation> {
        let mut queued: Vec<Seen> = deliveries
            .values()
            .filter_map(|of_message| of_message.first())
            .filter(|first| count(first) == 1)
            .map(|first| seen(first.receipt))
            .collect();
        queued.sort_by_key(|seen| seen.sequence);
        let attempts: Vec<Attempt> = self.queue.sends.iter().map(Send::attempt).collect();
        let names: Vec<Name> = queued.iter().map(Seen::name).collect();
        let mut violations = producer_order(&attempts, &queued);
        violations.extend(against_time(&self.queue.sends, &names));
        violations
    }
}

fn count(delivery: &Delivery<'_>) -> u32 {
    delivery.receipt.receive_count
}

/// A delivery that came while an earlier one was held, or was seen before it.
fn after(holder: &Delivery<'_>, until: Moment, delivery: &Delivery<'_>) -> Option<Violation> {
    let (first, second) = (holder.receipt, delivery.receipt);
    if second.at >= first.at && second.at < until {
        return Some(Violation::TwoHolders {
            name: second.name,
            first: first.consumer,
            second: second.consumer,
        });
    }
    // What nobody settled may be seen late; a settled one was seen before the next was made.
    let is_settled = matches!(
        holder.end,
        End::Settled {
            confirmed: Some(_),
            ..
        }
    );
    let earliest = match is_settled {
        true => first.at,
        false => first.at.minus(super::delivery::NOTICED_AFTER),
    };
    (second.at < earliest).then_some(Violation::DeliveryOrder {
        name: second.name,
        earlier: first.receive_count,
        later: second.receive_count,
    })
}

fn damaged(name: Name, of_message: &[Delivery<'_>]) -> Option<Violation> {
    let is_damaged = of_message.iter().any(|delivery| !delivery.receipt.intact);
    is_damaged.then_some(Violation::Damaged(name))
}

/// A sequence is always the same message, and one answer has them ascending.
fn sequences(queue: &QueueHistory) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut names: BTreeMap<u64, Name> = BTreeMap::new();
    let mut last: BTreeMap<HoldId, u64> = BTreeMap::new();
    for receipt in queue.receipts.iter().chain(&queue.drained) {
        let first = *names.entry(receipt.sequence).or_insert(receipt.name);
        if first != receipt.name {
            violations.push(Violation::Changed {
                sequence: receipt.sequence,
                first,
                later: Some(receipt.name),
            });
        }
        let before = last.insert(receipt.hold, receipt.sequence);
        if let Some(before) = before.filter(|before| *before >= receipt.sequence) {
            violations.push(Violation::Sequence {
                before,
                found: receipt.sequence,
            });
        }
    }
    for of_message in by_message(queue).into_values() {
        // It goes to the tail, or back to its place, never forwards.
        let of_message: Vec<u64> = of_message.iter().map(|d| d.receipt.sequence).collect();
        let pairs = of_message.windows(2).filter(|pair| pair[1] < pair[0]);
        violations.extend(pairs.map(|pair| Violation::Sequence {
            before: pair[0],
            found: pair[1],
        }));
    }
    violations
}

fn seen(receipt: &Receipt) -> Seen {
    Seen {
        sequence: receipt.sequence,
        producer: receipt.name.producer,
        number: receipt.name.number,
        intact: receipt.intact,
    }
}
