//! What is promised of messages that were leased and then reached no consumer.

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::outcome::*;

use crate::harness::*;

const PAUSE_MS: u64 = 30_000;

/// A shard in which messages can be withdrawn.
fn shard() -> Shard {
    let mut shard = Shard::new();
    let raised = shard.run(Command::RaiseFeatureLevel { to: 4 });
    assert_eq!(raised, Outcome::Done);
    shard
}

/// Messages that may be delivered so often; then they are dead letters of their own queue.
fn limited(receive_count_max: u32) -> QueuePolicy {
    QueuePolicy {
        receive_count_max,
        dead_letter: Some(jobs()),
        ..QueuePolicy::default()
    }
}

/// What the next lease of all that is there gives: sequences, and how often they were received.
fn received(shard: &mut Shard) -> Vec<(u64, u32)> {
    let (_, messages) = shard.lease(&jobs(), 100);
    let shown = messages.iter();
    shown
        .map(|message| (message.sequence.0, message.receive_count))
        .collect()
}

#[test]
fn a_withdrawn_message_is_where_it_was_as_if_it_had_not_been_leased() {
    let mut shard = shard();
    shard.run(enqueue(&jobs(), 3, limited(1)));
    for _ in 0..5 {
        let (lease, held) = shard.lease(&jobs(), 2);
        assert_eq!((held.len(), held[0].receive_count), (2, 1));
        let withdrawn = shard.run(settle(lease, Settlement::Withdraw { pause_ms: 0 }));
        assert!(matches!(withdrawn, Outcome::Settled { count: 2, .. }));
    }
    assert_eq!(received(&mut shard), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(shard.queue(&jobs()).dead_lettered_total, 0);
}

#[test]
fn what_a_session_leased_that_nobody_got_anything_under_was_never_delivered() {
    let mut shard = shard();
    shard.run(enqueue(&jobs(), 400, limited(1)));
    for _ in 0..200 {
        let (_, held) = shard.lease(&jobs(), 1);
        assert_eq!(held[0].receive_count, 1);
    }
    let session = session(1);
    let withdrawn = shard.run(Command::WithdrawSession { session });
    assert_eq!(withdrawn, Outcome::Done);
    let at_once = shard.queue(&jobs()).available;
    assert!((201..400).contains(&at_once), "{at_once} came back at once");
    shard.settle_down();
    assert_eq!(shard.stats().leases, 0);
    let (_, messages) = shard.lease(&jobs(), 400);
    let expected = (1..=400).map(|sequence| (sequence, 1));
    let shown = messages.iter();
    assert!(
        shown
            .map(|message| (message.sequence.0, message.receive_count))
            .eq(expected)
    );
    assert_eq!(shard.queue(&jobs()).dead_lettered_total, 0);
}

#[test]
fn a_message_withdrawn_for_a_while_does_not_hold_up_those_behind_it() {
    let mut shard = shard();
    shard.run(enqueue(&jobs(), 3, limited(1)));
    let (lease, _) = shard.lease(&jobs(), 1);
    shard.run(settle(lease, Settlement::Withdraw { pause_ms: PAUSE_MS }));
    assert_eq!(shard.queue(&jobs()).delayed, 1);
    assert_eq!(received(&mut shard), [(2, 1), (3, 1)]);
    shard.now += PAUSE_MS;
    shard.tick();
    assert_eq!(received(&mut shard), [(4, 1)], "at the tail, and uncounted");
}

#[test]
fn a_postponed_message_was_delivered_and_comes_again_after_its_pause() {
    let mut shard = shard();
    shard.run(enqueue(&jobs(), 1, limited(2)));
    let (lease, _) = shard.lease(&jobs(), 1);
    shard.run(settle(lease, Settlement::Postpone { pause_ms: PAUSE_MS }));
    shard.now += PAUSE_MS - 1;
    shard.tick();
    assert_eq!(received(&mut shard), []);
    shard.now += 1;
    shard.tick();
    let (lease, held) = shard.lease(&jobs(), 1);
    assert_eq!((held[0].sequence, held[0].receive_count), (Sequence(2), 2));
    // That was the last one that it may have: it does not wait once more.
    shard.run(settle(lease, Settlement::Postpone { pause_ms: PAUSE_MS }));
    let queue = shard.queue(&jobs());
    assert_eq!((queue.dead_lettered_total, queue.delayed), (1, 0));
}

#[test]
fn a_message_that_expires_while_it_waits_is_never_delivered() {
    let mut shard = shard();
    let policy = QueuePolicy {
        ttl_ms: Some(PAUSE_MS / 2),
        ..QueuePolicy::default()
    };
    shard.run(enqueue(&jobs(), 1, policy));
    let (lease, _) = shard.lease(&jobs(), 1);
    shard.run(settle(lease, Settlement::Withdraw { pause_ms: PAUSE_MS }));
    shard.now += PAUSE_MS;
    shard.settle_down();
    assert_eq!(received(&mut shard), []);
    let queue = shard.queue(&jobs());
    assert_eq!((queue.expired_total, queue.delayed), (1, 0));
    assert_eq!(shard.stats().live_bytes, 0);
}

#[test]
fn nothing_is_withdrawn_before_the_shard_has_the_level_for_it() {
    let mut shard = Shard::new();
    shard.run(Command::RaiseFeatureLevel { to: 2 });
    shard.run(plain(1));
    let (lease, _) = shard.lease(&jobs(), 1);
    for how in [
        Settlement::Withdraw { pause_ms: 0 },
        Settlement::Postpone { pause_ms: 1 },
    ] {
        let refused = shard.run(settle(lease, how));
        assert!(matches!(refused, Outcome::Refused(Refusal::Invalid { .. })));
    }
    assert_eq!(shard.queue(&jobs()).leased, 1);
}
