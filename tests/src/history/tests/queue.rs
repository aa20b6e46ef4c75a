//! Queues.

use super::*;
use crate::history::{Fault, QueueHistory, Settle, Settlement};

const QUEUE: &str = "queue";
const DEAD: &str = "dead";
const ALLOWED: u32 = 3;

fn settle(hold: u64, settlement: Settlement, invoked_ms: u64) -> Settle {
    Settle {
        hold: HoldId(hold),
        settlement,
        invoked: ms(invoked_ms),
        confirmed: Some(ms(invoked_ms + 5)),
    }
}

/// Message 1 is acknowledged at once; 2 is rejected, then acknowledged; 3 is rejected until it is
/// dead; 4 is lost with its consumer's stream and drained; 5 was answered with an error.
fn faithful() -> History {
    let mut history = History::default();
    let queue = history.queue(QUEUE);
    queue.sends = (1..=5).map(|number| send(1, number, 10 * number)).collect();
    queue.sends[4].acknowledged = false;
    queue.receive_count_max = Some(ALLOWED);
    queue.dead_letter = Some(DEAD.to_owned());
    queue.was_drained = true;
    queue.receipts = vec![
        receipt(1, 100, 1, name(1, 1), 1),
        receipt(2, 100, 2, name(1, 2), 1),
        receipt(2, 100, 3, name(1, 3), 1),
        receipt(3, 100, 4, name(1, 4), 1),
        receipt(4, 200, 5, name(1, 2), 2),
        receipt(5, 200, 6, name(1, 3), 2),
        receipt(6, 300, 7, name(1, 3), 3),
    ];
    queue.settles = vec![
        settle(1, Settlement::Acknowledge, 150),
        settle(2, Settlement::Reject, 150),
        settle(4, Settlement::Acknowledge, 250),
        settle(5, Settlement::Reject, 250),
        settle(6, Settlement::Reject, 350),
    ];
    queue.lost.insert(HoldId(3), ms(150));
    queue.drained = vec![receipt(7, 9_000, 4, name(1, 4), 2)];
    let dead = history.queue(DEAD);
    dead.was_drained = true;
    dead.drained = vec![receipt(8, 9_500, 1, name(1, 3), 1)];
    history
}

fn found(change: impl Fn(&mut QueueHistory)) -> Vec<Violation> {
    let mut history = faithful();
    change(history.queue(QUEUE));
    violations(&history)
}

/// Makes another delivery of a message, acknowledged and confirmed.
fn deliver(queue: &mut QueueHistory, hold: u64, at_ms: u64, sequence: u64, of: Name, count: u32) {
    queue
        .receipts
        .push(receipt(hold, at_ms, sequence, of, count));
    queue
        .settles
        .push(settle(hold, Settlement::Acknowledge, at_ms + 5));
}

#[test]
fn a_faithful_queue_passes() {
    assert_eq!(violations(&faithful()), []);
}

#[test]
fn a_queue_that_was_not_drained_is_not_taken_for_checked() {
    let undrained = found(|queue| queue.was_drained = false);
    assert_eq!(undrained, [Violation::NotRead]);
}

#[test]
fn an_unacknowledged_message_may_be_there_once() {
    assert_eq!(found(|queue| deliver(queue, 20, 400, 8, name(1, 5), 1)), []);
    let twice = found(|queue| {
        deliver(queue, 20, 400, 8, name(1, 5), 1);
        deliver(queue, 21, 500, 9, name(1, 5), 1);
    });
    assert!(twice.contains(&Violation::SameDelivery {
        name: name(1, 5),
        count: 1,
        times: 2,
    }));
}

#[test]
fn a_lost_message_is_found() {
    let lost = found(|queue| queue.drained.clear());
    assert_eq!(lost, [Violation::Lost(name(1, 4))]);
    let never_seen = found(|queue| queue.sends.push(send(1, 6, 60)));
    assert_eq!(never_seen, [Violation::Lost(name(1, 6))]);
}

#[test]
fn a_rejected_message_that_vanished_is_found() {
    let mut history = faithful();
    history.queue(DEAD).drained.clear();
    assert_eq!(violations(&history), [Violation::Lost(name(1, 3))]);
}

