//! Compares what was acknowledged with what is there, and names every broken promise.
//!
//! An acknowledged message must be there exactly once, intact, and in its producer's order. One whose
//! send was answered with an error may be there once or not at all, at any place, since the answer
//! says nothing about when it was stored.

use crate::journal::{Attempt, Consumed, Seen, Start};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A message by what its producer calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub producer: u32,
    pub number: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "message {} of producer {}",
            self.number, self.producer
        )
    }
}

impl Seen {
    pub fn name(&self) -> Name {
        Name {
            producer: self.producer,
            number: self.number,
        }
    }
}

/// One broken promise on one channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("{0} was acknowledged and is not there")]
    Lost(Name),
    #[error("{name} is there {count} times")]
    Repeated { name: Name, count: usize },
    #[error("{0} is there and was never sent")]
    Invented(Name),
    #[error("{0} is not what was sent")]
    Damaged(Name),
    #[error("{later} is there before {earlier}")]
    OutOfOrder { earlier: Name, later: Name },
    #[error("sequence {found} follows {before}")]
    Sequence { before: u64, found: u64 },
    #[error("{0} came back after its removal was acknowledged")]
    CameBack(Name),
    #[error("sequence {sequence} was first {first} and later {later:?}")]
    Changed {
        sequence: u64,
        first: Name,
        later: Option<Name>,
    },
    #[error("{then} was sent when {first} was acknowledged already, and comes before it")]
    AgainstTime { first: Name, then: Name },
    #[error("nobody read all of it at the end: there is nothing to check")]
    NotRead,
    #[error("consumer {second} got {name} while consumer {first} held it")]
    TwoHolders { name: Name, first: u32, second: u32 },
    #[error("delivery {count} of {name} was made {times} times")]
    SameDelivery {
        name: Name,
        count: u32,
        times: usize,
    },
    #[error("delivery {later} of {name} was seen before delivery {earlier}")]
    DeliveryOrder {
        name: Name,
        earlier: u32,
        later: u32,
    },
    #[error("{name} was delivered {count} times, {allowed} are allowed")]
    TooManyDeliveries {
        name: Name,
        count: u32,
        allowed: u32,
    },
    #[error("{name} became a dead letter after {count} of {allowed} deliveries")]
    DeadTooEarly {
        name: Name,
        count: u32,
        allowed: u32,
    },
    #[error("a subscription {kind} {value} began with {found:?} instead of {wanted:?}")]
    Start {
        kind: String,
        value: u64,
        found: Vec<u64>,
        wanted: Vec<u64>,
    },
}

impl Violation {
    /// What kind it is, in one word.
    pub fn kind(&self) -> String {
        let shown = format!("{self:?}");
        let word = shown.split(|letter: char| !letter.is_alphanumeric()).next();
        word.unwrap_or_default().to_owned()
    }
}

/// A log that was read from its first entry: nothing is ever removed from it.
pub fn check_topic(attempts: &[Attempt], read: &[Seen]) -> Vec<Violation> {
    let mut violations = dense_sequences(read, 1);
    violations.extend(exactly_once(attempts, read));
    violations.extend(producer_order(attempts, read));
    violations
}

/// A queue that nobody consumed from until it was drained at the end.
pub fn check_untouched_queue(attempts: &[Attempt], drained: &[Seen]) -> Vec<Violation> {
    check_topic(attempts, drained)
}

/// A queue with one consumer, drained at the end: nothing acknowledged is missing, and nothing comes
/// back once its removal has taken effect.
pub fn check_consumed_queue(
    attempts: &[Attempt],
    consumed: &[Consumed],
    drained: &[Seen],
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    let mut unconfirmed = BTreeSet::new();
    let mut removed = BTreeSet::new();
    for event in consumed {
        match event {
            Consumed::Received(message) => {
                if removed.contains(&message.name()) {
                    violations.push(Violation::CameBack(message.name()));
                }
                violations.extend(damage(message));
                seen.insert(message.name());
                unconfirmed.insert(message.name());
            }
            Consumed::Confirmed => removed.append(&mut unconfirmed),
        }
    }
    violations.extend(drained.iter().filter_map(damage));
    violations.extend(increasing_sequences(drained));
    violations.extend(nothing_repeated(drained));
    for message in drained {
        if removed.contains(&message.name()) {
            violations.push(Violation::CameBack(message.name()));
        }
        seen.insert(message.name());
    }
    violations.extend(nothing_invented(attempts, &seen));
    violations.extend(nothing_lost(attempts, &seen));
    violations
}

/// A queue that one producer purged again and again: what a purge confirmed stays away, and what was
/// sent after the last purge, which may have removed anything before it, is there.
pub fn check_purged_queue(
    attempts: &[Attempt],
    removed: &BTreeSet<u64>,
    purged_up_to: u64,
    drained: &[Seen],
) -> Vec<Violation> {
    let mut violations: Vec<_> = drained.iter().filter_map(damage).collect();
    violations.extend(increasing_sequences(drained));
    violations.extend(nothing_repeated(drained));
    let there: BTreeSet<Name> = drained.iter().map(Seen::name).collect();
    violations.extend(nothing_invented(attempts, &there));
    let came_back = there.iter().filter(|name| removed.contains(&name.number));
    violations.extend(came_back.map(|name| Violation::CameBack(*name)));
    let after: Vec<Attempt> = attempts
        .iter()
        .filter(|attempt| attempt.number > purged_up_to)
        .copied()
        .collect();
    violations.extend(nothing_lost(&after, &there));
    violations
}

