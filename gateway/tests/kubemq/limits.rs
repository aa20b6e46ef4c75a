//! What a client may not do, and what it may.

use std::time::Duration;

use bytes::Bytes;
use flotilla_gateway::KubemqConfig;
use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequestType as Type;
use flotilla_gateway::kubemq::protocol::{
    Empty, QueueMessagesBatchRequest, QueuesDownstreamRequest, QueuesUpstreamRequest,
};
use flotilla_model::name::Name;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::{
    Downstream, Gateway, a_get, a_message, an_event, fill, leased, soon, unique, until_held_back,
};

#[tokio::test(flavor = "multi_thread")]
async fn pings_of_a_client_without_calls_are_tolerated() {
    let gateway = Gateway::start().await;
    let mut client = gateway
        .client_with(|endpoint| {
            endpoint
                .http2_keep_alive_interval(Duration::from_millis(10))
                .keep_alive_timeout(Duration::from_secs(5))
                .keep_alive_while_idle(true)
        })
        .await;
    client.ping(Empty {}).await.unwrap();
    // A server that minds would have closed the connection after a few pings.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let answer = client.ping(Empty {}).await.unwrap().into_inner();
    assert_eq!(answer.version, "2.6.0");
    assert!(!answer.host.is_empty());
    assert!(answer.server_start_time > 0 && answer.server_up_time_seconds >= 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_and_silent_ones_are_closed() {
    let gateway = Gateway::with(KubemqConfig {
        connections_max: 1,
        handshake_wait_max: Duration::from_millis(200),
        ..KubemqConfig::default()
    })
    .await;
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    let mut surplus = TcpStream::connect(gateway.address).await.unwrap();
    let mut byte = [0];
    // Closed without a word: the end of the stream, or a reset.
    assert!(!matches!(soon(surplus.read(&mut byte)).await, Ok(1..)));
    while matches!(soon(silent.read(&mut byte)).await, Ok(1..)) {}
    soon(async {
        while silent.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Its place is free again.
    gateway.client().await.ping(Empty {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_end_its_opening_is_closed_and_one_that_did_is_kept() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let gateway = Gateway::with(KubemqConfig {
        handshake_wait_max: Duration::from_millis(300),
        ..KubemqConfig::default()
    })
    .await;
    for begun in [&PREFACE[..1], &PREFACE[..23]] {
        let mut connection = TcpStream::connect(gateway.address).await.unwrap();
        connection.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        // An error is an end as well: the connection was reset.
        let _ = soon(connection.read_to_end(&mut rest)).await;
    }
    let mut connection = TcpStream::connect(gateway.address).await.unwrap();
    connection
        .write_all(&[PREFACE, SETTINGS].concat())
        .await
        .unwrap();
    let mut rest = Vec::new();
    let reading = connection.read_to_end(&mut rest);
    let kept = tokio::time::timeout(Duration::from_millis(900), reading).await;
    assert!(kept.is_err(), "it was closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_would_unfold_in_memory_is_refused_and_harms_nothing_else() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let refused = client
        .send_queue_messages_batch(QueueMessagesBatchRequest {
            batch_id: String::new(),
            messages: vec![Default::default(); 70_000],
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    client.ping(Empty {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_near_the_limit_goes_through_and_one_above_it_is_refused() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("large");
    let mut message = a_message(&queue, 1);
    message.body = Bytes::from(vec![b'x'; 99 << 20]);
    let sent = soon(client.send_queue_message(message.clone()))
        .await
        .unwrap();
    assert!(!sent.get_ref().is_error, "{}", sent.get_ref().error);
    let mut downstream = Downstream::open(&mut client).await;
    let got = downstream.get(&queue, 10, true).await;
    assert_eq!(got.messages[0].body.len(), 99 << 20);
    message.body = Bytes::from(vec![b'x'; 101 << 20]);
    assert!(soon(client.send_queue_message(message)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_a_stream_are_bounded() {
    let gateway = Gateway::with(KubemqConfig {
        transactions_per_stream_max: 2,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 3).await;
    let mut downstream = Downstream::open(&mut client).await;
    let first = downstream.get(&queue, 1, false).await;
    downstream.get(&queue, 1, false).await;
    downstream
        .send(Type::Get, a_get(&queue, 1, 1_000, false))
        .await;
    let refused = downstream.answer().await;
    assert_eq!(
        refused.error,
        "too many open transactions on this stream, at most 2 are allowed"
    );
    downstream
        .settle(Type::AckAll, &first.transaction_id, &[])
        .await;
    assert_eq!(downstream.get(&queue, 1, false).await.messages.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_gets_no_more_and_has_its_settlements_made() {
    const LARGE: usize = 40;
    let gateway = Gateway::with(KubemqConfig {
        downstream_bytes_max: 1 << 20,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let (queue, large) = (unique("q"), unique("large"));
    fill(&mut client, &queue, 2).await;
    for number in 0..LARGE {
        let mut message = a_message(&large, number);
        message.body = Bytes::from(vec![b'x'; 1 << 20]);
        let sent = client.send_queue_message(message).await.unwrap();
        assert!(!sent.get_ref().is_error, "{}", sent.get_ref().error);
    }
    let mut downstream = Downstream::open(&mut client).await;
    let held = downstream.get(&queue, 2, false).await;
    // More than the client's window and the transport take in, all of them at once.
    for _ in 0..LARGE {
        downstream
            .send(Type::Get, a_get(&large, 1, 10_000, false))
            .await;
    }
    until_held_back(&gateway, &large, LARGE as u64 / 2).await;
    // The last of these finds it so in any case.
    for number in 0..20 {
        let more = QueuesDownstreamRequest {
            request_id: format!("more {number}"),
            ..a_get(&queue, 1, 0, false)
        };
        downstream.send(Type::Get, more).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    downstream
        .settle(Type::AckAll, &held.transaction_id, &[])
        .await;
    let name = Name::queue(&queue).unwrap();
    soon(async {
        while gateway.broker.queue(&name).await.unwrap().messages != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let unread = leased(&gateway, &large).await;
    assert!(unread <= LARGE as u64 / 2, "{unread} MiB");
    // What was held back comes once the client reads.
    let (mut errors, mut got) = (Vec::new(), 0);
    for _ in 0..LARGE + 20 {
        let answer = downstream.answer().await;
        got += answer.messages.len() as u64;
        if answer.is_error {
            errors.push((answer.ref_request_id, answer.error));
        }
    }
    let text = "the client must read the answers of this stream before it gets more messages";
    assert_eq!(errors.pop(), Some(("more 19".to_owned(), text.to_owned())));
    assert!(got > LARGE as u64 / 2, "{got}");
    soon(async {
        while leased(&gateway, &large).await != got {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_echoed_are_bounded() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    let id = "x".repeat(1_025);
    let text = |what| format!("the {what} has 1025 bytes, at most 1024 are allowed");
    let mut downstream = Downstream::open(&mut client).await;
    let get = QueuesDownstreamRequest {
        request_id: id.clone(),
        ..a_get(&queue, 1, 0, false)
    };
    downstream.send(Type::Get, get).await;
    let answer = downstream.answer().await;
    assert!(answer.is_error);
    assert_eq!(answer.error, text("request id"));
    assert_eq!(answer.ref_request_id, id[..1_024]);
    downstream.settle(Type::AckAll, &id, &[]).await;
    assert_eq!(downstream.answer().await.error, text("transaction id"));
    let sent = QueuesUpstreamRequest {
        request_id: id.clone(),
        messages: vec![a_message(&queue, 1)],
    };
    let answers = client.queues_upstream(futures::stream::iter([sent])).await;
    let answer = soon(answers.unwrap().into_inner().message()).await;
    let answer = answer.unwrap().unwrap();
    assert_eq!(answer.error, text("request id"));
    assert_eq!(answer.ref_request_id, id[..1_024]);
    let batch = QueueMessagesBatchRequest {
        batch_id: id,
        messages: vec![a_message(&queue, 1)],
    };
    let refused = client.send_queue_messages_batch(batch).await.unwrap_err();
    assert_eq!(refused.message(), text("batch id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_ids_get_new_ones() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut event = an_event(&unique("e"), 1, true);
        event.event_id.clear();
        ids.push(
            client
                .send_event(event)
                .await
                .unwrap()
                .into_inner()
                .event_id,
        );
        let mut message = a_message(&unique("q"), 1);
        message.message_id.clear();
        ids.push(
            client
                .send_queue_message(message)
                .await
                .unwrap()
                .into_inner()
                .message_id,
        );
    }
    assert!(ids.iter().all(|id| !id.is_empty()));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_beyond_the_setting_is_refused_in_words_and_the_stream_goes_on() {
    let gateway = Gateway::with(KubemqConfig {
        batch_messages_max: 2,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    let messages = |count| (0..count).map(|number| a_message(&queue, number)).collect();
    let text = "the batch has 3 messages, at most 2 are allowed";
    let batch = |count| QueueMessagesBatchRequest {
        batch_id: "b".to_owned(),
        messages: messages(count),
    };
    let refused = client.send_queue_messages_batch(batch(3)).await;
    assert_eq!(refused.unwrap_err().message(), text);
    let taken = client.send_queue_messages_batch(batch(2)).await.unwrap();
    assert!(!taken.get_ref().have_errors);
    let requests = [3, 2].map(|count| QueuesUpstreamRequest {
        request_id: count.to_string(),
        messages: messages(count),
    });
    let answers = client
        .queues_upstream(futures::stream::iter(requests))
        .await;
    let mut answers = answers.unwrap().into_inner();
    let refused = soon(answers.message()).await.unwrap().unwrap();
    assert_eq!((refused.is_error, &refused.error[..]), (true, text));
    let taken = soon(answers.message()).await.unwrap().unwrap();
    assert_eq!((taken.is_error, taken.results.len()), (false, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_those_under_way_wait_and_are_answered_in_order() {
    const REQUESTS: usize = 50;
    let gateway = Gateway::with(KubemqConfig {
        requests_in_flight_max: 1,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    let requests = (0..REQUESTS).map(|number| QueuesUpstreamRequest {
        request_id: number.to_string(),
        messages: vec![a_message(&queue, number)],
    });
    let requests: Vec<_> = requests.collect();
    let answers = client
        .queues_upstream(futures::stream::iter(requests))
        .await;
    let mut answers = answers.unwrap().into_inner();
    for number in 0..REQUESTS {
        let answer = soon(answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.ref_request_id, number.to_string());
    }
    assert_eq!(soon(answers.message()).await.unwrap(), None);
    let mut downstream = Downstream::open(&mut client).await;
    downstream
        .send(Type::Get, a_get(&queue, 1, 10_000, false))
        .await;
    downstream
        .send(Type::Get, a_get(&queue, 1, 10_000, false))
        .await;
    for _ in 0..2 {
        assert_eq!(downstream.answer().await.messages.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_beyond_the_streams_of_a_connection_waits_until_one_ends() {
    let gateway = Gateway::with(KubemqConfig {
        streams_per_connection_max: 1,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    client.ping(Empty {}).await.unwrap();
    let downstream = Downstream::open(&mut client).await;
    let mut waiting = tokio::spawn({
        let mut client = client.clone();
        async move { client.ping(Empty {}).await }
    });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(early.is_err(), "a second stream of the connection");
    gateway.client().await.ping(Empty {}).await.unwrap();
    drop(downstream);
    soon(waiting).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_larger_than_the_setting_is_refused_with_both_sizes() {
    let gateway = Gateway::with(KubemqConfig {
        request_bytes_max: 64 << 10,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let mut message = a_message(&unique("q"), 1);
    message.body = Bytes::from(vec![b'x'; 65 << 10]);
    let refused = client
        .send_queue_message(message.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert!(
        refused.message().contains("the limit is: 65536 bytes"),
        "{refused}"
    );
    message.body.truncate(63 << 10);
    let sent = client.send_queue_message(message).await.unwrap();
    assert!(!sent.get_ref().is_error);
}
