//! Any events and queue messages, in any order, on the streams that send them.

use bytes::Bytes;
use flotilla_gateway::kubemq::protocol::{
    Event, QueueMessage, QueueMessagePolicy, QueuesUpstreamRequest,
};
use proptest::prelude::*;

use super::{a_channel, run, soon_in};

fn an_event() -> impl Strategy<Value = Event> {
    (
        a_channel(),
        any::<bool>(),
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.9),
    )
        .prop_map(|(channel, store, has_client, has_body)| Event {
            client_id: if has_client { "c" } else { "" }.to_owned(),
            channel,
            store,
            body: Bytes::from_static(if has_body { b"x" } else { b"" }),
            ..Event::default()
        })
}

fn a_policy() -> impl Strategy<Value = QueueMessagePolicy> {
    let seconds = || prop_oneof![3 => 0..3i32, 1 => any::<i32>()];
    (seconds(), seconds(), seconds(), a_channel()).prop_map(
        |(expiration_seconds, delay_seconds, max_receive_count, max_receive_queue)| {
            QueueMessagePolicy {
                expiration_seconds,
                delay_seconds,
                max_receive_count,
                max_receive_queue,
            }
        },
    )
}

fn a_queue_message() -> impl Strategy<Value = QueueMessage> {
    (an_event(), prop::option::weighted(0.3, a_policy())).prop_map(|(event, policy)| QueueMessage {
        client_id: event.client_id,
        channel: event.channel,
        body: event.body,
        policy,
        ..QueueMessage::default()
    })
}

#[test]
fn any_events_get_a_result_each_if_stored_and_only_for_a_failure_if_not() {
    let strategy = prop::collection::vec(an_event(), 0..30);
    run(120, &strategy, |runtime, gateway| {
        let client = runtime.block_on(gateway.client());
        move |events: Vec<Event>| {
            let events: Vec<Event> = (0..)
                .zip(events)
                .map(|(number, event): (u32, Event)| Event {
                    event_id: number.to_string(),
                    ..event
                })
                .collect();
            let stored: Vec<bool> = events.iter().map(|event| event.store).collect();
            let mut client = client.clone();
            let results = soon_in(&runtime, async {
                let answers = client
                    .send_events_stream(futures::stream::iter(events))
                    .await;
                let mut answers = answers.unwrap().into_inner();
                let mut results = Vec::new();
                while let Some(result) = answers.message().await.unwrap() {
                    results.push(result);
                }
                results
            });
            let mut answered = vec![0; stored.len()];
            let mut last = None;
            for result in results {
                let number: usize = result.event_id.parse().unwrap();
                assert!(last < Some(number), "out of order");
                last = Some(number);
                answered[number] += 1;
                assert_eq!(result.sent, result.error.is_empty());
                assert!(stored[number] || !result.sent);
            }
            for (stored, answered) in stored.into_iter().zip(answered) {
                assert!(answered == 1 || (!stored && answered == 0));
            }
            let _ = &gateway;
        }
    });
}

#[test]
fn any_upstream_request_is_answered_once_in_order_with_a_result_for_each_message() {
    let messages = prop::collection::vec(a_queue_message(), 0..6);
    let strategy = prop::collection::vec(messages, 0..12);
    run(120, &strategy, |runtime, gateway| {
        let client = runtime.block_on(gateway.client());
        move |requests: Vec<Vec<QueueMessage>>| {
            let counts: Vec<usize> = requests.iter().map(Vec::len).collect();
            let numbered = (0..).zip(requests).map(|(number, messages)| {
                let name = |(place, message): (usize, QueueMessage)| QueueMessage {
                    message_id: format!("{number}/{place}"),
                    ..message
                };
                let messages = messages.into_iter().enumerate().map(name).collect();
                let number: u32 = number;
                QueuesUpstreamRequest {
                    request_id: number.to_string(),
                    messages,
                }
            });
            let requests: Vec<QueuesUpstreamRequest> = numbered.collect();
            let mut client = client.clone();
            let answers = soon_in(&runtime, async {
                let answers = client
                    .queues_upstream(futures::stream::iter(requests))
                    .await;
                let mut answers = answers.unwrap().into_inner();
                let mut all = Vec::new();
                while let Some(answer) = answers.message().await.unwrap() {
                    all.push(answer);
                }
                all
            });
            assert_eq!(answers.len(), counts.len());
            for (number, (answer, count)) in answers.iter().zip(counts).enumerate() {
                assert_eq!(answer.ref_request_id, number.to_string());
                assert_eq!(answer.is_error, count == 0);
                assert_eq!(answer.results.len(), count);
                for (place, result) in answer.results.iter().enumerate() {
                    assert_eq!(result.message_id, format!("{number}/{place}"));
                    assert_eq!(result.is_error, !result.error.is_empty());
                    assert_eq!(result.is_error, result.sent_at == 0);
                }
            }
            let _ = &gateway;
        }
    });
}
