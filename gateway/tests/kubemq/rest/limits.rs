//! Bounds of the REST and WebSocket listener, hostile clients, and its end.

use std::time::{Duration, Instant};

use flotilla_gateway::{KubemqConfig, RestConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::support::{LISTENERS, Socket, WAITING, a_post, base64, get, post, raw, until_gauge};
use crate::support::{Gateway, an_event, fill, leased, soon, unique};

const BODY_BYTES_MAX: usize = 4_096;

async fn small() -> Gateway {
    Gateway::with(KubemqConfig {
        keepalive_interval: Duration::from_millis(500),
        keepalive_wait_max: Duration::from_millis(500),
        rest: RestConfig {
            body_bytes_max: BODY_BYTES_MAX,
            bodies_bytes_max: BODY_BYTES_MAX,
            connections_max: 4,
        },
        ..KubemqConfig::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_with_its_length_and_without() {
    let gateway = small().await;
    let body = json!({"ClientID": "c", "Metadata": "m".repeat(BODY_BYTES_MAX)}).to_string();
    let expected = (
        413,
        "the body has more than the 4096 bytes that are allowed".to_owned(),
    );
    // Refused by its length alone: the rest is never sent.
    let request = a_post("/queue/send", &body);
    let head = &request[..request.find("\r\n\r\n").unwrap() + 4];
    assert_eq!(raw(gateway.rest, head).await.refused(), expected);
    let chunked = format!(
        "POST /queue/send HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    assert_eq!(raw(gateway.rest, &chunked).await.refused(), expected);
    assert!(get(gateway.rest, "/ping").await.data().is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_wait_for_each_other_and_none_is_lost() {
    let gateway = small().await;
    let queue = unique("q");
    let body = json!({"ClientID": "c", "Channel": queue, "Metadata": "m".repeat(3_000)});
    let body = body.to_string();
    let sends = (0..3).map(|_| post(gateway.rest, "/queue/send", &body));
    for answer in futures::future::join_all(sends).await {
        assert_eq!(answer.data().get("Error"), None);
    }
}

/// The room of bodies is for reading them and for sending what is in them: who waits for something else has none.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_messages_or_responses_takes_no_room_from_those_who_send() {
    let gateway = small().await;
    let queue = unique("q");
    // Without a length, so that each takes all of the room while it is read.
    let chunked = |path: &str, body: serde_json::Value| {
        let body = body.to_string();
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
             {:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    let rest = gateway.rest;
    let asking = json!({"ClientID": "c", "Channel": unique("c"), "RequestTypeData": 1, "Metadata": "m",
        "Timeout": 60_000});
    let asking = chunked("/send/request", asking);
    let asking = tokio::spawn(async move { raw(rest, &asking).await });
    let receiving = json!({"ClientID": "c", "Channel": queue, "MaxNumberOfMessages": 1,
        "WaitTimeSeconds": 60});
    let receiving = chunked("/queue/receive", receiving);
    let receiving = tokio::spawn(async move { raw(rest, &receiving).await });
    until_gauge(&gateway, WAITING, 1).await;
    until_gauge(&gateway, "flotilla_requests_under_way", 1).await;
    let message = json!({"ClientID": "c", "Channel": queue, "Metadata": "m".repeat(3_000)});
    let sent = post(rest, "/queue/send", &message.to_string()).await;
    assert_eq!(sent.data().get("Error"), None);
    let received = soon(receiving).await.unwrap().data();
    assert_eq!(received["MessagesReceived"], 1);
    asking.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bound_are_closed_as_they_come() {
    let gateway = small().await;
    let path = "/subscribe/events?client_id=c&channel=a&subscribe_type=events";
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(Socket::open(gateway.rest, path).await);
    }
    let mut one_more = TcpStream::connect(gateway.rest).await.unwrap();
    let mut nothing = Vec::new();
    // Whether it is closed or reset depends on what it had sent.
    let read = soon(one_more.read_to_end(&mut nothing)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{nothing:?}");
    drop(sockets.pop());
    soon(async {
        loop {
            let mut connection = TcpStream::connect(gateway.rest).await.unwrap();
            let request = b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            let mut text = String::new();
            if connection.write_all(request).await.is_ok()
                && connection.read_to_string(&mut text).await.is_ok()
                && text.contains("200 OK")
            {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_too_large_or_no_text_close_their_socket_with_the_reason() {
    let gateway = small().await;
    for (frame, code, word) in [
        (
            Message::text("x".repeat(BODY_BYTES_MAX + 1)),
            1009,
            "4096 bytes",
        ),
        (Message::Binary(vec![1].into()), 1003, "only text frames"),
        (Message::text("[]"), 1007, "expected an object"),
    ] {
        let mut socket = Socket::open(gateway.rest, "/send/stream").await;
        socket.say(frame).await;
        let (got, reason) = socket.closed().await;
        assert_eq!(got, code, "{reason}");
        assert!(reason.contains(word), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_read_only_short_messages() {
    let gateway = Gateway::start().await;
    for path in [
        "/subscribe/events?client_id=c&channel=a&subscribe_type=events",
        "/subscribe/requests?client_id=c&channel=a&subscribe_type=queries",
    ] {
        let mut socket = Socket::open(gateway.rest, path).await;
        socket.say(Message::text("x".repeat(4_096))).await;
        socket.pinged_back().await;
        socket.say(Message::text("x".repeat(4_097))).await;
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 1009, "{reason}");
        assert!(reason.contains("4096 bytes"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_answers_pings_stays_and_one_that_is_silent_goes() {
    let gateway = small().await;
    let path = "/subscribe/events?client_id=c&channel=a&subscribe_type=events";
    let mut answers = Socket::open(gateway.rest, path).await;
    let silent = Socket::open(gateway.rest, path).await.into_connection();
    until_gauge(&gateway, LISTENERS, 2).await;
    // Reading answers pings.
    let reading = async {
        loop {
            answers.pinged().await;
        }
    };
    tokio::select! {
        () = until_gauge(&gateway, LISTENERS, 1) => {}
        () = reading => {}
    }
    for _ in 0..4 {
        answers.pinged().await;
    }
    until_gauge(&gateway, LISTENERS, 1).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_holds_up_nobody_and_is_given_up() {
    let gateway = small().await;
    let mut client = gateway.client().await;
    let channel = unique("slow");
    let path = format!(
        "/subscribe/events?client_id=slow&channel={channel}&subscribe_type=events_store\
         &events_store_type_data=2"
    );
    let stuck = Socket::open(gateway.rest, &path).await.into_connection();
    let mut event = an_event(&channel, 1, true);
    event.body = vec![7; 1 << 20].into();
    for _ in 0..12 {
        soon(client.send_event(event.clone())).await.unwrap();
    }
    let name = flotilla_model::name::Name::topic(&channel).unwrap();
    soon(async {
        while gateway.broker.topic(&name).await.unwrap().subscriber_count > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(stuck);
    // What it did not take is there for its next try.
    let mut reader = Socket::open(gateway.rest, &path).await;
    let first = reader.next().await["Sequence"].as_u64().unwrap();
    assert!((1..=12).contains(&first));
    for sequence in first + 1..=12 {
        assert_eq!(reader.next().await["Sequence"], sequence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_never_end_and_no_http_do_no_harm() {
    let gateway = small().await;
    let long = format!("GET /ping HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(200_000));
    for bytes in [
        b"\x16\x03\x01\x00\xff\xff".as_slice(),
        b"GET",
        b"\r\n\r\n\r\n",
        long.as_bytes(),
    ] {
        let mut connection = TcpStream::connect(gateway.rest).await.unwrap();
        let _ = connection.write_all(bytes).await;
        let mut end = Vec::new();
        // Closed by the server, the silent one when its time is over.
        let _ = soon(connection.read_to_end(&mut end)).await;
        assert!(!String::from_utf8_lossy(&end).contains("200 OK"));
    }
    assert!(get(gateway.rest, "/ping").await.data().is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_server_is_told_to_everybody() {
    let mut gateway = Gateway::start().await;
    let (queue, idle) = (unique("q"), unique("idle"));
    fill(&mut gateway.client().await, &queue, 1).await;
    let address = gateway.rest;
    let mut sockets = vec![
        Socket::open(
            address,
            "/subscribe/events?client_id=c&channel=a&subscribe_type=events",
        )
        .await,
        Socket::open(
            address,
            "/subscribe/requests?client_id=c&channel=a&subscribe_type=commands",
        )
        .await,
        Socket::open(address, "/send/stream").await,
    ];
    let mut holder = Socket::open(address, "/queue/stream").await;
    let receive = json!({"ClientID": "c", "StreamRequestTypeData": 1, "Channel": queue});
    assert_eq!(holder.ask(receive).await["Message"]["Body"], base64("1"));
    sockets.push(holder);
    let wanted = json!({"ClientID": "c", "Channel": idle, "MaxNumberOfMessages": 1,
                        "WaitTimeSeconds": 3_000});
    let wanted = wanted.to_string();
    let polling = tokio::spawn(async move { post(address, "/queue/receive", &wanted).await });
    until_gauge(&gateway, WAITING, 1).await;
    let started = Instant::now();
    gateway.stop();
    let text = "Error 409: server is in shutdown mode";
    for socket in &mut sockets {
        let expected = format!("Error 205: connection was closed by server, {text}");
        assert_eq!(socket.closed().await, (1001, expected));
    }
    let refused = soon(polling).await.unwrap().refused();
    assert_eq!(refused, (503, text.to_owned()));
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
async fn a_broker_that_is_not_ready_serves_no_path() {
    let gateway = Gateway::start().await;
    gateway.broker.shutdown().await;
    let answer = get(gateway.rest, "/ping").await.refused();
    let text = "grpc server is not ready to accept requests";
    assert_eq!(answer, (503, text.to_owned()));
    let path = "/subscribe/events?client_id=c&channel=a&subscribe_type=events";
    let refused = Socket::try_open(gateway.rest, path).await.err();
    assert_eq!(refused, Some((503, text.to_owned())));
    assert_eq!(leased(&gateway, "any").await, 0);
}
