//! The checker must be able to fail: each test breaks one promise and expects exactly its name.

use super::*;

/// Producers 1 and 2 send 1 to 4 each; the third message of producer 2 has an unknown outcome.
fn attempts() -> Vec<Attempt> {
    let numbers = (1..=2).flat_map(|producer| (1..=4).map(move |number| (producer, number)));
    numbers
        .map(|(producer, number)| Attempt {
            producer,
            number,
            acknowledged: (producer, number) != (2, 3),
        })
        .collect()
}

fn seen(sequence: u64, producer: u32, number: u64) -> Seen {
    Seen {
        sequence,
        producer,
        number,
        intact: true,
    }
}

/// What a faithful server would give back, the unknown message left out.
fn faithful() -> Vec<Seen> {
    let order = [(1, 1), (2, 1), (2, 2), (1, 2), (1, 3), (2, 4), (1, 4)];
    order
        .iter()
        .zip(1..)
        .map(|((producer, number), sequence)| seen(sequence, *producer, *number))
        .collect()
}

fn renumber(read: &mut [Seen]) {
    for (seen, sequence) in read.iter_mut().zip(1..) {
        seen.sequence = sequence;
    }
}

fn name(producer: u32, number: u64) -> Name {
    Name { producer, number }
}

#[test]
fn a_faithful_server_passes() {
    assert_eq!(check_topic(&attempts(), &faithful()), []);
}

#[test]
fn an_unknown_message_may_be_there_at_any_place_but_once() {
    let mut read = faithful();
    read.insert(0, seen(0, 2, 3));
    renumber(&mut read);
    assert_eq!(check_topic(&attempts(), &read), []);
    read.push(seen(9, 2, 3));
    assert_eq!(
        check_topic(&attempts(), &read),
        [Violation::Repeated {
            name: name(2, 3),
            count: 2
        }]
    );
}

#[test]
fn a_lost_message_is_found() {
    let mut read = faithful();
    read.remove(3);
    renumber(&mut read);
    assert_eq!(
        check_topic(&attempts(), &read),
        [Violation::Lost(name(1, 2))]
    );
}

#[test]
fn a_repeated_message_is_found() {
    let mut read = faithful();
    read.push(seen(8, 1, 4));
    assert_eq!(
        check_topic(&attempts(), &read),
        [Violation::Repeated {
            name: name(1, 4),
            count: 2
        }]
    );
}

#[test]
fn a_message_nobody_sent_is_found() {
    let mut read = faithful();
    read.push(seen(8, 3, 1));
    assert_eq!(
        check_topic(&attempts(), &read),
        [Violation::Invented(name(3, 1))]
    );
}

#[test]
fn a_damaged_message_is_found() {
    let mut read = faithful();
    read[2].intact = false;
    assert_eq!(
        check_topic(&attempts(), &read),
        [Violation::Damaged(name(2, 2))]
    );
}

#[test]
fn messages_out_of_order_are_found() {
    let mut read = faithful();
    read.swap(3, 4);
    renumber(&mut read);
    assert_eq!(
        check_topic(&attempts(), &read),
        [Violation::OutOfOrder {
            earlier: name(1, 2),
            later: name(1, 3)
        }]
    );
}

#[test]
fn a_gap_and_a_repeat_in_the_sequences_are_found() {
    let mut read = faithful();
    read[6].sequence = 9;
    assert_eq!(
        check_topic(&attempts(), &read),
        [Violation::Sequence {
            before: 6,
            found: 9
        }]
    );
    read[6].sequence = 6;
    assert_eq!(
        check_topic(&attempts(), &read),
        [Violation::Sequence {
            before: 6,
            found: 6
        }]
    );
}

#[test]
fn a_log_that_does_not_begin_at_one_is_found() {
    let mut read = faithful();
    for seen in &mut read {
        seen.sequence += 1;
    }
    assert_eq!(
        check_topic(&attempts(), &read),
        [Violation::Sequence {
            before: 0,
            found: 2
        }]
    );
}

/// Everything but the last two messages is consumed and its removal confirmed.
fn consumed() -> (Vec<Consumed>, Vec<Seen>) {
    let mut left = faithful();
    let mut consumed: Vec<_> = left.drain(..5).map(Consumed::Received).collect();
    consumed.push(Consumed::Confirmed);
    (consumed, left)
}

#[test]
fn a_consumed_queue_passes_with_redelivery_before_the_confirmation() {
    let (mut consumed, left) = consumed();
    consumed.insert(0, consumed[0]);
    assert_eq!(check_consumed_queue(&attempts(), &consumed, &left), []);
}

#[test]
fn a_message_that_comes_back_after_its_removal_is_found() {
    let (mut events, mut left) = consumed();
    let back = seen(5, 1, 1);
    left.insert(0, back);
    assert_eq!(
        check_consumed_queue(&attempts(), &events, &left),
        [Violation::CameBack(name(1, 1))]
    );
    left.remove(0);
    events.push(Consumed::Received(back));
    assert_eq!(
        check_consumed_queue(&attempts(), &events, &left),
        [Violation::CameBack(name(1, 1))]
    );
}

#[test]
fn a_message_lost_from_a_consumed_queue_is_found() {
    let (consumed, mut left) = consumed();
    left.pop();
    assert_eq!(
        check_consumed_queue(&attempts(), &consumed, &left),
        [Violation::Lost(name(1, 4))]
    );
}

#[test]
fn a_purged_message_that_comes_back_is_found() {
    let removed = BTreeSet::from([1, 2]);
    let mut attempts = attempts();
    attempts.retain(|attempt| attempt.producer == 1);
    let left = [seen(3, 1, 3), seen(4, 1, 4)];
    assert_eq!(check_purged_queue(&attempts, &removed, 3, &left), []);
    let back = [seen(2, 1, 2), seen(4, 1, 4)];
    assert_eq!(
        check_purged_queue(&attempts, &removed, 3, &back),
        [Violation::CameBack(name(1, 2))]
    );
    assert_eq!(
        check_purged_queue(&attempts, &removed, 3, &left[..1]),
        [Violation::Lost(name(1, 4))]
    );
}

#[test]
fn a_delivery_that_was_later_replaced_is_found() {
    let read = faithful();
    assert_eq!(check_tail(&read[..4], &read), []);
    let mut tail = read[..4].to_vec();
    tail[3] = seen(4, 2, 3);
    assert_eq!(
        check_tail(&tail, &read),
        [Violation::Changed {
            sequence: 4,
            first: name(2, 3),
            later: Some(name(1, 2))
        }]
    );
}

#[test]
fn a_delivery_that_later_vanished_is_found() {
    let read = faithful();
    assert_eq!(
        check_tail(&read, &read[..6]),
        [Violation::Changed {
            sequence: 7,
            first: name(1, 4),
            later: None
        }]
    );
}

#[test]
fn a_subscription_that_begins_at_the_wrong_place_is_found() {
    let start = |kind: &str, value, sequences: &[u64]| Start {
        kind: kind.to_owned(),
        value,
        sequences: sequences.to_vec(),
    };
    let good = [
        start("first", 0, &[1, 2]),
        start("sequence", 5, &[5, 6, 7]),
        start("time", 4, &[4, 5]),
        start("last", 0, &[7]),
    ];
    assert_eq!(check_starts(&good, 7), []);
    for bad in [
        start("first", 0, &[2, 3]),
        start("sequence", 5, &[5, 7]),
        start("last", 0, &[6]),
        start("sequence", 5, &[]),
    ] {
        assert_eq!(check_starts(&[bad], 7).len(), 1);
    }
}
