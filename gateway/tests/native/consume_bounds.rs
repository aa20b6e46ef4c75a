//! Consume: how much of it there may be, and what a client that does not read can do.

use std::time::Duration;

use flotilla_gateway::KubemqConfig;
use flotilla_gateway::native::protocol::consume_request::{Lease, settle};
use flotilla_gateway::native::protocol::error::Code;
use flotilla_gateway::native::protocol::{ConsumeRequest, Record};
use flotilla_model::name::Name;

use crate::consumer::{a_lease, a_settle, an_ack, lease, settle, texts, until_left};
use crate::support::{Gateway, Talk, a_sending, fill, side, soon, unique, until_held_back};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_acknowledged_with_its_last_words_does_not_come_back() {
    // A lease that waits is all that may be under way: what comes after it is not begun before the end.
    let gateway = Gateway::with(KubemqConfig {
        requests_in_flight_max: 1,
        ..KubemqConfig::default()
    })
    .await;
    let (queue, idle) = (unique("q"), unique("idle"));
    fill(&gateway, &queue, 1..4).await;
    let mut client = gateway.client().await;
    let (requests, stream) = side();
    let answers = soon(client.consume(stream)).await.unwrap();
    let mut consumer = Talk::new(requests, answers.into_inner());
    let leased = lease(&mut consumer, a_lease(&queue, 2)).await;
    let waits = ConsumeRequest {
        leases: vec![a_lease(&idle, 1)],
        ..ConsumeRequest::default()
    };
    consumer.say(waits).await;
    consumer.say(an_ack(&queue, leased.lease)).await;
    consumer.until_said().await;
    // What a connection carries arrives in its order: answered, it says that all before it is there.
    let (requests, stream) = side();
    let answers = soon(client.send(stream)).await.unwrap();
    let mut sends = Talk::new(requests, answers.into_inner());
    sends.ask(a_sending(1, &unique("other"), Vec::new())).await;
    drop(consumer);
    until_left(&gateway, &queue, 1).await;
    let mut consumer = gateway.consume().await;
    let leased = lease(&mut consumer, a_lease(&queue, 10)).await;
    assert_eq!(texts(&leased), ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_that_name_no_size_fit_a_client_as_it_comes() {
    let gateway = Gateway::start().await;
    let queue = unique("q");
    let mut sends = gateway.send().await;
    let large = Record {
        body: vec![7; 64 << 10].into(),
        ..Record::default()
    };
    for batch in 0..10 {
        let sent = a_sending(batch, &queue, vec![large.clone(); 16]);
        assert!(sends.ask(sent).await.error.is_none());
    }
    let mut consumer = gateway.consume().await;
    let request = ConsumeRequest {
        leases: vec![a_lease(&queue, 4_096); 2],
        ..ConsumeRequest::default()
    };
    consumer.say(request).await;
    let mut messages = 0;
    for _ in 0..2 {
        let frame = consumer.hear().await;
        assert_eq!(
            frame.leased.len(),
            1,
            "two of them are too much for a frame"
        );
        messages += frame.leased[0].messages.len();
    }
    assert!(messages > 80, "{messages} messages are less than 5 MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_has_its_settlements_made_and_gets_no_more() {
    let gateway = Gateway::with(KubemqConfig {
        downstream_bytes_max: 1 << 20,
        ..KubemqConfig::default()
    })
    .await;
    let (queue, large, other) = (unique("q"), unique("large"), unique("other"));
    fill(&gateway, &queue, 1..3).await;
    fill(&gateway, &other, 1..21).await;
    let mut sends = gateway.send().await;
    let record = Record {
        body: vec![7; 1 << 20].into(),
        ..Record::default()
    };
    for batch in 1..3 {
        let sent = a_sending(batch, &large, vec![record.clone(); 20]);
        assert!(sends.ask(sent).await.error.is_none());
    }
    let mut consumer = gateway.consume().await;
    let held = lease(&mut consumer, a_lease(&queue, 2)).await;
    // More than the client's window and the transport take in.
    let unread = ConsumeRequest {
        leases: vec![a_lease(&large, 1); 40],
        ..ConsumeRequest::default()
    };
    consumer.say(unread).await;
    until_held_back(&gateway, &large, 20).await;
    // The last of these finds it so in any case.
    for request in 100..120 {
        let more = ConsumeRequest {
            leases: vec![Lease {
                request,
                ..a_lease(&other, 1)
            }],
            ..ConsumeRequest::default()
        };
        consumer.say(more).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    consumer.say(an_ack(&queue, held.lease)).await;
    until_left(&gateway, &queue, 0).await;
    for (queue, count) in [(&other, 0), (&large, 19)] {
        let name = Name::queue(queue).unwrap();
        assert!(gateway.broker.queue(&name).await.unwrap().available > count);
    }
    // Once it reads, it gets everything.
    let (mut leased, mut settled) = (Vec::new(), 0);
    while leased.len() < 60 {
        let frame = consumer.hear().await;
        leased.extend(frame.leased.iter().map(|leased| leased.request));
        settled += frame.settled.len();
    }
    assert!(leased.contains(&119));
    assert_eq!(settled, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_can_be_settled_at_once_than_a_lease_can_hold() {
    let gateway = Gateway::start().await;
    let queue = unique("q");
    fill(&gateway, &queue, 1..3).await;
    let mut consumer = gateway.consume().await;
    let id = lease(&mut consumer, a_lease(&queue, 2)).await.lease;
    let too_many: Vec<u64> = (1..4_098).collect();
    let request = ConsumeRequest {
        settles: vec![a_settle(&queue, id, settle::Kind::Ack, &too_many)],
        ..ConsumeRequest::default()
    };
    let error = consumer.ask(request).await.failed[0].error.clone().unwrap();
    assert_eq!(error.code(), Code::Invalid);
    assert_eq!(
        error.text,
        "the number of sequences is 4097, at most 4096 are allowed"
    );
    // Repeats do not count.
    let repeated = a_settle(&queue, id, settle::Kind::Ack, &[1, 2].repeat(4_096));
    assert_eq!(settle(&mut consumer, repeated).await.count, 2);
}
