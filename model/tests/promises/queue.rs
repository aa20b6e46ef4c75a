//! What a queue promises.

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::name::{NAME_BYTES_MAX, Name};
use flotilla_model::outcome::*;
use flotilla_model::query;

use crate::harness::*;

#[test]
fn a_purge_of_any_size_is_complete_when_it_answers() {
    let mut shard = Shard::new();
    for _ in 0..25 {
        shard.run(plain(4_000));
    }
    let (_, held) = shard.lease(&jobs(), 100);
    assert_eq!(held.len(), 100);
    assert_eq!(
        shard.run(Command::Purge { queue: jobs() }),
        Outcome::Purged(99_900)
    );
    assert!(shard.advances > 5, "the lock is given back now and then");
    assert_eq!(
        (shard.queue(&jobs()).available, shard.queue(&jobs()).leased),
        (0, 100)
    );
    assert_eq!(shard.stats().live_bytes, 100 * u64::from(SLOT_BYTES));
}

#[test]
fn the_end_of_a_session_with_many_leases_is_spread_over_entries() {
    let mut shard = Shard::new();
    shard.run(plain(1_000));
    for _ in 0..500 {
        shard.lease(&jobs(), 2);
    }
    assert_eq!(
        shard.run(Command::EndSession {
            session: session(1)
        }),
        Outcome::Done
    );
    let at_once = shard.queue(&jobs()).available;
    assert!((1..1_000).contains(&at_once), "{at_once} released at once");
    shard.settle_down();
    assert_eq!(
        (shard.queue(&jobs()).available, shard.stats().leases),
        (1_000, 0)
    );
    // Back in the old places, under the old sequences.
    let peeked = query::queue_peek(&shard.state, &jobs(), ShardTime(0), 9_999).unwrap();
    assert!(
        peeked
            .iter()
            .map(|message| message.sequence.0)
            .eq(1..=1_000)
    );
}

#[test]
fn what_an_earlier_life_of_a_node_held_is_released_and_it_gets_no_more() {
    let mut shard = Shard::new();
    shard.run(plain(100));
    for _ in 0..90 {
        shard.lease(&jobs(), 1);
    }
    let incarnation = 2;
    shard.run(Command::EndOldSessions {
        node: NodeId(1),
        incarnation,
    });
    shard.settle_down();
    assert_eq!(shard.queue(&jobs()).available, 100);
    assert!(matches!(
        shard.run(lease(&jobs(), session(1), 1)),
        Outcome::Refused(Refusal::Invalid { .. })
    ));
    assert!(matches!(
        shard.run(lease(&jobs(), session(2), 1)),
        Outcome::Leased {
            lease: LeaseId(91),
            ..
        }
    ));
}

#[test]
fn delayed_messages_of_one_moment_come_in_the_order_in_which_they_were_sent() {
    let mut shard = Shard::new();
    let policy = QueuePolicy {
        delay_ms: 500,
        ..QueuePolicy::default()
    };
    for _ in 0..70 {
        shard.run(enqueue(&jobs(), 3_000, policy.clone()));
    }
    shard.now += 499;
    shard.tick();
    assert_eq!(shard.queue(&jobs()).available, 0);
    shard.now += 1;
    assert!(
        shard.settle_down() > 1,
        "an entry's work for timers is bounded"
    );
    let queue = shard.queue(&jobs());
    assert_eq!((queue.available, queue.delayed), (210_000, 0));
    let peeked = query::queue_peek(&shard.state, &jobs(), ShardTime(0), 30_000).unwrap();
    assert!(peeked.is_sorted_by_key(|message| (message.at.index, message.at.slot)));
    // Published when it was due, not when the shard came to it.
    assert_eq!(peeked[0].published, WallTime(1_000_500 * 1_000_000));
}

#[test]
fn nobody_is_shown_what_expired_since_the_last_command() {
    let mut shard = Shard::new();
    let policy = QueuePolicy {
        ttl_ms: Some(777),
        ..QueuePolicy::default()
    };
    shard.run(enqueue(&jobs(), 3, policy));
    let expiry = shard.now + 777;
    let shown = |at| query::queue_peek(&shard.state, &jobs(), ShardTime(at), 9).unwrap();
    assert_eq!(shown(0).len(), 3);
    assert_eq!(shown(expiry - 1).len(), 3);
    assert!(shown(expiry).is_empty());
}

