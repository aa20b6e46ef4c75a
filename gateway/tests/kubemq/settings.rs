//! Settings that change what calls do.

use std::time::Duration;

use flotilla_gateway::KubemqConfig;
use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequestType as Type;
use flotilla_gateway::kubemq::protocol::subscribe::{EventsStoreType, SubscribeType};
use flotilla_gateway::kubemq::protocol::{EventReceive, ReceiveQueueMessagesRequest, Subscribe};
use tonic::Streaming;

use crate::rest::support::until_gauge;
use crate::support::{
    Client, Downstream, Gateway, a_get, a_subscribe, bodies, fill, next_event, sequences, soon,
    store, unique,
};

/// Longer than any test waits.
const FOR_EVER_S: i32 = 3_600;

#[tokio::test(flavor = "multi_thread")]
async fn with_a_linger_a_receive_is_answered_that_long_after_its_first_message() {
    let gateway = Gateway::with(KubemqConfig {
        receive_linger: Some(Duration::from_millis(20)),
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 2).await;
    let receive = ReceiveQueueMessagesRequest {
        client_id: "c".to_owned(),
        channel: queue.clone(),
        max_number_of_messages: 10,
        wait_time_seconds: FOR_EVER_S,
        ..ReceiveQueueMessagesRequest::default()
    };
    let received = soon(client.receive_queue_messages(receive)).await.unwrap();
    assert_eq!(bodies(&received.into_inner().messages), ["1", "2"]);
    fill(&mut client, &queue, 3).await;
    let mut downstream = Downstream::open(&mut client).await;
    let get = a_get(&queue, 10, FOR_EVER_S * 1_000, true);
    downstream.send(Type::Get, get).await;
    assert_eq!(bodies(&downstream.answer().await.messages), ["1", "2", "3"]);
}

/// Reads a channel from its first event, or from where the group was.
async fn read(client: &mut Client, channel: &str, group: &str) -> Streaming<EventReceive> {
    let subscribe = Subscribe {
        group: group.to_owned(),
        events_store_type_data: EventsStoreType::StartFromFirst as i32,
        ..a_subscribe(SubscribeType::EventsStore as i32, channel, "c")
    };
    let events = soon(client.subscribe_to_events(subscribe)).await;
    events.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_durable_resume_a_client_starts_where_it_asks_to_and_a_group_goes_on() {
    let gateway = Gateway::with(KubemqConfig {
        durable_resume: false,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    for (group, goes_on) in [("", false), ("g", true)] {
        let channel = unique("c");
        store(&mut client, &channel, 10).await;
        let mut events = read(&mut client, &channel, group).await;
        for sequence in 1..=10 {
            assert_eq!(next_event(&mut events).await.sequence, sequence);
        }
        // A position is written down only after its event was: one more makes the tenth sure.
        store(&mut client, &channel, 1).await;
        assert_eq!(next_event(&mut events).await.sequence, 11);
        drop(events);
        until_gauge(&gateway, "flotilla_subscribers{kind=\"topic\"}", 0).await;
        let mut again = read(&mut client, &channel, group).await;
        store(&mut client, &channel, 1).await;
        let first = next_event(&mut again).await.sequence;
        assert_eq!(first > 10, goes_on, "it began at {first}");
        drop(again);
        until_gauge(&gateway, "flotilla_subscribers{kind=\"topic\"}", 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_downstream_holds_for_too_long_goes_back_while_its_client_is_there() {
    let gateway = Gateway::with(KubemqConfig {
        downstream_hold_max: Duration::from_secs(1),
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 2).await;
    let mut hung = Downstream::open(&mut client).await;
    let held = hung.get(&queue, 2, false).await;
    assert_eq!(sequences(&held.messages), [1, 2]);
    let mut other = Downstream::open(&mut client).await;
    let got = other.get(&queue, 2, true).await;
    assert_eq!(bodies(&got.messages), ["1", "2"]);
    // As if it had been given back: at the tail, and counted.
    assert_eq!(sequences(&got.messages), [3, 4]);
    for message in &got.messages {
        assert_eq!(message.attributes.as_ref().unwrap().receive_count, 2);
    }
    for kind in [Type::AckRange, Type::AckAll, Type::NAckAll] {
        hung.settle(kind, &held.transaction_id, &[1]).await;
        let answer = hung.answer().await;
        assert_eq!(
            (answer.is_error, &answer.error[..]),
            (true, "transaction is completed or transaction id not found")
        );
    }
    // The stream itself is as good as before.
    fill(&mut client, &queue, 1).await;
    assert_eq!(hung.get(&queue, 1, true).await.messages.len(), 1);
}
