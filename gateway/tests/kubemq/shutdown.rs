//! The end of a gateway: no client is left waiting, and none takes it for a proper end.

use std::time::{Duration, Instant};

use flotilla_gateway::kubemq::protocol::subscribe::EventsStoreType;
use flotilla_gateway::kubemq::protocol::{
    Event, QueuesUpstreamRequest, ReceiveQueueMessagesRequest, Subscribe,
};
use futures::StreamExt;
use tonic::{Code, Status};

use crate::support::{
    Downstream, Gateway, a_message, a_subscribe, an_event, fill, soon, store, unique,
};

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_polls_end_with_unavailable_and_leases_go_back() {
    let mut gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (channel, queue) = (unique("c"), unique("q"));
    store(&mut client, &channel, 1).await;
    fill(&mut client, &queue, 1).await;
    let mut events = client
        .subscribe_to_events(a_subscribe(1, &channel, "c"))
        .await
        .unwrap()
        .into_inner();
    let mut stored = client
        .subscribe_to_events(Subscribe {
            events_store_type_data: EventsStoreType::StartFromFirst as i32,
            ..a_subscribe(2, &channel, "c")
        })
        .await
        .unwrap()
        .into_inner();
    let first = futures::stream::iter([an_event(&channel, 1, true)]);
    let mut results = client
        .send_events_stream(first.chain(futures::stream::pending::<Event>()))
        .await
        .unwrap()
        .into_inner();
    let first = futures::stream::iter([QueuesUpstreamRequest {
        request_id: "1".to_owned(),
        messages: vec![a_message(&unique("q"), 1)],
    }]);
    let mut upstream = client
        .queues_upstream(first.chain(futures::stream::pending()))
        .await
        .unwrap()
        .into_inner();
    soon(results.message()).await.unwrap().unwrap();
    soon(upstream.message()).await.unwrap().unwrap();
    let mut downstream = Downstream::open(&mut client).await;
    downstream.get(&queue, 1, false).await;
    let poll = {
        let mut client = client.clone();
        tokio::spawn(async move {
            let request = ReceiveQueueMessagesRequest {
                client_id: "c".to_owned(),
                channel: unique("idle"),
                max_number_of_messages: 1,
                wait_time_seconds: 3_000,
                ..ReceiveQueueMessagesRequest::default()
            };
            client.receive_queue_messages(request).await
        })
    };
    // The poll has begun once a later call of the same connection was answered.
    client
        .ping(flotilla_gateway::kubemq::protocol::Empty {})
        .await
        .unwrap();

    let started = Instant::now();
    gateway.stop();
    let mut endings: Vec<Status> = Vec::new();
    endings.push(soon(events.message()).await.unwrap_err());
    soon(async {
        loop {
            match stored.message().await {
                Ok(event) => assert!(event.is_some(), "ended as if it were complete"),
                Err(status) => return endings.push(status),
            }
        }
    })
    .await;
    endings.push(soon(results.message()).await.unwrap_err());
    endings.push(soon(upstream.message()).await.unwrap_err());
    endings.push(downstream.end().await.unwrap_err());
    endings.push(soon(poll).await.unwrap().unwrap_err());
    for status in endings {
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "Error 409: server is in shutdown mode");
    }
    let broker = gateway.broker.clone();
    gateway.ended().await.unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "it waited for its deadline"
    );
    let name = flotilla_model::name::Name::queue(&queue).unwrap();
    assert_eq!(broker.queue(&name).await.unwrap().leased, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_always_has_more_ends_too() {
    let mut gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let channel = unique("flood");
    let mut events = client
        .subscribe_to_events(a_subscribe(1, &channel, "c"))
        .await
        .unwrap()
        .into_inner();
    let flood = {
        let (mut client, channel) = (client.clone(), channel.clone());
        tokio::spawn(async move {
            let endless = futures::stream::repeat_with(move || an_event(&channel, 1, false));
            client
                .send_events_stream(endless)
                .await
                .unwrap()
                .into_inner()
                .message()
                .await
        })
    };
    soon(events.message()).await.unwrap();
    gateway.stop();
    let ended = soon(async {
        loop {
            if let Err(status) = events.message().await {
                return status;
            }
        }
    })
    .await;
    assert_eq!(ended.code(), Code::Unavailable);
    assert_eq!(
        soon(flood).await.unwrap().unwrap_err().code(),
        Code::Unavailable
    );
    gateway.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_ready_serves_no_call() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    client
        .ping(flotilla_gateway::kubemq::protocol::Empty {})
        .await
        .unwrap();
    gateway.broker.shutdown().await;
    let status = soon(async {
        loop {
            match client
                .ping(flotilla_gateway::kubemq::protocol::Empty {})
                .await
            {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(status) => return status,
            }
        }
    })
    .await;
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.message(),
        "grpc server is not ready to accept requests"
    );
}