#[test]
fn a_message_whose_unconfirmed_removal_took_effect_is_not_lost() {
    let unconfirmed = |queue: &mut QueueHistory| queue.settles[0].confirmed = None;
    assert_eq!(found(unconfirmed), []);
    // And it may come back.
    let back = found(|queue| {
        unconfirmed(queue);
        deliver(queue, 20, 6_000, 1, name(1, 1), 2);
    });
    assert_eq!(back, []);
}

#[test]
fn a_message_that_nobody_sent_is_found() {
    let invented = found(|queue| deliver(queue, 20, 400, 8, name(7, 7), 1));
    assert_eq!(invented, [Violation::Invented(name(7, 7))]);
    let mut history = faithful();
    let dead = history.queue(DEAD);
    dead.drained.push(receipt(8, 9_500, 2, name(7, 7), 1));
    assert_eq!(violations(&history), [Violation::Invented(name(7, 7))]);
}

#[test]
fn other_bytes_are_found() {
    let damaged = found(|queue| queue.receipts[4].intact = false);
    assert_eq!(damaged, [Violation::Damaged(name(1, 2))]);
    let damaged = found(|queue| queue.drained[0].intact = false);
    assert_eq!(damaged, [Violation::Damaged(name(1, 4))]);
}

#[test]
fn two_holders_at_a_time_are_found() {
    // Before message 2 was given back, and when its consumer could prove to be the holder.
    let early = found(|queue| queue.receipts[4].at = ms(149));
    let two = Violation::TwoHolders {
        name: name(1, 2),
        first: 2,
        second: 4,
    };
    assert_eq!(early, std::slice::from_ref(&two));
    // A longer one in between does not hide it.
    let hidden = found(|queue| {
        queue.settles[1].invoked = ms(500);
        queue.receipts[4].at = ms(200);
    });
    assert!(hidden.contains(&two), "{hidden:?}");
}

#[test]
fn two_holders_are_found_though_one_lost_its_stream_later() {
    let change = |until: u64| {
        move |queue: &mut QueueHistory| {
            queue.lost.insert(HoldId(3), ms(until));
            queue.drained[0].at = ms(3_000);
        }
    };
    assert_eq!(found(change(3_400)), []);
    let two = Violation::TwoHolders {
        name: name(1, 4),
        first: 3,
        second: 7,
    };
    assert_eq!(found(change(3_600)), std::slice::from_ref(&two));
    // In a fault the broker may give up a consumer that does not know it yet, but not at once.
    let in_fault = |from: u64| {
        let mut history = faithful();
        history.faults.push(Fault {
            what: "cut".to_owned(),
            nodes: vec![1],
            from: ms(from),
            until: ms(9_000),
        });
        change(3_600)(history.queue(QUEUE));
        violations(&history)
    };
    assert_eq!(in_fault(900), []);
    assert_eq!(in_fault(1_100), [two]);
}

#[test]
fn a_delivery_made_twice_is_found() {
    // A deposed leader and its successor grant the same message, each as its second delivery.
    let twice = found(|queue| {
        queue.receipts.push(receipt(20, 8_000, 4, name(1, 4), 2));
        queue.lost.insert(HoldId(20), ms(8_100));
    });
    assert_eq!(
        twice,
        [Violation::SameDelivery {
            name: name(1, 4),
            count: 2,
            times: 2,
        }]
    );
}

#[test]
fn counts_that_go_backwards_are_found() {
    let backwards = found(|queue| {
        queue.receipts[4].receive_count = 1;
        queue.receipts[1].receive_count = 2;
        queue.receipts[4].sequence = 2;
        queue.receipts[1].sequence = 5;
        // Only for the order within one answer.
        queue.receipts.swap(1, 2);
    });
    let order = Violation::DeliveryOrder {
        name: name(1, 2),
        earlier: 1,
        later: 2,
    };
    assert!(backwards.contains(&order), "{backwards:?}");
}

#[test]
fn a_message_that_comes_back_after_its_confirmed_removal_is_found() {
    let back = found(|queue| deliver(queue, 20, 400, 1, name(1, 1), 2));
    assert_eq!(back, [Violation::CameBack(name(1, 1))]);
    let drained = found(|queue| queue.drained.push(receipt(9, 9_100, 1, name(1, 1), 2)));
    assert_eq!(drained, [Violation::CameBack(name(1, 1))]);
}

