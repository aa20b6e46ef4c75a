//! What clients may do: each pattern, each action, and what they hear where they may not.

use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequestType as Type;
use flotilla_gateway::kubemq::protocol::StreamRequestType as Step;
use flotilla_gateway::kubemq::protocol::request::RequestType;
use flotilla_gateway::kubemq::protocol::subscribe::SubscribeType;
use flotilla_gateway::kubemq::protocol::{
    AckAllQueueMessagesRequest, Event, QueueMessage, QueueMessagePolicy, QueueMessagesBatchRequest,
    QueuesDownstreamRequest, QueuesUpstreamRequest, ReceiveQueueMessagesRequest, Request,
};
use serde_json::Value;
use tonic::{Code, Status};

use crate::shared::tokens::{rules, security};
use crate::support::{
    Client, Downstream, Gateway, Transaction, a_get, a_message, a_subscribe, an_event, bodies,
    requests, soon,
};

pub const DENIED: &str = "Error 412: access denied to resource";
pub const BOTH: &[&str] = &["Read", "Write"];

/// `sender` may do everything with queues called `open…`, `consumer` may read them, and whoever has the pattern's
/// name as its client id may do everything with channels `open` of it.
async fn gateway() -> Gateway {
    let rules = rules(&[
        ("sender", "open.*", "Queues", BOTH),
        ("consumer", "open.*", "Queues", &["Read"]),
        ("Events", "open.*", "Events", BOTH),
        ("EventsStore", "open.*", "EventsStore", BOTH),
        ("Commands", "open.*", "Commands", BOTH),
        ("Queries", "open.*", "Queries", BOTH),
    ]);
    Gateway::secured(security(None, Some(rules))).await
}

pub fn assert_denied<T>(answer: Result<T, Status>) {
    let Err(status) = answer else {
        panic!("it was allowed");
    };
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert_eq!(status.message(), DENIED);
}

pub fn event_of(client: &str, channel: &str, store: bool) -> Event {
    Event {
        client_id: client.to_owned(),
        ..an_event(channel, 1, store)
    }
}

pub fn message_of(client: &str, queue: &str) -> QueueMessage {
    QueueMessage {
        client_id: client.to_owned(),
        ..a_message(queue, 1)
    }
}

