//! The queue streams of newer clients.

use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_broker::BrokerConfig;
use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequestType as Type;
use flotilla_gateway::kubemq::protocol::{Empty, QueuesDownstreamRequest, QueuesUpstreamRequest};

use crate::support::{
    Downstream, Gateway, a_get, a_message, an_event, bodies, fill, leased, sequences, soon, store,
    unique,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_answers_each_request_once_and_in_order() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    let requests: Vec<QueuesUpstreamRequest> = (0..100)
        .map(|number| QueuesUpstreamRequest {
            request_id: number.to_string(),
            messages: (0..number % 4)
                .map(|part| a_message(&queue, number * 10 + part))
                .collect(),
        })
        .collect();
    let mut responses = client
        .queues_upstream(futures::stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let mut expected = Vec::new();
    for number in 0..100 {
        let response = soon(responses.message()).await.unwrap().unwrap();
        assert_eq!(response.ref_request_id, number.to_string());
        assert_eq!(response.is_error, number % 4 == 0);
        let ids: Vec<String> = (0..number % 4)
            .map(|part| (number * 10 + part).to_string())
            .collect();
        let got: Vec<String> = response
            .results
            .into_iter()
            .map(|one| one.message_id)
            .collect();
        assert_eq!(got, ids);
        expected.extend(ids);
    }
    assert!(soon(responses.message()).await.unwrap().is_none());
    let mut downstream = Downstream::open(&mut client).await;
    let got = downstream.get(&queue, expected.len() as i32, true).await;
    assert_eq!(bodies(&got.messages), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_together_may_be_more_than_the_broker_takes_at_a_time() {
    let gateway = Gateway::on_broker(BrokerConfig {
        batch_items_max: 10,
        ..BrokerConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    let requests: Vec<QueuesUpstreamRequest> = (0..20)
        .map(|number| QueuesUpstreamRequest {
            request_id: number.to_string(),
            messages: (0..12)
                .map(|part| a_message(&queue, number * 12 + part))
                .collect(),
        })
        .collect();
    let mut responses = client
        .queues_upstream(futures::stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    for number in 0..20 {
        let response = soon(responses.message()).await.unwrap().unwrap();
        assert_eq!(response.ref_request_id, number.to_string());
        assert_eq!(response.results.len(), 12);
        for result in response.results {
            assert!(!result.is_error, "{}", result.error);
        }
    }
    let mut downstream = Downstream::open(&mut client).await;
    let got = downstream.get(&queue, 240, true).await;
    let expected: Vec<String> = (0..240).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&got.messages), expected);
    // Stored events too, and plain ones.
    store(&mut client, &unique("e"), 100).await;
    let events: Vec<_> = (0..100)
        .map(|number| an_event(&unique("e"), number, false))
        .collect();
    let events = futures::stream::iter(events);
    let results = client.send_events_stream(events).await.unwrap();
    let failure = soon(results.into_inner().message()).await.unwrap();
    assert_eq!(failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn settlements_are_silent_and_take_effect_in_order() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 6).await;
    let mut downstream = Downstream::open(&mut client).await;
    let got = downstream.get(&queue, 6, false).await;
    assert_eq!(sequences(&got.messages), [1, 2, 3, 4, 5, 6]);
    let id = got.transaction_id;
    downstream.settle(Type::AckRange, &id, &[2, 1]).await;
    downstream.settle(Type::NAckRange, &id, &[4]).await;
    downstream.settle(Type::ActiveOffsets, &id, &[]).await;
    let offsets = downstream.answer().await;
    assert_eq!(offsets.request_type_data, Type::ActiveOffsets as i32);
    assert_eq!(offsets.active_offsets, [3, 5, 6]);
    // What was given back has a new place at the tail, and the get after it sees that.
    let again = downstream.get(&queue, 1, false).await;
    assert_eq!(bodies(&again.messages), ["4"]);
    assert_eq!(sequences(&again.messages), [7]);
    assert_eq!(
        again.messages[0].attributes.as_ref().unwrap().receive_count,
        2
    );
    downstream.settle(Type::AckRange, &id, &[3, 99, 5]).await;
    let error = downstream.answer().await;
    assert_eq!(error.error, "invalid ack sequence id 99");
    assert_eq!(error.ref_request_id, "settle");
    downstream.settle(Type::CloseByClient, &id, &[]).await;
    let back = downstream.get(&queue, 2, false).await;
    assert_eq!(
        sequences(&back.messages),
        [5, 6],
        "a close keeps the old places"
    );
    downstream.settle(Type::TransactionStatus, &id, &[]).await;
    assert!(downstream.answer().await.transaction_complete);
    downstream.settle(Type::AckAll, &id, &[]).await;
    let error = downstream.answer().await;
    assert_eq!(
        error.error,
        "transaction is completed or transaction id not found"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_does_not_wait_for_a_get() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (queue, idle) = (unique("q"), unique("idle"));
    fill(&mut client, &queue, 1).await;
    let mut downstream = Downstream::open(&mut client).await;
    let got = downstream.get(&queue, 1, false).await;
    downstream
        .send(Type::Get, a_get(&idle, 1, 600_000, false))
        .await;
    downstream
        .settle(Type::AckAll, &got.transaction_id, &[])
        .await;
    downstream
        .settle(Type::TransactionStatus, &got.transaction_id, &[])
        .await;
    let status = downstream.answer().await;
    assert_eq!(status.request_type_data, Type::TransactionStatus as i32);
    assert!(status.transaction_complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_get_is_answered_at_its_time_and_opens_nothing() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let mut downstream = Downstream::open(&mut client).await;
    for wait_ms in [0, 300] {
        let started = Instant::now();
        downstream
            .send(Type::Get, a_get(&unique("idle"), 1, wait_ms, false))
            .await;
        let answer = downstream.answer().await;
        assert!(!answer.is_error && answer.messages.is_empty());
        assert!(!answer.transaction_id.is_empty());
        assert!(started.elapsed() >= Duration::from_millis(wait_ms as u64));
        downstream
            .settle(Type::AckAll, &answer.transaction_id, &[])
            .await;
        assert!(downstream.answer().await.is_error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_client_held_goes_to_others_in_its_old_place() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 4).await;
    let mut lost = gateway.client().await;
    let mut downstream = Downstream::open(&mut lost).await;
    assert_eq!(downstream.get(&queue, 3, false).await.messages.len(), 3);
    // It also has a get that waits, which must not swallow anything either.
    downstream
        .send(Type::Get, a_get(&queue, 100, 600_000, false))
        .await;
    drop(downstream);
    drop(lost);
    let mut other = Downstream::open(&mut client).await;
    let got = other.get(&queue, 4, false).await;
    assert_eq!(sequences(&got.messages), [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_downstream_answers_what_is_pending_then_gives_back_and_ends() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 2).await;
    let mut downstream = Downstream::open(&mut client).await;
    downstream.get(&queue, 2, false).await;
    downstream
        .send(Type::Get, a_get(&queue, 1, 500, false))
        .await;
    downstream.half_close();
    assert!(downstream.answer().await.messages.is_empty());
    downstream.end().await.unwrap();
    let mut other = Downstream::open(&mut client).await;
    assert_eq!(
        sequences(&other.get(&queue, 2, false).await.messages),
        [1, 2]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_acknowledged_messages_are_gone_even_if_the_client_leaves_at_once() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 3).await;
    let mut downstream = Downstream::open(&mut client).await;
    let got = downstream.get(&queue, 2, true).await;
    downstream
        .settle(Type::AckAll, &got.transaction_id, &[])
        .await;
    let error = downstream.answer().await;
    assert_eq!(error.error, "cannot ack messages with closed response ");
    drop(downstream);
    let mut other = Downstream::open(&mut client).await;
    let rest = other.get(&queue, 1, false).await;
    assert_eq!(bodies(&rest.messages), ["3"]);
    other.send(Type::Get, a_get(&queue, 1, 0, false)).await;
    assert!(other.answer().await.messages.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_request_is_answered_and_the_stream_goes_on() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let mut downstream = Downstream::open(&mut client).await;
    for kind in [
        Type::PollRequestTypeUnknown as i32,
        Type::CloseByServer as i32,
        77,
    ] {
        let request = QueuesDownstreamRequest {
            request_id: "r".to_owned(),
            ..QueuesDownstreamRequest::default()
        };
        downstream.send_as(kind, request).await;
        let answer = downstream.answer().await;
        assert!(answer.is_error);
        assert_eq!(answer.error, "request unknown");
        assert_eq!(answer.request_type_data, 0);
        assert_eq!(answer.ref_request_id, "r");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_acknowledged_messages_that_found_no_room_at_the_client_come_back() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    for number in 1..=3 {
        let mut message = a_message(&queue, number);
        message.body = Bytes::from(vec![b'x'; 512 * 1024]);
        client.send_queue_message(message).await.unwrap();
    }
    let mut narrow = gateway
        .client_with(|endpoint| {
            endpoint
                .initial_stream_window_size(65_535)
                .initial_connection_window_size(65_535)
        })
        .await;
    let downstream = Downstream::open(&mut narrow).await;
    downstream
        .send(Type::Get, a_get(&queue, 3, 10_000, true))
        .await;
    soon(async {
        while leased(&gateway, &queue).await < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // All of the response that the window takes has been sent by the time of a later answer.
    client.ping(Empty {}).await.unwrap();
    drop(downstream);
    drop(narrow);
    let mut other = Downstream::open(&mut client).await;
    let got = other.get(&queue, 3, false).await;
    assert_eq!(sequences(&got.messages), [1, 2, 3]);
}
