//! Of downstreams, and of transactions with nothing and with something in hand.

use flotilla_gateway::kubemq::protocol::{
    QueueMessage, QueuesDownstreamRequest, QueuesDownstreamRequestType as Type,
    StreamQueueMessagesRequest, StreamRequestType,
};

use super::{CLIENT_LONG, E101, E120, E124, E125, E126, E127, E128, E131, E132, E136, E137, long};
use crate::support::{Client, Downstream, Gateway, Transaction, a_get, a_message, fill, unique};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_on_a_downstream_are_answered_with_their_type() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 3).await;
    let mut downstream = Downstream::open(&mut client).await;
    let held = downstream.get(&queue, 3, false).await.transaction_id;
    let closed = downstream.open_closed(&mut client).await;
    let unknown = "transaction is completed or transaction id not found";
    let of = |transaction: &str, sequences: &[i64], target: &str| QueuesDownstreamRequest {
        request_id: "r".to_owned(),
        ref_transaction_id: transaction.to_owned(),
        sequence_range: sequences.to_vec(),
        re_queue_channel: target.to_owned(),
        ..QueuesDownstreamRequest::default()
    };
    let get = |channel: &str, wait| a_get(channel, 1, wait, false);
    let target = "cannot requeue messages with empty channel destination ";
    let mut cases = vec![
        (Type::Get, get("", 0), E120),
        (Type::Get, get("a.*", 0), E120),
        (Type::Get, get("a", -1), E136),
        (Type::Get, get("a", 3_600_001), E136),
        (Type::ReQueueAll, of(&held, &[], ""), target),
        (Type::ReQueueRange, of(&held, &[1], ""), target),
        (Type::ReQueueAll, of(&held, &[], "a b"), E120),
        (
            Type::AckRange,
            of(&held, &[], ""),
            "cannot ack empty list of of offsets",
        ),
        (
            Type::NAckRange,
            of(&held, &[], ""),
            "cannot nack empty list of of offsets",
        ),
        (
            Type::ReQueueRange,
            of(&held, &[], "t"),
            "cannot requeue empty list of of offsets",
        ),
        (
            Type::AckRange,
            of(&held, &[9], ""),
            "invalid ack sequence id 9",
        ),
        (
            Type::NAckRange,
            of(&held, &[9], ""),
            "invalid nack sequence id 9",
        ),
        (
            Type::ReQueueRange,
            of(&held, &[9], "t"),
            "invalid ack sequence id 9",
        ),
        (
            Type::AckAll,
            of(&closed, &[], ""),
            "cannot ack messages with closed response ",
        ),
        (
            Type::NAckAll,
            of(&closed, &[], ""),
            "cannot nack messages with closed response ",
        ),
        (
            Type::ReQueueAll,
            of(&closed, &[], "t"),
            "cannot requeue messages with closed response ",
        ),
        (
            Type::AckRange,
            of(&closed, &[1], ""),
            "cannot ack messages with closed response ",
        ),
        (
            Type::NAckRange,
            of(&closed, &[1], ""),
            "cannot nack messages with closed response ",
        ),
        (
            Type::ReQueueRange,
            of(&closed, &[1], "t"),
            "cannot requeue messages with closed response ",
        ),
    ];
    for kind in [
        Type::AckAll,
        Type::AckRange,
        Type::NAckAll,
        Type::NAckRange,
        Type::ReQueueAll,
        Type::ReQueueRange,
        Type::ActiveOffsets,
        Type::CloseByClient,
    ] {
        cases.push((kind, of("nothing", &[1], "t"), unknown));
    }
    for (kind, request, text) in cases {
        let id = request.request_id.clone();
        downstream.send(kind, request).await;
        let answer = downstream.answer().await;
        assert_eq!(
            (answer.is_error, &answer.error[..]),
            (true, text),
            "{kind:?}"
        );
        assert_eq!(answer.request_type_data, kind as i32);
        assert_eq!(answer.ref_request_id, id);
    }
    for (client_id, text) in [(String::new(), E101), (long(), CLIENT_LONG)] {
        let request = QueuesDownstreamRequest {
            client_id,
            request_type_data: Type::Get as i32,
            ..get(&queue, 0)
        };
        downstream.send_raw(request).await;
        let answer = downstream.answer().await;
        assert_eq!((answer.is_error, &answer.error[..]), (true, text));
        assert_eq!(answer.request_type_data, Type::Get as i32);
    }
    for kind in [0, 11, 12, -1, 99] {
        downstream.send_as(kind, of(&held, &[], "")).await;
        let answer = downstream.answer().await;
        assert_eq!(
            (answer.request_type_data, &answer.error[..]),
            (0, "request unknown")
        );
    }
}

