//! Topics.

use super::*;
use crate::history::{Read, TopicHistory};

const TOPIC: &str = "topic";

/// Two producers, three messages each in turn, all acknowledged except the second one of producer
/// 2, which is not there; read whole from two nodes, followed by one reader in two subscriptions.
fn faithful() -> History {
    let mut topic = TopicHistory::default();
    let mut log = Vec::new();
    for round in 0..3 {
        for producer in 1..=2 {
            let mut sent = send(producer, round + 1, 10 * round + u64::from(producer));
            sent.acknowledged = (producer, round) != (2, 1);
            if sent.acknowledged {
                log.push(sent.name);
            }
            topic.sends.push(sent);
        }
    }
    for (reader, first, whole) in [(1, 1, true), (2, 1, true), (3, 1, false), (4, 3, false)] {
        for (sequence, name) in (1..).zip(&log).skip(first - 1) {
            topic.reads.push(Read {
                reader: HoldId(reader),
                from: first as u64,
                node: reader as u32,
                at: ms(100 + sequence),
                sequence,
                name: *name,
                intact: true,
                whole,
            });
        }
    }
    // The first subscription of the follower broke off.
    topic
        .reads
        .retain(|read| read.reader != HoldId(3) || read.sequence < 3);
    let mut history = History::default();
    *history.topic(TOPIC) = topic;
    history
}

/// What is found after a change of the faithful history.
fn found(change: impl Fn(&mut TopicHistory)) -> Vec<Violation> {
    let mut history = faithful();
    change(history.topic(TOPIC));
    violations(&history)
}

fn edit(topic: &mut TopicHistory, readers: &[u64], sequence: u64, change: impl Fn(&mut Read)) {
    for read in &mut topic.reads {
        if readers.contains(&read.reader.0) && read.sequence == sequence {
            change(read);
        }
    }
}

/// Takes a sequence out of the log, for all readers.
fn remove(topic: &mut TopicHistory, sequence: u64) {
    topic.reads.retain(|read| read.sequence != sequence);
    for read in &mut topic.reads {
        read.sequence -= u64::from(read.sequence > sequence);
        read.from -= u64::from(read.from > sequence);
    }
}

const ALL: [u64; 4] = [1, 2, 3, 4];

#[test]
fn a_faithful_topic_passes() {
    assert_eq!(violations(&faithful()), []);
}

#[test]
fn an_unacknowledged_event_may_be_there_once() {
    let insert = |topic: &mut TopicHistory| {
        for read in &mut topic.reads {
            read.sequence += u64::from(read.sequence > 3);
            read.from += u64::from(read.from > 3);
        }
        for (reader, from, whole) in [(1, 1, true), (2, 1, true), (4, 3, false)] {
            let before = topic.reads.iter();
            let place = before
                .filter(|read| read.reader == HoldId(reader) && read.sequence < 4)
                .count();
            let first = topic
                .reads
                .iter()
                .position(|read| read.reader == HoldId(reader));
            let read = Read {
                reader: HoldId(reader),
                from,
                node: 1,
                at: ms(104),
                sequence: 4,
                name: name(2, 2),
                intact: true,
                whole,
            };
            topic.reads.insert(first.unwrap() + place, read);
        }
    };
    assert_eq!(found(insert), []);
    let twice = found(|topic| {
        insert(topic);
        edit(topic, &[1, 2, 4], 6, |read| read.name = name(2, 2));
    });
    let repeated = Violation::Repeated {
        name: name(2, 2),
        count: 2,
    };
    assert!(twice.contains(&repeated), "{twice:?}");
}

#[test]
fn a_lost_event_is_found() {
    let lost = found(|topic| remove(topic, 3));
    assert_eq!(lost, [Violation::Lost(name(1, 2))]);
}

#[test]
fn a_topic_that_nobody_read_whole_is_not_taken_for_checked() {
    let unread = found(|topic| topic.reads.retain(|read| !read.whole));
    assert_eq!(unread, [Violation::NotRead]);
}

