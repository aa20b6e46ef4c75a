//! Consume: leases, settlements, and what a stream that ends gives back.

use flotilla_gateway::native::protocol::ConsumeRequest;
use flotilla_gateway::native::protocol::consume_request::{Extend, Lease, Settle, settle};
use flotilla_gateway::native::protocol::error::Code;

use crate::consumer::{
    a_lease, a_settle, an_ack, lease, settle, texts, until_available, until_left,
};
use crate::support::{Gateway, fill, unique};

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_settled_one_by_one_or_all_together() {
    let gateway = Gateway::start().await;
    let (queue, other) = (unique("q"), unique("q"));
    fill(&gateway, &queue, 1..11).await;
    let mut consumer = gateway.consume().await;
    let leased = lease(&mut consumer, a_lease(&queue, 6)).await;
    assert_eq!(texts(&leased), ["1", "2", "3", "4", "5", "6"]);
    let id = leased.lease;
    let acked = a_settle(&queue, id, settle::Kind::Ack, &[3, 1, 1, 99]);
    let settled = settle(&mut consumer, acked).await;
    assert_eq!(
        (settled.count, settled.not_held, settled.remaining),
        (2, vec![99], 4)
    );
    let moved = Settle {
        move_to: other.clone(),
        ..a_settle(&queue, id, settle::Kind::Move, &[5])
    };
    assert_eq!(settle(&mut consumer, moved).await.count, 1);
    let rejected = a_settle(&queue, id, settle::Kind::Reject, &[]);
    let settled = settle(&mut consumer, rejected).await;
    assert_eq!((settled.count, settled.remaining), (3, 0));
    // What was rejected is at its old place, before what nobody had.
    let leased = lease(&mut consumer, a_lease(&queue, 10)).await;
    assert_eq!(texts(&leased), ["2", "4", "6", "7", "8", "9", "10"]);
    assert_eq!(leased.messages[0].receive_count, 2);
    let leased = lease(&mut consumer, a_lease(&other, 1)).await;
    assert_eq!(texts(&leased), ["5"]);
    assert_eq!(leased.messages[0].moved_from, queue);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_held_goes_back_when_it_ends() {
    let gateway = Gateway::start().await;
    let queue = unique("q");
    fill(&gateway, &queue, 1..5).await;
    for ends_well in [true, false] {
        let mut consumer = gateway.consume().await;
        let leased = lease(&mut consumer, a_lease(&queue, 10)).await;
        assert_eq!(texts(&leased), ["1", "2", "3", "4"]);
        if ends_well {
            consumer.half_close();
            consumer.end().await.unwrap();
        }
        drop(consumer);
        until_available(&gateway, &queue, 4).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_the_client_left_does_not_come_back() {
    let gateway = Gateway::start().await;
    let queue = unique("q");
    fill(&gateway, &queue, 1..4).await;
    let mut consumer = gateway.consume().await;
    let leased = lease(&mut consumer, a_lease(&queue, 2)).await;
    consumer.say(an_ack(&queue, leased.lease)).await;
    consumer.half_close();
    assert_eq!(consumer.hear().await.settled[0].count, 2);
    consumer.end().await.unwrap();
    let mut consumer = gateway.consume().await;
    let leased = lease(&mut consumer, a_lease(&queue, 10)).await;
    assert_eq!(texts(&leased), ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_settle_themselves_are_gone_once_they_were_read() {
    let gateway = Gateway::start().await;
    let queue = unique("q");
    fill(&gateway, &queue, 1..4).await;
    let mut consumer = gateway.consume().await;
    let wanted = Lease {
        auto_ack: true,
        ..a_lease(&queue, 10)
    };
    let leased = lease(&mut consumer, wanted).await;
    assert_eq!((texts(&leased).len(), leased.lease), (3, 0));
    until_left(&gateway, &queue, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_waits_and_others_are_answered_meanwhile() {
    let gateway = Gateway::start().await;
    let (idle, queue) = (unique("idle"), unique("q"));
    fill(&gateway, &queue, 1..3).await;
    let mut consumer = gateway.consume().await;
    let waits = ConsumeRequest {
        leases: vec![
            Lease {
                request: 8,
                ..a_lease(&idle, 1)
            },
            Lease {
                request: 9,
                ..a_lease(&queue, 10)
            },
        ],
        ..ConsumeRequest::default()
    };
    let answer = consumer.ask(waits).await;
    assert_eq!((answer.leased.len(), answer.leased[0].request), (1, 9));
    fill(&gateway, &idle, 5..6).await;
    let answer = consumer.hear().await;
    assert_eq!(answer.leased[0].request, 8);
    assert_eq!(texts(&answer.leased[0]), ["5"]);
    let nothing = Lease {
        wait_ms: 0,
        ..a_lease(&idle, 1)
    };
    let leased = lease(&mut consumer, nothing).await;
    assert!(leased.messages.is_empty());
    assert_eq!(leased.lease, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_back_when_their_time_is_over_unless_it_was_extended() {
    let gateway = Gateway::start().await;
    let (queue, kept) = (unique("q"), unique("q"));
    fill(&gateway, &queue, 1..2).await;
    fill(&gateway, &kept, 1..2).await;
    let mut consumer = gateway.consume().await;
    let short = |queue: &str| Lease {
        visibility_ms: 2_000,
        ..a_lease(queue, 1)
    };
    let held = lease(&mut consumer, short(&kept)).await;
    let extended = ConsumeRequest {
        extends: vec![Extend {
            request: 4,
            queue: kept.clone(),
            lease: held.lease,
            visibility_ms: 3_600_000,
            ..Extend::default()
        }],
        ..ConsumeRequest::default()
    };
    assert_eq!(consumer.ask(extended).await.extended[0].request, 4);
    let lost = lease(&mut consumer, short(&queue)).await;
    let again = lease(&mut consumer, a_lease(&queue, 1)).await;
    assert_eq!(again.messages[0].receive_count, 2);
    let answer = consumer.ask(an_ack(&queue, lost.lease)).await;
    let error = answer.failed[0].error.clone().unwrap();
    assert_eq!(error.code(), Code::StaleLease);
    let acked = a_settle(&kept, held.lease, settle::Kind::Ack, &[]);
    assert_eq!(settle(&mut consumer, acked).await.count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_fail_alone() {
    let gateway = Gateway::start().await;
    let queue = unique("q");
    fill(&gateway, &queue, 1..2).await;
    let mut consumer = gateway.consume().await;
    let request = ConsumeRequest {
        leases: vec![
            Lease {
                request: 10,
                ..a_lease("", 1)
            },
            Lease {
                request: 11,
                ..a_lease(&queue, 4_097)
            },
            Lease {
                request: 12,
                wait_ms: 3_600_001,
                ..a_lease(&queue, 1)
            },
            Lease {
                request: 13,
                ..a_lease(&queue, 1)
            },
        ],
        settles: vec![Settle {
            request: 14,
            kind: 3,
            ..a_settle(&queue, 1, settle::Kind::Ack, &[])
        }],
        extends: vec![Extend {
            request: 15,
            queue: queue.clone(),
            lease: 1,
            ..Extend::default()
        }],
    };
    consumer.say(request).await;
    let (mut failed, mut leased) = (Vec::new(), Vec::new());
    while failed.len() + leased.len() < 6 {
        let answer = consumer.hear().await;
        failed.extend(answer.failed);
        leased.extend(answer.leased);
    }
    assert_eq!(leased.len(), 1);
    assert_eq!((leased[0].request, leased[0].messages.len()), (13, 1));
    failed.sort_by_key(|failed| failed.request);
    let told: Vec<(u64, String)> = failed
        .into_iter()
        .map(|failed| (failed.request, failed.error.unwrap().text))
        .collect();
    let expected = [
        (10, "a queue name must not be empty"),
        (11, "messages_max is 4097, 1 to 4096 are allowed"),
        (12, "wait_ms is 3600001, at most 3600000 are allowed"),
        (
            14,
            "kind is 3, ACK (0), REJECT (1) and MOVE (2) are allowed",
        ),
        (15, "visibility_ms is 0, at least 1 is allowed"),
    ]
    .map(|(request, text)| (request, text.to_owned()));
    assert_eq!(told, expected);
}