#[test]
fn a_dead_letter_that_was_also_acknowledged_is_found() {
    let mut history = faithful();
    let dead = history.queue(DEAD);
    dead.drained.push(receipt(8, 9_500, 2, name(1, 1), 1));
    let found = violations(&history);
    assert!(
        found.contains(&Violation::CameBack(name(1, 1))),
        "{found:?}"
    );
}

#[test]
fn more_deliveries_than_allowed_are_found() {
    let often = found(|queue| {
        queue.receipts.push(receipt(20, 400, 8, name(1, 3), 4));
        queue.settles.push(settle(20, Settlement::Reject, 450));
    });
    assert_eq!(
        often,
        [Violation::TooManyDeliveries {
            name: name(1, 3),
            count: 4,
            allowed: ALLOWED,
        }]
    );
}

#[test]
fn a_message_that_died_too_early_is_found() {
    let mut history = faithful();
    let queue = history.queue(QUEUE);
    queue.receipts.retain(|receipt| receipt.hold != HoldId(6));
    let early = Violation::DeadTooEarly {
        name: name(1, 3),
        count: 2,
        allowed: ALLOWED,
    };
    assert_eq!(violations(&history), [early]);
    // Unless its third delivery was lost on its way in a fault.
    history.faults.push(Fault {
        what: "kill".to_owned(),
        nodes: vec![2],
        from: ms(290),
        until: ms(310),
    });
    assert_eq!(violations(&history), []);
}

#[test]
fn a_message_that_died_unseen_without_a_fault_is_found() {
    let mut history = faithful();
    history
        .queue(QUEUE)
        .receipts
        .retain(|receipt| receipt.name != name(1, 3));
    let early = Violation::DeadTooEarly {
        name: name(1, 3),
        count: 0,
        allowed: ALLOWED,
    };
    assert_eq!(violations(&history), [early]);
}

#[test]
fn a_message_that_died_twice_is_found() {
    let mut history = faithful();
    let dead = history.queue(DEAD);
    dead.drained.push(receipt(9, 9_600, 2, name(1, 3), 1));
    assert!(violations(&history).contains(&Violation::SameDelivery {
        name: name(1, 3),
        count: 1,
        times: 2,
    }));
}

#[test]
fn a_sequence_that_was_given_twice_is_found() {
    let twice = found(|queue| queue.receipts[3].sequence = 2);
    assert!(twice.contains(&Violation::Changed {
        sequence: 2,
        first: name(1, 2),
        later: Some(name(1, 4)),
    }));
}

#[test]
fn an_answer_that_is_not_in_the_order_of_the_queue_is_found() {
    let swapped = found(|queue| queue.receipts.swap(1, 2));
    assert_eq!(
        swapped,
        [Violation::Sequence {
            before: 3,
            found: 2
        }]
    );
}

#[test]
fn a_message_that_moved_forwards_is_found() {
    let forwards = found(|queue| {
        queue.receipts[1].sequence = 12;
        queue.receipts[2].sequence = 13;
        queue.receipts[5].sequence = 14;
        queue.receipts[6].sequence = 15;
    });
    assert!(forwards.contains(&Violation::Sequence {
        before: 12,
        found: 5
    }));
}

#[test]
fn messages_of_a_producer_out_of_order_are_found() {
    let swapped = found(|queue| {
        for sent in &mut queue.sends {
            (sent.invoked, sent.answered) = (ms(0), ms(50));
        }
        queue.receipts[0].sequence = 4;
        queue.receipts[3].sequence = 1;
        queue.drained[0].sequence = 1;
    });
    assert!(swapped.contains(&Violation::OutOfOrder {
        earlier: name(1, 2),
        later: name(1, 4),
    }));
}

#[test]
fn a_message_before_one_that_was_acknowledged_before_it_was_sent_is_found() {
    let against = found(|queue| {
        queue.sends.push(send(2, 1, 90));
        deliver(queue, 20, 400, 0, name(2, 1), 1);
    });
    assert!(against.contains(&Violation::AgainstTime {
        first: name(1, 1),
        then: name(2, 1),
    }));
}