#[test]
fn a_message_is_never_delivered_at_its_expiry() {
    let mut shard = Shard::new();
    let policy = QueuePolicy {
        ttl_ms: Some(777),
        ..QueuePolicy::default()
    };
    shard.run(enqueue(&jobs(), 3, policy));
    shard.now += 776;
    assert_eq!(shard.lease(&jobs(), 1).1.len(), 1);
    // The timer of its bucket comes later than its expiry: the lease must look itself.
    shard.now += 1;
    let outcome = shard.run(lease(&jobs(), session(1), 9));
    assert!(
        matches!(&outcome, Outcome::Leased { messages, expired: 2, .. } if messages.is_empty())
    );
    shard.run(settle(LeaseId(1), Settlement::Release));
    assert_eq!(shard.queue(&jobs()).expired_total, 3);
    assert_eq!(shard.stats().live_bytes, 0);
}

#[test]
fn a_message_can_be_its_own_queues_dead_letter() {
    let mut shard = Shard::new();
    let policy = QueuePolicy {
        receive_count_max: 1,
        dead_letter: Some(jobs()),
        ..QueuePolicy::default()
    };
    shard.run(enqueue(&jobs(), 2, policy));
    let (lease, _) = shard.lease(&jobs(), 2);
    shard.run(settle(lease, Settlement::Return));
    let queue = shard.queue(&jobs());
    assert_eq!(
        (queue.available, queue.leased, queue.dead_lettered_total),
        (2, 0, 2)
    );
    let (_, messages) = shard.lease(&jobs(), 2);
    assert_eq!(messages[0].sequence, Sequence(3));
    assert_eq!(
        (messages[0].receive_count, &messages[0].moved_from),
        (1, &Some(jobs()))
    );
    assert_eq!(messages[0].dead_letter, None);
}

#[test]
fn a_long_name_in_a_policy_is_stored_once() {
    let mut shard = Shard::new();
    let policy = QueuePolicy {
        dead_letter: Some(Name::queue(&"x".repeat(NAME_BYTES_MAX)).unwrap()),
        ..QueuePolicy::default()
    };
    for _ in 0..20 {
        shard.run(enqueue(&jobs(), 50, policy.clone()));
    }
    let bytes: usize = shard
        .state
        .iter()
        .map(|(_, record)| record.encode().len())
        .sum();
    assert!(bytes < 2 * NAME_BYTES_MAX, "{bytes} bytes of state");
}

#[test]
fn an_extended_lease_is_returned_at_its_last_deadline() {
    let mut shard = Shard::new();
    shard.run(plain(1));
    let mut command = lease(&jobs(), session(1), 1);
    if let Command::Lease { visibility_ms, .. } = &mut command {
        *visibility_ms = Some(1_000);
    }
    shard.run(command);
    let extend = |visibility_ms| Command::ExtendLease {
        queue: jobs(),
        session: session(1),
        lease: LeaseId(1),
        visibility_ms,
    };
    shard.now += 900;
    shard.run(extend(1_000));
    shard.now += 900;
    shard.tick();
    assert_eq!(shard.queue(&jobs()).leased, 1);
    // Shorter than before: it takes effect although a later timer is armed.
    shard.run(extend(50));
    shard.now += 50;
    let applied = shard.tick();
    assert_eq!(
        (
            shard.queue(&jobs()).leased,
            shard.queue(&jobs()).returned_total
        ),
        (0, 1)
    );
    assert!(applied.changes.contains(&Change::LeaseEnded {
        name: jobs(),
        lease: LeaseId(1),
        how: Settlement::Return,
    }));
    assert!(matches!(
        shard.run(extend(50)),
        Outcome::Refused(Refusal::StaleLease { .. })
    ));
}

#[test]
fn a_queue_begins_with_its_oldest_message_that_is_ready_or_held() {
    let mut shard = Shard::new();
    let first = |shard: &Shard| {
        let object = shard.queue(&jobs()).object;
        query::queue_first(&shard.state, object).unwrap()
    };
    let late = QueuePolicy {
        delay_ms: 500,
        ..QueuePolicy::default()
    };
    shard.run(enqueue(&jobs(), 1, late));
    assert_eq!(first(&shard), None, "what is not due has no place yet");
    shard.run(plain(100));
    let (held, _) = shard.lease(&jobs(), 40);
    let (other, _) = shard.lease(&jobs(), 10);
    assert_eq!(first(&shard), Some(Sequence(1)));
    shard.run(settle(held, Settlement::Ack));
    assert_eq!(first(&shard), Some(Sequence(41)));
    shard.run(settle(other, Settlement::Return));
    assert_eq!(first(&shard), Some(Sequence(51)));
    shard.run(Command::Purge { queue: jobs() });
    assert_eq!(first(&shard), None);
}
