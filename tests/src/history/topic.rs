//! What is promised about a topic: every acknowledged event once, in one order that all readers see,
//! with sequences from 1 without a gap.

use super::event::{HoldId, Read, Send, TopicHistory};
use super::order::against_time;
use crate::checker::{
    Name, Violation, check_topic, damage, dense_sequences, nothing_invented, unchanged,
};
use crate::journal::{Attempt, Seen};
use std::collections::{BTreeMap, BTreeSet};

/// Every broken promise of a topic.
pub fn check(topic: &TopicHistory) -> Vec<Violation> {
    let attempts: Vec<Attempt> = topic.sends.iter().map(Send::attempt).collect();
    let mut subscriptions: BTreeMap<HoldId, Vec<&Read>> = BTreeMap::new();
    for read in &topic.reads {
        subscriptions.entry(read.reader).or_default().push(read);
    }
    let (whole, parts): (Vec<_>, Vec<_>) = subscriptions
        .into_values()
        .partition(|reads| reads[0].whole);
    let mut whole = whole.into_iter().map(|reads| seen(&reads));
    let Some(log) = whole.next() else {
        return vec![Violation::NotRead];
    };
    let mut violations = check_topic(&attempts, &log);
    let order: Vec<Name> = log.iter().map(Seen::name).collect();
    violations.extend(against_time(&topic.sends, &order));
    for other in whole {
        violations.extend(same(&log, &other));
    }
    for part in parts {
        let part_seen = seen(&part);
        violations.extend(dense_sequences(&part_seen, part[0].from));
        violations.extend(part_seen.iter().filter_map(damage));
        let names: BTreeSet<Name> = part_seen.iter().map(Seen::name).collect();
        violations.extend(nothing_invented(&attempts, &names));
        violations.extend(unchanged(&part_seen, &log));
    }
    violations
}

/// Two readers of all of it, from different nodes, saw the same.
fn same(log: &[Seen], other: &[Seen]) -> Vec<Violation> {
    let mut violations: Vec<_> = other.iter().filter_map(damage).collect();
    violations.extend(unchanged(other, log));
    let there: BTreeSet<u64> = other.iter().map(|seen| seen.sequence).collect();
    let missing = log.iter().filter(|seen| !there.contains(&seen.sequence));
    violations.extend(missing.map(|seen| Violation::Changed {
        sequence: seen.sequence,
        first: seen.name(),
        later: None,
    }));
    violations
}

fn seen(reads: &[&Read]) -> Vec<Seen> {
    let seen = reads.iter().map(|read| Seen {
        sequence: read.sequence,
        producer: read.name.producer,
        number: read.name.number,
        intact: read.intact,
    });
    seen.collect()
}