fn request_of(client: &str, channel: &str, kind: RequestType) -> Request {
    Request {
        client_id: client.to_owned(),
        channel: channel.to_owned(),
        request_type_data: kind as i32,
        metadata: "m".to_owned(),
        timeout: 50,
        ..Request::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sent_and_seen_by_those_who_may() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    for (pattern, store, kind) in [
        ("Events", false, SubscribeType::Events),
        ("EventsStore", true, SubscribeType::EventsStore),
    ] {
        let subscribe = |client: &str, channel: &str| {
            let mut subscribe = a_subscribe(kind as i32, channel, client);
            subscribe.events_store_type_data = i32::from(store) * 2;
            subscribe
        };
        let sent = client.send_event(event_of(pattern, "open", store)).await;
        assert!(sent.unwrap().into_inner().sent);
        client
            .subscribe_to_events(subscribe(pattern, "open"))
            .await
            .unwrap();
        for (who, channel) in [("somebody", "open"), (pattern, "closed")] {
            assert_denied(client.send_event(event_of(who, channel, store)).await);
            assert_denied(client.subscribe_to_events(subscribe(who, channel)).await);
        }
        // Who may do it with one pattern may not with another.
        let other = event_of(pattern, "open", !store);
        assert_denied(client.send_event(other).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_event_of_a_stream_is_told_and_the_stream_goes_on() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    let (side, stream) = requests();
    let mut results = client
        .send_events_stream(stream)
        .await
        .unwrap()
        .into_inner();
    for (number, (client, channel, store, error)) in [
        ("EventsStore", "open", true, ""),
        ("EventsStore", "closed", true, DENIED),
        ("Events", "closed", false, DENIED),
        ("EventsStore", "open", true, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let mut event = event_of(client, channel, store);
        event.event_id = number.to_string();
        side.send(event).await.unwrap();
        let result = soon(results.message()).await.unwrap().unwrap();
        assert_eq!(
            (result.event_id, result.error),
            (number.to_string(), error.to_owned())
        );
        assert_eq!(result.sent, error.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_queries_are_asked_and_answered_by_those_who_may() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    for (pattern, kind, subscribe) in [
        ("Commands", RequestType::Command, SubscribeType::Commands),
        ("Queries", RequestType::Query, SubscribeType::Queries),
    ] {
        let nobody = client.send_request(request_of(pattern, "open", kind)).await;
        let status = nobody.unwrap_err();
        assert_eq!(status.message(), "Error 301: timeout for request message");
        let serve = a_subscribe(subscribe as i32, "open", pattern);
        client.subscribe_to_requests(serve).await.unwrap();
        for (who, channel) in [("somebody", "open"), (pattern, "closed")] {
            assert_denied(client.send_request(request_of(who, channel, kind)).await);
            let serve = a_subscribe(subscribe as i32, channel, who);
            assert_denied(client.subscribe_to_requests(serve).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_for_a_queue_is_allowed_or_denied_alone() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    let sent = client
        .send_queue_message(message_of("consumer", "open"))
        .await;
    let sent = sent.unwrap().into_inner();
    assert_eq!((sent.is_error, sent.error.as_str()), (true, DENIED));

    let mut with_policy = message_of("sender", "open");
    with_policy.policy = Some(QueueMessagePolicy {
        max_receive_count: 1,
        max_receive_queue: "closed".to_owned(),
        ..QueueMessagePolicy::default()
    });
    let messages = vec![
        message_of("sender", "open"),
        message_of("sender", "closed"),
        with_policy,
        message_of("sender", "open.2"),
    ];
    let batch = QueueMessagesBatchRequest {
        batch_id: "b".to_owned(),
        messages: messages.clone(),
    };
    let answer = client.send_queue_messages_batch(batch).await.unwrap();
    let answer = answer.into_inner();
    let errors = |results: &[flotilla_gateway::kubemq::protocol::SendQueueMessageResult]| {
        let errors = results.iter().map(|one| one.error.clone());
        errors.collect::<Vec<_>>()
    };
    assert!(answer.have_errors);
    assert_eq!(errors(&answer.results), ["", DENIED, DENIED, ""]);

    let upstream = QueuesUpstreamRequest {
        request_id: "u".to_owned(),
        messages,
    };
    let answers = client.queues_upstream(futures::stream::iter([upstream]));
    let mut answers = answers.await.unwrap().into_inner();
    let answer = soon(answers.message()).await.unwrap().unwrap();
    assert!(!answer.is_error);
    assert_eq!(errors(&answer.results), ["", DENIED, DENIED, ""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_read_by_those_who_may() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    let receive = |client: &str, queue: &str, is_peak| ReceiveQueueMessagesRequest {
        client_id: client.to_owned(),
        channel: queue.to_owned(),
        max_number_of_messages: 1,
        wait_time_seconds: 1,
        is_peak,
        ..ReceiveQueueMessagesRequest::default()
    };
    client
        .send_queue_message(message_of("sender", "open"))
        .await
        .unwrap();
    for is_peak in [true, false] {
        let got = client.receive_queue_messages(receive("consumer", "open", is_peak));
        assert_eq!(bodies(&got.await.unwrap().into_inner().messages), ["1"]);
        for (who, queue) in [("somebody", "open"), ("consumer", "closed")] {
            assert_denied(
                client
                    .receive_queue_messages(receive(who, queue, is_peak))
                    .await,
            );
        }
    }
    let ack_all = |client: &str, queue: &str| AckAllQueueMessagesRequest {
        client_id: client.to_owned(),
        channel: queue.to_owned(),
        ..AckAllQueueMessagesRequest::default()
    };
    let done = client.ack_all_queue_messages(ack_all("consumer", "open"));
    assert!(!done.await.unwrap().into_inner().is_error);
    assert_denied(
        client
            .ack_all_queue_messages(ack_all("somebody", "open"))
            .await,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downstream_gets_and_moves_what_its_client_may() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    client
        .send_queue_message(message_of("sender", "open"))
        .await
        .unwrap();
    let mut downstream = Downstream::open(&mut client).await;
    downstream
        .send(Type::Get, a_get("closed", 1, 0, false))
        .await;
    let denied = downstream.answer().await;
    assert_eq!((denied.is_error, denied.error.as_str()), (true, DENIED));
    // The helper's client id is `consumer`, who may not send.
    let got = downstream.get("open", 1, false).await;
    let requeue = |to: &str| QueuesDownstreamRequest {
        request_id: "requeue".to_owned(),
        ref_transaction_id: got.transaction_id.clone(),
        re_queue_channel: to.to_owned(),
        ..QueuesDownstreamRequest::default()
    };
    downstream.send(Type::ReQueueAll, requeue("open.2")).await;
    let denied = downstream.answer().await;
    assert_eq!((denied.is_error, denied.error.as_str()), (true, DENIED));
    assert_eq!(denied.ref_request_id, "requeue");
    downstream
        .settle(Type::AckAll, &got.transaction_id, &[])
        .await;
    downstream
        .settle(Type::TransactionStatus, &got.transaction_id, &[])
        .await;
    assert!(
        downstream.answer().await.transaction_complete,
        "still in its hand"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_receives_and_sends_what_its_client_may() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    client
        .send_queue_message(message_of("sender", "open"))
        .await
        .unwrap();
    let mut closed = Transaction::open(&mut client, "closed").await;
    let denied = closed.ask(Step::ReceiveMessage, |_| {}).await;
    assert_eq!((denied.is_error, denied.error.as_str()), (true, DENIED));
    let (mut held, message) = Transaction::holding(&mut client, "open", 60).await;
    let resend = |queue: &'static str| {
        move |request: &mut flotilla_gateway::kubemq::protocol::StreamQueueMessagesRequest| {
            request.channel = queue.to_owned();
        }
    };
    let denied = held.ask(Step::ResendMessage, resend("open.2")).await;
    assert_eq!((denied.is_error, denied.error.as_str()), (true, DENIED));
    let modified = message_of("consumer", "open.2");
    let denied = held
        .ask(Step::SendModifiedMessage, |request| {
            request.modified_message = Some(modified);
        })
        .await;
    assert_eq!((denied.is_error, denied.error.as_str()), (true, DENIED));
    let sequence = message.attributes.unwrap().sequence;
    let acked = held
        .finish(Step::AckMessage, |request| request.ref_sequence = sequence)
        .await;
    assert!(!acked.is_error, "{}", acked.error);
}

async fn manage(
    client: &mut Client,
    who: &str,
    operation: &str,
    kind: &str,
    channel: &str,
) -> Result<Value, Status> {
    let mut request = request_of(who, "kubemq.cluster.internal.requests", RequestType::Query);
    request.metadata = operation.to_owned();
    request.timeout = 10_000;
    request.tags = [("channel_type", kind), ("channel", channel)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let answer = client.send_request(request).await?.into_inner();
    assert!(answer.executed, "{}", answer.error);
    Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_managed_by_those_who_may_send_there_and_listed_for_those_who_use_them() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    for operation in ["create-channel", "delete-channel"] {
        manage(&mut client, "sender", operation, "queues", "open")
            .await
            .unwrap();
        for (who, kind, channel) in [
            ("consumer", "queues", "open"),
            ("sender", "queues", "closed"),
            ("sender", "events_store", "open"),
        ] {
            assert_denied(manage(&mut client, who, operation, kind, channel).await);
        }
    }
    manage(&mut client, "sender", "create-channel", "queues", "open.1")
        .await
        .unwrap();
    for (who, expected) in [("consumer", 1), ("sender", 1), ("somebody", 0)] {
        let list = manage(&mut client, who, "list-channels", "queues", "").await;
        assert_eq!(list.unwrap().as_array().unwrap().len(), expected, "{who}");
    }
}
