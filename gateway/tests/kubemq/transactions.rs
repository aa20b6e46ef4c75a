//! Transactions of older clients: one stream for one message.

use std::time::{Duration, Instant};

use flotilla_gateway::kubemq::protocol::StreamRequestType as Type;
use flotilla_gateway::kubemq::protocol::{QueueMessage, QueueMessagePolicy};
use flotilla_model::name::Name;
use flotilla_model::settings::QueueSettings;
use tonic::Code;

use crate::support::{
    Client, Downstream, Gateway, Transaction, a_message, bodies, fill, sequences, soon, unique,
};

fn sequence(message: &QueueMessage) -> u64 {
    message.attributes.as_ref().unwrap().sequence
}

/// What another consumer finds at once.
async fn left(client: &mut Client, queue: &str, count: i32) -> Vec<QueueMessage> {
    let mut downstream = Downstream::open(client).await;
    downstream.get(queue, count, true).await.messages
}

/// Soon: what was taken without acknowledging is removed once it is known to be written.
async fn assert_empty(gateway: &Gateway, queue: &str) {
    let name = Name::queue(queue).unwrap();
    soon(async {
        while gateway.broker.queue(&name).await.unwrap().messages > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_message_is_gone_and_the_stream_ends() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 2).await;
    for expected in 1..=2 {
        let (transaction, message) = Transaction::holding(&mut client, &queue, 10).await;
        assert_eq!(sequence(&message), expected);
        assert_eq!(bodies(&[message]), [expected.to_string()]);
        let answer = transaction
            .finish(Type::AckMessage, |ack| ack.ref_sequence = expected)
            .await;
        assert!(!answer.is_error && answer.message.is_none());
    }
    assert_empty(&gateway, &queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_goes_to_the_tail_or_to_dead_letters() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (queue, dead) = (unique("q"), unique("dead"));
    let mut first = a_message(&queue, 1);
    first.policy = Some(QueueMessagePolicy {
        max_receive_count: 2,
        max_receive_queue: dead.clone(),
        ..QueueMessagePolicy::default()
    });
    client.send_queue_message(first).await.unwrap();
    client
        .send_queue_message(a_message(&queue, 2))
        .await
        .unwrap();
    for expected in [1, 2, 3] {
        let (transaction, message) = Transaction::holding(&mut client, &queue, 10).await;
        assert_eq!(sequence(&message), expected);
        let answer = transaction
            .finish(Type::RejectMessage, |reject| reject.ref_sequence = expected)
            .await;
        assert!(!answer.is_error, "{}", answer.error);
    }
    // 1 was refused twice, which is as often as it may come; 2 once.
    let rest = left(&mut client, &queue, 1).await;
    assert_eq!(
        (bodies(&rest), sequences(&rest)),
        (vec!["2".to_owned()], vec![4])
    );
    assert_eq!(rest[0].attributes.as_ref().unwrap().receive_count, 2);
    let letters = left(&mut client, &dead, 1).await;
    assert_eq!(bodies(&letters), ["1"]);
    assert!(letters[0].attributes.as_ref().unwrap().re_routed);
    assert_empty(&gateway, &queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_queue_ends_the_stream_when_the_wait_is_over() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let mut transaction = Transaction::open(&mut client, &unique("idle")).await;
    let started = Instant::now();
    transaction.send(Type::ReceiveMessage, |_| {}).await;
    // What comes meanwhile is answered.
    let answer = transaction
        .ask(Type::AckMessage, |ack| ack.ref_sequence = 1)
        .await;
    assert_eq!(answer.error, "Error 124: no active message to ack");
    let answer = transaction.answer().await;
    assert_eq!(
        answer.error,
        "Error 138: no new message in queue, wait time expired"
    );
    assert_eq!(answer.request_id, "ReceiveMessage");
    transaction.end().await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_leaves_the_stream_open() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 1).await;
    let mut transaction = Transaction::open(&mut client, &queue).await;
    let refused = transaction
        .ask(Type::ReceiveMessage, |receive| {
            receive.visibility_seconds = -1
        })
        .await;
    assert_eq!(
        refused.error,
        "Error 127: invalid visibility time, cannot be negative or exceed setting in kubemq config"
    );
    let answer = transaction.ask(Type::ReceiveMessage, |_| {}).await;
    assert!(!answer.is_error);
    let refused = transaction.ask(Type::AckMessage, |_| {}).await;
    assert_eq!(
        refused.error,
        "Error 125: ack sequence cannot be 0 or negative"
    );
    let answer = transaction
        .finish(Type::AckMessage, |ack| ack.ref_sequence = 1)
        .await;
    assert!(!answer.is_error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_time_is_up_goes_to_the_tail_and_its_client_is_told() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 2).await;
    let (mut transaction, _) = Transaction::holding(&mut client, &queue, 1).await;
    let answer = transaction.answer().await;
    assert_eq!(answer.error, "Error 129: current visibility timer expired");
    assert_eq!(answer.stream_request_type_data, Type::ReceiveMessage as i32);
    transaction.end().await.unwrap();
    let rest = left(&mut client, &queue, 2).await;
    assert_eq!(bodies(&rest), ["2", "1"]);
    assert_eq!(sequences(&rest), [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_message_stays_in_hand() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 1).await;
    let started = Instant::now();
    let (mut transaction, message) = Transaction::holding(&mut client, &queue, 4).await;
    let answer = transaction
        .ask(Type::ModifyVisibility, |extend| {
            extend.visibility_seconds = 600
        })
        .await;
    assert!(!answer.is_error, "{}", answer.error);
    tokio::time::sleep_until((started + Duration::from_secs(5)).into()).await;
    let answer = transaction
        .finish(Type::AckMessage, |ack| {
            ack.ref_sequence = sequence(&message)
        })
        .await;
    assert!(!answer.is_error, "{}", answer.error);
    assert_empty(&gateway, &queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortened_time_is_kept_too() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 1).await;
    let (mut transaction, _) = Transaction::holding(&mut client, &queue, 600).await;
    transaction
        .ask(Type::ModifyVisibility, |extend| {
            extend.visibility_seconds = 1
        })
        .await;
    let answer = transaction.answer().await;
    assert_eq!(answer.error, "Error 129: current visibility timer expired");
    assert_eq!(answer.request_id, "ModifyVisibility");
    transaction.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_sent_on_to_another_queue() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    // Of as many targets some are in the other shard.
    for number in 1..=8 {
        let (queue, target) = (unique("q"), unique("target"));
        fill(&mut client, &queue, number).await;
        let (mut transaction, _) = Transaction::holding(&mut client, &queue, 10).await;
        let refused = transaction
            .ask(Type::ResendMessage, |resend| {
                resend.channel = "a.*".to_owned()
            })
            .await;
        assert!(refused.is_error && refused.error.starts_with("Error 120"));
        let answer = transaction
            .finish(Type::ResendMessage, |resend| {
                resend.channel = target.clone()
            })
            .await;
        assert!(!answer.is_error, "{}", answer.error);
        let moved = left(&mut client, &target, 1).await;
        assert_eq!(bodies(&moved), ["1"]);
        assert_eq!(moved[0].message_id, "1");
        let attributes = moved[0].attributes.as_ref().unwrap();
        assert!(attributes.re_routed);
        assert_eq!(attributes.re_routed_from_queue, queue);
        assert_eq!(attributes.receive_count, 1);
        let name = Name::queue(&queue).unwrap();
        let rest = gateway.broker.queue(&name).await.unwrap();
        assert_eq!((rest.messages, rest.leased), (number as u64 - 1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_message_takes_the_place_of_the_one_in_hand() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (queue, target) = (unique("q"), unique("target"));
    fill(&mut client, &queue, 1).await;
    let (mut transaction, message) = Transaction::holding(&mut client, &queue, 10).await;
    let refused = transaction
        .ask(Type::SendModifiedMessage, |modify| {
            modify.modified_message = Some(QueueMessage {
                client_id: String::new(),
                ..message.clone()
            });
        })
        .await;
    assert!(refused.error.starts_with("Error 101"));
    // The attributes that it came with are of no account, its policy is.
    let modified = QueueMessage {
        channel: target.clone(),
        message_id: "new".to_owned(),
        metadata: "new metadata".to_owned(),
        ..message
    };
    let answer = transaction
        .finish(Type::SendModifiedMessage, |modify| {
            modify.modified_message = Some(modified);
        })
        .await;
    assert!(!answer.is_error, "{}", answer.error);
    let sent = left(&mut client, &target, 1).await;
    assert_eq!(bodies(&sent), ["1"]);
    assert_eq!(sent[0].message_id, "new");
    assert_eq!(sent[0].metadata, "new metadata");
    let attributes = sent[0].attributes.as_ref().unwrap();
    assert_eq!((attributes.sequence, attributes.receive_count), (1, 1));
    assert_eq!(sent[0].policy.as_ref().unwrap().max_receive_count, 1_024);
    assert_empty(&gateway, &queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_could_not_be_replaced_stays_in_hand() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (queue, full) = (unique("q"), unique("full"));
    fill(&mut client, &queue, 1).await;
    let settings = QueueSettings {
        messages_max: Some(1),
        ..QueueSettings::default()
    };
    let name = Name::queue(&full).unwrap();
    gateway
        .broker
        .configure_queue(name, settings)
        .await
        .unwrap();
    fill(&mut client, &full, 1).await;
    let (mut transaction, message) = Transaction::holding(&mut client, &queue, 600).await;
    let modified = QueueMessage {
        channel: full.clone(),
        ..message
    };
    let refused = transaction
        .ask(Type::SendModifiedMessage, |modify| {
            modify.modified_message = Some(modified);
        })
        .await;
    assert_eq!(
        refused.error,
        "Error 130: error during send message to queue"
    );
    let answer = transaction
        .finish(Type::AckMessage, |ack| ack.ref_sequence = 1)
        .await;
    assert!(!answer.is_error, "{}", answer.error);
    assert_eq!(bodies(&left(&mut client, &full, 1).await), ["1"]);
    assert_empty(&gateway, &full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_queue_is_deleted_is_gone() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 1).await;
    let (transaction, _) = Transaction::holding(&mut client, &queue, 600).await;
    let name = Name::queue(&queue).unwrap();
    gateway.broker.delete(name).await.unwrap();
    let answer = transaction
        .finish(Type::AckMessage, |ack| ack.ref_sequence = 1)
        .await;
    assert!(answer.error.ends_with("does not exist"), "{}", answer.error);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_client_held_goes_back_to_its_old_place() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 2).await;
    let mut lost = gateway.client().await;
    let (held, _) = Transaction::holding(&mut lost, &queue, 600).await;
    let waiting = Transaction::open(&mut lost, &unique("idle")).await;
    waiting
        .send(Type::ReceiveMessage, |receive| {
            receive.wait_time_seconds = 600
        })
        .await;
    drop((held, waiting, lost));
    let mut other = Downstream::open(&mut client).await;
    let got = other.get(&queue, 2, false).await;
    assert_eq!(sequences(&got.messages), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_no_more_requests_gives_its_message_back() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 1).await;
    let mut transaction = Transaction::open(&mut client, &queue).await;
    transaction.send(Type::ReceiveMessage, |_| {}).await;
    transaction.half_close();
    assert!(!transaction.answer().await.is_error);
    transaction.end().await.unwrap();
    assert_eq!(sequences(&left(&mut client, &queue, 1).await), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_ends_with_the_server_and_gives_its_message_back() {
    let mut gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 1).await;
    let (mut transaction, _) = Transaction::holding(&mut client, &queue, 600).await;
    gateway.stop();
    let status = transaction.end().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "Error 409: server is in shutdown mode");
    let broker = gateway.broker.clone();
    gateway.ended().await.unwrap();
    let detail = broker.queue(&Name::queue(&queue).unwrap()).await.unwrap();
    assert_eq!((detail.leased, detail.available), (0, 1));
}
