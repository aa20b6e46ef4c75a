//! Sends to several channels: who gets them, what the sender is told, and that nothing goes out half wrong.

use std::time::Duration;

use flotilla_cluster::ClusterConfig;
use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequestType as Type;
use flotilla_gateway::kubemq::protocol::subscribe::{EventsStoreType, SubscribeType};
use flotilla_gateway::kubemq::protocol::{
    Event, EventReceive, QueueMessage, QueueMessagePolicy, QueueMessagesBatchRequest,
    QueuesUpstreamRequest, StreamRequestType, Subscribe,
};
use flotilla_gateway::{KubemqConfig, Routes};
use flotilla_model::name::Name;
use tonic::{Code, Streaming};

use crate::support::{
    Client, Downstream, Gateway, Transaction, a_message, a_subscribe, an_event, bodies, fill,
    next_event, requests, soon, unique,
};

/// Time in which a wrong delivery would show.
const QUIET: Duration = Duration::from_millis(200);

async fn listen(client: &mut Client, channel: &str) -> Streaming<EventReceive> {
    let request = a_subscribe(SubscribeType::Events as i32, channel, "listener");
    let listening = soon(client.subscribe_to_events(request)).await;
    listening.unwrap().into_inner()
}

async fn read(client: &mut Client, channel: &str) -> Streaming<EventReceive> {
    let request = Subscribe {
        events_store_type_data: EventsStoreType::StartFromFirst as i32,
        ..a_subscribe(SubscribeType::EventsStore as i32, channel, "reader")
    };
    let reading = soon(client.subscribe_to_events(request)).await;
    reading.unwrap().into_inner()
}

/// What is in a queue, taken out of it.
async fn drain(client: &mut Client, queue: &str, count: i32) -> Vec<QueueMessage> {
    let mut downstream = Downstream::open(client).await;
    let got = downstream.get(queue, count, true).await.messages;
    assert_eq!(got.len(), count as usize, "{queue}");
    got
}

