//! Send: what is put into queues, and how it comes out.

use flotilla_gateway::native::protocol::consume_request::settle;
use flotilla_gateway::native::protocol::error::Code;
use flotilla_gateway::native::protocol::{Record, SendRequest};

use crate::consumer::{a_lease, a_settle, lease, settle, texts};
use crate::support::{Gateway, a_record, a_sending, assert_synced, records, unique};

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
    let leased = lease(&mut consumer, a_lease(&queue, 10)).await;
    assert_eq!(texts(&leased), ["1", "2", "3"]);
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
        let leased = lease(&mut consumer, a_lease(&queue, 1)).await;
        let rejected = a_settle(&queue, leased.lease, settle::Kind::Reject, &[]);
        assert_eq!(settle(&mut consumer, rejected).await.count, 1);
    }
    let leased = lease(&mut consumer, a_lease(&dead, 1)).await;
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