/// What a subscriber saw while the load ran: without a gap, and the same as what is there at the end.
pub fn check_tail(tail: &[Seen], read: &[Seen]) -> Vec<Violation> {
    let mut violations = dense_sequences(tail, 1);
    violations.extend(unchanged(tail, read));
    violations
}

/// What was seen is what is there under the same sequence.
pub(crate) fn unchanged(tail: &[Seen], read: &[Seen]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let at_end: BTreeMap<u64, Name> = read
        .iter()
        .map(|seen| (seen.sequence, seen.name()))
        .collect();
    for seen in tail {
        let later = at_end.get(&seen.sequence).copied();
        if later != Some(seen.name()) {
            let (sequence, first) = (seen.sequence, seen.name());
            violations.push(Violation::Changed {
                sequence,
                first,
                later,
            });
        }
    }
    violations
}

/// The first entries of a subscription from each start position, against the whole log.
pub fn check_starts(starts: &[Start], last: u64) -> Vec<Violation> {
    let mut violations = Vec::new();
    for Start {
        kind,
        value,
        sequences,
    } in starts
    {
        let count = sequences.len() as u64;
        let first = match kind.as_str() {
            "first" => 1,
            "sequence" | "time" => *value,
            "last" => last,
            _ => 0,
        };
        let wanted: Vec<u64> = (first..=last).take(count.max(1) as usize).collect();
        if *sequences != wanted {
            violations.push(Violation::Start {
                kind: kind.clone(),
                value: *value,
                found: sequences.clone(),
                wanted,
            });
        }
    }
    violations
}

pub(crate) fn damage(seen: &Seen) -> Option<Violation> {
    (!seen.intact).then(|| Violation::Damaged(seen.name()))
}

/// From `first` on without a gap or a repeat.
pub(crate) fn dense_sequences(read: &[Seen], first: u64) -> Vec<Violation> {
    let mut before = first - 1;
    let mut violations = Vec::new();
    for seen in read {
        if seen.sequence != before + 1 {
            violations.push(Violation::Sequence {
                before,
                found: seen.sequence,
            });
        }
        before = seen.sequence;
    }
    violations
}

fn increasing_sequences(drained: &[Seen]) -> Vec<Violation> {
    drained
        .windows(2)
        .filter(|pair| pair[1].sequence <= pair[0].sequence)
        .map(|pair| Violation::Sequence {
            before: pair[0].sequence,
            found: pair[1].sequence,
        })
        .collect()
}

fn exactly_once(attempts: &[Attempt], read: &[Seen]) -> Vec<Violation> {
    let there: BTreeSet<Name> = read.iter().map(Seen::name).collect();
    let mut violations: Vec<_> = read.iter().filter_map(damage).collect();
    violations.extend(nothing_repeated(read));
    violations.extend(nothing_invented(attempts, &there));
    violations.extend(nothing_lost(attempts, &there));
    violations
}

fn nothing_repeated(read: &[Seen]) -> Vec<Violation> {
    let mut counts: BTreeMap<Name, usize> = BTreeMap::new();
    for seen in read {
        *counts.entry(seen.name()).or_default() += 1;
    }
    counts
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(name, count)| Violation::Repeated { name, count })
        .collect()
}

pub(crate) fn nothing_invented(attempts: &[Attempt], there: &BTreeSet<Name>) -> Vec<Violation> {
    let sent: BTreeSet<Name> = attempts.iter().map(name_of).collect();
    there
        .difference(&sent)
        .map(|name| Violation::Invented(*name))
        .collect()
}

fn nothing_lost(attempts: &[Attempt], there: &BTreeSet<Name>) -> Vec<Violation> {
    attempts
        .iter()
        .filter(|attempt| attempt.acknowledged && !there.contains(&name_of(attempt)))
        .map(|attempt| Violation::Lost(name_of(attempt)))
        .collect()
}

pub(crate) fn producer_order(attempts: &[Attempt], read: &[Seen]) -> Vec<Violation> {
    let acknowledged: BTreeSet<Name> = attempts
        .iter()
        .filter(|attempt| attempt.acknowledged)
        .map(name_of)
        .collect();
    let mut newest: BTreeMap<u32, Name> = BTreeMap::new();
    let mut violations = Vec::new();
    for name in read
        .iter()
        .map(Seen::name)
        .filter(|name| acknowledged.contains(name))
    {
        let newest = newest.entry(name.producer).or_insert(name);
        if name.number < newest.number {
            violations.push(Violation::OutOfOrder {
                earlier: name,
                later: *newest,
            });
        }
        *newest = (*newest).max(name);
    }
    violations
}

fn name_of(attempt: &Attempt) -> Name {
    Name {
        producer: attempt.producer,
        number: attempt.number,
    }
}

#[cfg(test)]
mod tests;