async fn is_unused(gateway: &Gateway, queue: &str) -> bool {
    let name = Name::queue(queue).unwrap();
    gateway.broker.queue(&name).await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_to_every_target_of_its_list() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (own, other) = (unique("own"), unique("other"));
    let (topic, queue) = (unique("topic"), unique("queue"));
    let mut listeners = [
        listen(&mut client, &own).await,
        listen(&mut client, &other).await,
    ];
    let list = format!("{own}; events:{other};events_store:{topic} ;queues:{queue}");
    let sent = client.send_event(an_event(&list, 1, false)).await.unwrap();
    assert!(sent.get_ref().sent && sent.get_ref().error.is_empty());
    assert_eq!(sent.get_ref().event_id, "1");

    for (listener, channel) in listeners.iter_mut().zip([&own, &other]) {
        let event = next_event(listener).await;
        assert_eq!((&event.channel, &event.event_id[..]), (channel, "1"));
        assert_eq!((event.metadata, event.body), ("m".to_owned(), "1".into()));
        assert_eq!(event.tags["k"], "v");
        assert_eq!(event.sequence, 0);
    }
    let stored = next_event(&mut read(&mut client, &topic).await).await;
    assert_eq!((stored.channel, stored.sequence), (topic, 1));
    assert_eq!((stored.event_id, stored.body), ("1".to_owned(), "1".into()));
    let message = drain(&mut client, &queue, 1).await.remove(0);
    assert_eq!(message.message_id, "1");
    assert_eq!(message.client_id, "sender");
    assert_eq!(
        (message.metadata, message.body),
        ("m".to_owned(), "1".into())
    );
    assert_eq!(message.tags["k"], "v");
    let policy = message.policy.unwrap();
    assert_eq!((policy.expiration_seconds, policy.delay_seconds), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_message_keeps_its_policy_in_the_queues_among_its_targets() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (first, second, topic) = (unique("q"), unique("q"), unique("topic"));
    let policy = QueueMessagePolicy {
        expiration_seconds: 60,
        max_receive_count: 3,
        max_receive_queue: unique("dead"),
        ..QueueMessagePolicy::default()
    };
    let mut message = a_message(&format!("events_store:{topic};{first};queues:{second}"), 1);
    message.policy = Some(policy.clone());
    let sent = client
        .send_queue_message(message)
        .await
        .unwrap()
        .into_inner();
    assert!(!sent.is_error, "{}", sent.error);
    assert_eq!(sent.message_id, "1");
    assert!(sent.sent_at > 0);
    assert_eq!(sent.expiration_at, sent.sent_at + 60_000_000_000);
    for queue in [first, second] {
        let got = drain(&mut client, &queue, 1).await.remove(0);
        assert_eq!((got.message_id, got.channel), ("1".to_owned(), queue));
        assert_eq!(got.policy.as_ref(), Some(&policy));
    }
    let stored = next_event(&mut read(&mut client, &topic).await).await;
    assert_eq!((stored.event_id, stored.body), ("1".to_owned(), "1".into()));

    // Without a queue there is nothing that a policy could be for.
    let mut message = a_message(&format!("events_store:{topic}"), 2);
    message.policy = Some(policy);
    let sent = client
        .send_queue_message(message)
        .await
        .unwrap()
        .into_inner();
    assert!(!sent.is_error && sent.sent_at > 0 && sent.expiration_at == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_routes_stand_for_their_targets_on_every_call_that_sends() {
    let routes = r#"[{"Key":"audit","Routes":"events_store:audit.log;queues:audit.jobs"}]"#;
    let gateway = Gateway::with(KubemqConfig {
        routes: Routes::from_json(routes).unwrap(),
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let (queue, topic) = (unique("q"), unique("topic"));
    let result = client.send_event(an_event("routes:audit", 1, false)).await;
    assert!(result.unwrap().into_inner().sent);
    // A result for what is stored by its own pattern, whatever its targets are; none for the other one.
    let events = vec![
        an_event("routes:audit", 2, false),
        an_event(&format!("{topic};routes:audit"), 3, true),
    ];
    let results = client
        .send_events_stream(futures::stream::iter(events))
        .await;
    let mut results = results.unwrap().into_inner();
    let result = soon(results.message()).await.unwrap().unwrap();
    assert_eq!((&result.event_id[..], result.sent), ("3", true));
    assert!(soon(results.message()).await.unwrap().is_none());
    let list = format!("{queue};routes:audit");
    let message = client
        .send_queue_message(a_message("routes:audit", 4))
        .await;
    assert!(!message.unwrap().into_inner().is_error);
    let batch = QueueMessagesBatchRequest {
        batch_id: "b".to_owned(),
        messages: vec![
            a_message(&list, 5),
            a_message(&queue, 6),
            a_message("routes:none", 7),
        ],
    };
    let batch = client
        .send_queue_messages_batch(batch)
        .await
        .unwrap()
        .into_inner();
    let errors: Vec<&str> = batch.results.iter().map(|one| &one.error[..]).collect();
    assert_eq!(errors, ["", "", "route \"none\" is not configured"]);
    assert!(batch.have_errors);
    let request = QueuesUpstreamRequest {
        request_id: "r".to_owned(),
        messages: vec![a_message(&list, 8)],
    };
    let answers = client
        .queues_upstream(futures::stream::iter([request]))
        .await;
    let answer = soon(answers.unwrap().into_inner().message()).await;
    assert!(!answer.unwrap().unwrap().results[0].is_error);

    let all = ["1", "2", "3", "4", "5", "8"];
    assert_eq!(bodies(&drain(&mut client, "audit.jobs", 6).await), all);
    let mut log = read(&mut client, "audit.log").await;
    for body in all {
        assert_eq!(next_event(&mut log).await.body, body);
    }
    assert_eq!(
        bodies(&drain(&mut client, &queue, 3).await),
        ["5", "6", "8"]
    );
    assert_eq!(
        next_event(&mut read(&mut client, &topic).await).await.body,
        "3"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_with_one_wrong_target_sends_nothing_and_is_refused_as_a_plain_channel_is() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    let list = format!("queues:{queue};events:a b");
    let text = "Error 108: invalid channel value, no white spaces are allowed";
    for store in [false, true] {
        let refused = client
            .send_event(an_event(&list, 1, store))
            .await
            .unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Internal, text));
        let events = futures::stream::iter([an_event(&list, 2, store)]);
        let results = client.send_events_stream(events).await;
        let result = soon(results.unwrap().into_inner().message()).await;
        let result = result.unwrap().unwrap();
        assert_eq!((result.sent, &result.error[..]), (false, text));
    }
    let sent = client
        .send_queue_message(a_message(&list, 3))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((sent.is_error, &sent.error[..]), (true, text));
    assert_eq!((sent.sent_at, &sent.message_id[..]), (0, "3"));
    let mut empty = a_message(&format!("{queue};queues:other"), 4);
    empty.body.clear();
    let sent = client.send_queue_message(empty).await.unwrap().into_inner();
    assert_eq!(sent.error, "Error 110: invalid message, cannot be empty");
    let nobody = Event {
        client_id: String::new(),
        ..an_event(&list, 5, false)
    };
    let refused = client.send_event(nobody).await.unwrap_err();
    assert!(refused.message().starts_with("Error 101"), "{refused}");
    assert!(is_unused(&gateway, &queue).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_of_a_send_are_bounded_by_the_setting() {
    let gateway = Gateway::with(KubemqConfig {
        route_targets_max: 2,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    let list = format!("{queue};events:a;events:b");
    let sent = client
        .send_queue_message(a_message(&list, 1))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        sent.error,
        "the channel names more than 2 targets: name fewer of them"
    );
    assert!(is_unused(&gateway, &queue).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_stream_keep_their_order_in_a_queue_by_whichever_name_they_came() {
    const MESSAGES: usize = 300;
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (queue, copy) = (unique("q"), unique("copy"));
    let several = format!("queues:{copy};{queue}");
    // Large enough that copies are handed over before all of them are made.
    let body = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
    let (sender, stream) = requests();
    let answers = client.queues_upstream(stream).await;
    let mut answers = answers.unwrap().into_inner();
    let sending = async {
        for number in 0..MESSAGES {
            let channel = if number % 3 == 0 { &several } else { &queue };
            let message = QueueMessage {
                metadata: number.to_string(),
                body: body.clone(),
                ..a_message(channel, number)
            };
            let request = QueuesUpstreamRequest {
                request_id: number.to_string(),
                messages: vec![message],
            };
            sender.send(request).await.unwrap();
        }
    };
    let answering = async {
        for number in 0..MESSAGES {
            let answer = soon(answers.message()).await.unwrap().unwrap();
            assert_eq!(answer.ref_request_id, number.to_string());
            assert!(!answer.results[0].is_error, "{}", answer.results[0].error);
        }
    };
    tokio::join!(sending, answering);
    for (queue, step) in [(queue, 1), (copy, 3)] {
        let mut downstream = Downstream::open(&mut client).await;
        for number in (0..MESSAGES).step_by(step) {
            let got = downstream.get(&queue, 1, true).await.messages;
            assert_eq!(got[0].metadata, number.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_copies_of_a_large_message_all_arrive() {
    const TARGETS: usize = 40;
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queues: Vec<String> = (0..TARGETS).map(|_| unique("copy")).collect();
    let mut message = a_message(&queues.join(";"), 1);
    message.body = vec![b'x'; 1 << 20].into();
    let sent = soon(client.send_queue_message(message)).await.unwrap();
    assert!(!sent.get_ref().is_error, "{}", sent.get_ref().error);
    for queue in &queues {
        assert_eq!(drain(&mut client, queue, 1).await[0].body.len(), 1 << 20);
    }
}

/// What cannot be stored is not acknowledged, though another target has it.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_target_that_fails_is_the_answer() {
    let full = |cluster: &mut ClusterConfig| cluster.queue.messages_max = Some(1);
    let gateway = Gateway::over(KubemqConfig::default(), full).await;
    let mut client = gateway.client().await;
    let (full, empty) = (unique("full"), unique("empty"));
    fill(&mut client, &full, 1).await;
    let list = format!("{empty};queues:{full}");
    let sent = client
        .send_queue_message(a_message(&list, 2))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (sent.is_error, &sent.error[..]),
        (true, "the queue is full: 1 of at most 1 messages")
    );
    assert_eq!(bodies(&drain(&mut client, &empty, 1).await), ["2"]);
    // An event that is not stored has no result to say it in.
    let refused = client
        .send_event(an_event(&format!("queues:{full}"), 3, false))
        .await;
    let refused = refused.unwrap_err();
    assert!(
        refused.message().starts_with("the queue is full"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_send_takes_no_list() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (queue, target) = (unique("q"), unique("target"));
    let list = format!("events:x;queues:{target}");
    fill(&mut client, &queue, 1).await;
    let mut listener = listen(&mut client, &list).await;
    client.send_event(an_event("x", 1, false)).await.unwrap();
    let heard = tokio::time::timeout(QUIET, listener.message()).await;
    assert!(heard.is_err(), "a subscription is to one channel");
    let mut downstream = Downstream::open(&mut client).await;
    let got = downstream.get(&queue, 1, false).await;
    downstream
        .settle(Type::NAckAll, &got.transaction_id, &[])
        .await;
    // The modified message of a transaction is a send.
    let (transaction, _) = Transaction::holding(&mut client, &queue, 60).await;
    let modified = a_message(&format!("{target};queues:{target}.copy"), 2);
    let done = transaction
        .finish(StreamRequestType::SendModifiedMessage, |request| {
            request.modified_message = Some(modified);
        })
        .await;
    assert!(!done.is_error, "{}", done.error);
    for queue in [target.clone(), format!("{target}.copy")] {
        assert_eq!(bodies(&drain(&mut client, &queue, 1).await), ["2"]);
    }
}