#[test]
fn an_event_that_nobody_sent_is_found() {
    let invented = found(|topic| edit(topic, &ALL, 5, |read| read.name = name(9, 9)));
    assert!(invented.contains(&Violation::Invented(name(9, 9))));
    // Also if only a follower saw it.
    let invented = found(|topic| edit(topic, &[4], 5, |read| read.name = name(9, 9)));
    assert!(invented.contains(&Violation::Invented(name(9, 9))));
}

#[test]
fn other_bytes_are_found_whoever_reads_them() {
    for reader in ALL {
        let sequence = if reader == 4 { 4 } else { 2 };
        let damaged = found(|topic| edit(topic, &[reader], sequence, |read| read.intact = false));
        let name = if reader == 4 { name(1, 3) } else { name(2, 1) };
        assert_eq!(damaged, [Violation::Damaged(name)]);
    }
}

#[test]
fn a_gap_in_a_subscription_is_found() {
    let gap = found(|topic| {
        topic
            .reads
            .retain(|read| (read.reader, read.sequence) != (HoldId(4), 4));
    });
    assert_eq!(
        gap,
        [Violation::Sequence {
            before: 3,
            found: 5
        }]
    );
    let late = found(|topic| {
        topic
            .reads
            .retain(|read| (read.reader, read.sequence) != (HoldId(4), 3));
    });
    assert_eq!(
        late,
        [Violation::Sequence {
            before: 2,
            found: 4
        }]
    );
}

#[test]
fn a_repeat_in_a_subscription_is_found() {
    let repeat = found(|topic| {
        let last = topic.reads.last().unwrap().clone();
        topic.reads.push(last);
    });
    assert_eq!(
        repeat,
        [Violation::Sequence {
            before: 5,
            found: 5
        }]
    );
}

#[test]
fn nodes_that_disagree_are_found() {
    let swapped = found(|topic| {
        edit(topic, &[2], 1, |read| read.name = name(2, 1));
        edit(topic, &[2], 2, |read| read.name = name(1, 1));
    });
    assert_eq!(swapped.len(), 2);
    assert!(swapped.contains(&Violation::Changed {
        sequence: 1,
        first: name(2, 1),
        later: Some(name(1, 1)),
    }));
    let shorter = found(|topic| {
        topic
            .reads
            .retain(|read| (read.reader, read.sequence) != (HoldId(2), 5));
    });
    assert_eq!(
        shorter,
        [Violation::Changed {
            sequence: 5,
            first: name(2, 3),
            later: None,
        }]
    );
}

#[test]
fn an_event_that_a_follower_saw_and_that_vanished_is_found() {
    let vanished = found(|topic| {
        let mut last = topic.reads.last().unwrap().clone();
        last.sequence = 6;
        last.name = name(2, 2);
        topic.reads.push(last);
    });
    assert_eq!(
        vanished,
        [Violation::Changed {
            sequence: 6,
            first: name(2, 2),
            later: None,
        }]
    );
}

#[test]
fn events_of_a_producer_out_of_order_are_found() {
    // Of one batch, so that the clock says nothing.
    let swapped = found(|topic| {
        for sent in &mut topic.sends {
            (sent.invoked, sent.answered) = (ms(0), ms(50));
        }
        edit(topic, &ALL, 1, |read| read.name = name(1, 2));
        edit(topic, &ALL, 3, |read| read.name = name(1, 1));
    });
    assert_eq!(
        swapped,
        [Violation::OutOfOrder {
            earlier: name(1, 1),
            later: name(1, 2),
        }]
    );
}

#[test]
fn an_event_before_one_that_was_acknowledged_before_it_was_sent_is_found() {
    let swapped = found(|topic| {
        edit(topic, &ALL, 2, |read| read.name = name(1, 2));
        edit(topic, &ALL, 3, |read| read.name = name(2, 1));
    });
    assert_eq!(
        swapped,
        [Violation::AgainstTime {
            first: name(2, 1),
            then: name(1, 2),
        }]
    );
}