impl Downstream {
    /// A transaction of this stream that was closed by what it asked for: its messages are gone.
    async fn open_closed(&mut self, client: &mut Client) -> String {
        let queue = unique("closed");
        fill(client, &queue, 1).await;
        self.get(&queue, 1, true).await.transaction_id
    }
}

/// The requests of a transaction, with nothing and with something in hand.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_on_a_transaction_are_answered_and_leave_it_as_it_was() {
    use StreamRequestType as Kind;
    type Change = fn(&mut StreamQueueMessagesRequest);
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 1).await;
    let modified: Change = |one| one.modified_message = Some(a_message("t", 1));
    let empty_handed: [(Kind, &str, Change); 15] = [
        (Kind::ReceiveMessage, E101, |one| one.client_id.clear()),
        (Kind::ReceiveMessage, CLIENT_LONG, |one| {
            one.client_id = long()
        }),
        (Kind::ReceiveMessage, E120, |one| one.channel.clear()),
        (Kind::ReceiveMessage, E120, |one| {
            one.channel = "a b".to_owned()
        }),
        (Kind::ReceiveMessage, E127, |one| {
            one.visibility_seconds = -1
        }),
        (Kind::ReceiveMessage, E127, |one| {
            one.visibility_seconds = 43_201
        }),
        (Kind::ReceiveMessage, E136, |one| one.wait_time_seconds = -1),
        (Kind::ReceiveMessage, E136, |one| {
            one.wait_time_seconds = 3_601
        }),
        (Kind::AckMessage, E124, |one| one.ref_sequence = 1),
        (Kind::RejectMessage, E137, |one| one.ref_sequence = 1),
        (Kind::ModifyVisibility, E124, |_| {}),
        (Kind::ResendMessage, E126, |one| {
            one.channel = "t".to_owned()
        }),
        (Kind::SendModifiedMessage, E131, |_| {}),
        (Kind::SendModifiedMessage, E124, modified),
        (Kind::Unknown, E132, |_| {}),
    ];
    let mut transaction = Transaction::open(&mut client, &queue).await;
    for (kind, text, change) in empty_handed {
        let answer = transaction.ask(kind, change).await;
        assert_eq!(
            (answer.is_error, &answer.error[..]),
            (true, text),
            "{kind:?}"
        );
    }
    drop(transaction);

    let wrong: Change = |one| {
        one.modified_message = Some(QueueMessage {
            client_id: String::new(),
            ..a_message("t", 1)
        });
    };
    let in_hand: [(Kind, &str, Change); 10] = [
        (Kind::ReceiveMessage, E128, |_| {}),
        (Kind::AckMessage, E125, |_| {}),
        (Kind::AckMessage, E125, |one| one.ref_sequence = 2),
        (Kind::RejectMessage, E125, |_| {}),
        (Kind::RejectMessage, E125, |one| one.ref_sequence = 2),
        (Kind::ModifyVisibility, E127, |one| {
            one.visibility_seconds = -1
        }),
        (Kind::ModifyVisibility, E127, |one| {
            one.visibility_seconds = 43_201
        }),
        (Kind::ResendMessage, E120, |one| {
            one.channel = "a.*".to_owned()
        }),
        (Kind::SendModifiedMessage, E131, |_| {}),
        (Kind::SendModifiedMessage, E101, wrong),
    ];
    let (mut transaction, _) = Transaction::holding(&mut client, &queue, 60).await;
    for (kind, text, change) in in_hand {
        let answer = transaction.ask(kind, change).await;
        assert_eq!(
            (answer.is_error, &answer.error[..]),
            (true, text),
            "{kind:?}"
        );
    }
    let done = transaction
        .finish(Kind::AckMessage, |one| one.ref_sequence = 1)
        .await;
    assert!(!done.is_error, "{}", done.error);
}
