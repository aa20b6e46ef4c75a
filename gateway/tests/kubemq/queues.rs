//! The unary queue calls.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flotilla_gateway::kubemq::protocol::{
    AckAllQueueMessagesRequest, QueueMessage, QueueMessagePolicy, QueueMessagesBatchRequest,
    ReceiveQueueMessagesRequest, ReceiveQueueMessagesResponse,
};
use tonic::Code;

use crate::support::{Client, Gateway, a_message, bodies, fill, sequences, soon, unique};

async fn receive(
    client: &mut Client,
    queue: &str,
    count: i32,
    is_peak: bool,
) -> ReceiveQueueMessagesResponse {
    let request = ReceiveQueueMessagesRequest {
        request_id: "r".to_owned(),
        client_id: "c".to_owned(),
        channel: queue.to_owned(),
        max_number_of_messages: count,
        wait_time_seconds: 1,
        is_peak,
    };
    soon(client.receive_queue_messages(request))
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_received_message_is_gone_and_a_peeked_one_stays() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 3).await;
    let peeked = receive(&mut client, &queue, 2, true).await;
    assert!(peeked.is_peak);
    assert_eq!(bodies(&peeked.messages), ["1", "2"]);
    let received = receive(&mut client, &queue, 2, false).await;
    assert_eq!(received.request_id, "r");
    assert_eq!(received.messages_received, 2);
    assert_eq!(bodies(&received.messages), ["1", "2"]);
    assert_eq!(sequences(&received.messages), [1, 2]);
    let attributes = received.messages[0].attributes.as_ref().unwrap();
    assert_eq!(attributes.receive_count, 1);
    let rest = receive(&mut client, &queue, 1, false).await;
    assert_eq!(bodies(&rest.messages), ["3"]);
    let empty = receive(&mut client, &queue, 1, false).await;
    assert!(!empty.is_error && empty.messages.is_empty());
    // All are removed, not only leased: an end of their sessions would bring them back.
    soon(async {
        while gateway
            .broker
            .queue(&flotilla_model::name::Name::queue(&queue).unwrap())
            .await
            .unwrap()
            .leased
            > 0
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(
        receive(&mut client, &queue, 1, true)
            .await
            .messages
            .is_empty()
    );
}

/// Queues that are tried before the next second.
const TRIES: usize = 8;

/// Expired messages go by themselves within 50 ms: only who comes before that finds them.
#[tokio::test(flavor = "multi_thread")]
async fn a_receive_counts_the_expired_messages_that_it_finds_and_delivers_none() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    soon(async {
        loop {
            let mut tries = Vec::new();
            for _ in 0..TRIES {
                let queue = unique("q");
                let brief = QueueMessage {
                    policy: Some(QueueMessagePolicy {
                        expiration_seconds: 1,
                        ..QueueMessagePolicy::default()
                    }),
                    ..a_message(&queue, 1)
                };
                let sent = client.send_queue_message(brief).await.unwrap();
                tries.push((queue.clone(), sent.into_inner().expiration_at));
                client
                    .send_queue_message(a_message(&queue, 2))
                    .await
                    .unwrap();
            }
            for (queue, expires_ns) in tries {
                let expires = UNIX_EPOCH + Duration::from_nanos(expires_ns.unsigned_abs());
                let left = expires
                    .duration_since(SystemTime::now())
                    .unwrap_or_default();
                tokio::time::sleep(left + Duration::from_millis(1)).await;
                let received = receive(&mut client, &queue, 1, false).await;
                assert_eq!(bodies(&received.messages), ["2"]);
                assert_eq!(received.messages_received, 1);
                if received.messages_expired == 1 {
                    return;
                }
                assert_eq!(received.messages_expired, 0);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_whose_client_left_takes_nothing_with_it() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    // It waits for more than there will be, so it ends only by being given up.
    let waiting = {
        let (mut client, queue) = (client.clone(), queue.clone());
        tokio::spawn(async move {
            let request = ReceiveQueueMessagesRequest {
                client_id: "c".to_owned(),
                channel: queue,
                max_number_of_messages: 10,
                wait_time_seconds: 3_000,
                ..ReceiveQueueMessagesRequest::default()
            };
            client.receive_queue_messages(request).await
        })
    };
    fill(&mut client, &queue, 3).await;
    waiting.abort();
    let _ = waiting.await;
    let mut got = Vec::new();
    while got.len() < 3 {
        got.extend(bodies(
            &receive(&mut client, &queue, 3, false).await.messages,
        ));
    }
    assert_eq!(got, ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_of_a_batch_succeeds_or_fails_alone() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (one, two) = (unique("q"), unique("q"));
    let mut messages = vec![
        a_message(&one, 1),
        a_message("bad name", 2),
        a_message(&two, 3),
    ];
    messages[2].policy = Some(QueueMessagePolicy {
        expiration_seconds: 50,
        delay_seconds: 10,
        ..QueueMessagePolicy::default()
    });
    let response = client
        .send_queue_messages_batch(QueueMessagesBatchRequest {
            batch_id: "b".to_owned(),
            messages,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(response.batch_id, "b");
    assert!(response.have_errors);
    let ids: Vec<&str> = response
        .results
        .iter()
        .map(|one| one.message_id.as_str())
        .collect();
    assert_eq!(ids, ["1", "2", "3"]);
    assert!(response.results[1].is_error);
    assert!(response.results[1].error.starts_with("Error 120: "));
    let last = &response.results[2];
    assert_eq!(last.delayed_to - last.sent_at, 10_000_000_000);
    assert_eq!(last.expiration_at - last.sent_at, 60_000_000_000);
    assert_eq!(
        bodies(&receive(&mut client, &one, 1, false).await.messages),
        ["1"]
    );

    let empty = client
        .send_queue_messages_batch(QueueMessagesBatchRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (empty.code(), empty.message()),
        (Code::Unknown, "empty messages batch")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn emptying_a_queue_answers_at_once_with_how_many_went() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 5).await;
    let request = AckAllQueueMessagesRequest {
        request_id: "r".to_owned(),
        client_id: "c".to_owned(),
        channel: queue.clone(),
        wait_time_seconds: 60,
    };
    let emptied = soon(client.ack_all_queue_messages(request.clone())).await;
    assert_eq!(emptied.unwrap().into_inner().affected_messages, 5);
    let never_used = AckAllQueueMessagesRequest {
        channel: unique("never"),
        ..request
    };
    let emptied = soon(client.ack_all_queue_messages(never_used))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((emptied.affected_messages, emptied.is_error), (0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_long_polls_do_not_keep_others_waiting() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let polls: Vec<_> = (0..150)
        .map(|_| {
            let mut client = client.clone();
            let queue = unique("idle");
            tokio::spawn(async move { receive(&mut client, &queue, 1, false).await })
        })
        .collect();
    let queue = unique("busy");
    let started = std::time::Instant::now();
    fill(&mut client, &queue, 1).await;
    assert_eq!(
        bodies(&receive(&mut client, &queue, 1, false).await.messages),
        ["1"]
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    for poll in polls {
        assert!(poll.await.unwrap().messages.is_empty());
    }
}
