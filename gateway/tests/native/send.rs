//! Send: what is put into queues, and how it comes out.

use flotilla_gateway::native::protocol::consume_request::{Lease, Settle, settle};
use flotilla_gateway::native::protocol::error::Code;
use flotilla_gateway::native::protocol::{ConsumeRequest, Record, SendRequest};

use crate::support::{Gateway, a_record, a_sending, assert_synced, records, text_of, unique};

fn a_lease(queue: &str, messages_max: u32) -> ConsumeRequest {
    ConsumeRequest {
        leases: vec![Lease {
            request: 1,
            queue: queue.to_owned(),
            messages_max,
            wait_ms: 10_000,
            ..Lease::default()
        }],
        ..ConsumeRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sent_records_come_out_in_order_and_repeats_only_once() {
    let gateway = Gateway::start().await;
    let queue = unique("q");
    let mut sends = gateway.send().await;
    let with_id = |text: &str| Record {
        dedup_id: text.to_owned(),
        ..a_record(text)
    };
    let first = vec![with_id("1"), a_record("2")];
    let answer = sends.ask(a_sending(1, &queue, first)).await;
    assert_synced(answer.ack, answer.error.as_ref());
    let again = vec![with_id("1"), a_record("3")];
    let answer = sends.ask(a_sending(2, &queue, again)).await;
    assert_eq!((answer.batch, answer.duplicates), (2, vec![0]));
    let mut consumer = gateway.consume().await;
    let leased = consumer.ask(a_lease(&queue, 10)).await.leased.remove(0);
    let texts: Vec<String> = leased
        .messages
        .iter()
        .map(|message| text_of(message.record.as_ref().unwrap()))
        .collect();
    assert_eq!(texts, ["1", "2", "3"]);
    let message = &leased.messages[1];
    assert_eq!((message.sequence, message.receive_count), (2, 1));
    assert_eq!(message.record, Some(a_record("2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_received_too_often_goes_to_dead_letters() {
    let gateway = Gateway::start().await;
    let (queue, dead) = (unique("q"), unique("dead"));
    let mut sends = gateway.send().await;
    let sent = SendRequest {
        receives_max: 2,
        dead_letter_queue: dead.clone(),
        ..a_sending(1, &queue, records(1..2))
    };
    let answer = sends.ask(sent).await;
    assert_synced(answer.ack, answer.error.as_ref());
    let mut consumer = gateway.consume().await;
    for _ in 0..2 {
        let leased = consumer.ask(a_lease(&queue, 1)).await.leased.remove(0);
        let rejected = ConsumeRequest {
            settles: vec![Settle {
                request: 2,
                queue: queue.clone(),
                lease: leased.lease,
                kind: settle::Kind::Reject.into(),
                ..Settle::default()
            }],
            ..ConsumeRequest::default()
        };
        assert_eq!(consumer.ask(rejected).await.settled[0].count, 1);
    }
    let leased = consumer.ask(a_lease(&dead, 1)).await.leased.remove(0);
    assert_eq!(leased.messages[0].moved_from, queue);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_sent_is_refused_as_a_whole() {
    let gateway = Gateway::start().await;
    let mut sends = gateway.send().await;
    let answer = sends.ask(a_sending(7, "", records(1..3))).await;
    let error = answer.error.unwrap();
    assert_eq!(answer.batch, 7);
    assert_eq!(error.code(), Code::Invalid);
    assert_eq!(error.text, "a queue name must not be empty");
    let dead = SendRequest {
        dead_letter_queue: "x".repeat(65_536),
        ..a_sending(8, &unique("q"), records(1..3))
    };
    let error = sends.ask(dead).await.error.unwrap();
    assert_eq!(
        error.text,
        "a queue name has 65536 bytes, at most 65535 are allowed"
    );
}
