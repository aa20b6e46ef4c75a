//! One request, one answer: every path, with bodies as the protocol's documentation has them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{WAITING, a_post, base64, get, post, raw, until_gauge, until_none_is_leased};
use crate::support::{Gateway, a_subscribe, fill, leased, next_event, unique};

fn a_message(queue: &str, body: &str) -> Value {
    json!({"ClientId": "sender", "Channel": queue, "Metadata": "m", "Body": base64(body)})
}

fn a_receive(queue: &str, count: i32, wait: i32) -> Value {
    json!({"RequestID": "r", "ClientID": "c", "Channel": queue, "MaxNumberOfMessages": count,
           "WaitTimeSeconds": wait})
}

fn bodies(data: &Value) -> Vec<&str> {
    let messages = data["Messages"].as_array().unwrap();
    let bodies = messages.iter().map(|one| one["Body"].as_str().unwrap());
    bodies.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_says_who_answers() {
    let gateway = Gateway::start().await;
    let data = get(gateway.rest, "/ping").await.data();
    assert_eq!(data["Host"], "flotilla");
    assert_eq!(data["Version"], "2.6.0");
    assert!(data["ServerStartTime"].as_i64().unwrap() > 1_600_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_a_grpc_subscriber_as_it_was_sent() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let channel = unique("events");
    let subscribed = client.subscribe_to_events(a_subscribe(1, &channel, "c"));
    let mut events = subscribed.await.unwrap().into_inner();
    let event = json!({"EventID": "1", "ClientID": "s", "Channel": channel, "Metadata": "m",
                       "Body": base64("b"), "Store": false, "Tags": {"k": "v"}});
    let data = post(gateway.rest, "/send/event", &event.to_string())
        .await
        .data();
    assert_eq!(data, json!({"EventID": "1", "Sent": true}));
    let got = next_event(&mut events).await;
    assert_eq!((got.event_id.as_str(), got.metadata.as_str()), ("1", "m"));
    assert_eq!(got.body, "b");
    assert_eq!(got.tags["k"], "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_with_its_status_in_the_envelope() {
    let gateway = Gateway::start().await;
    let cases = [
        (
            "/send/event",
            json!({"Channel": "a"}),
            "Error 101: invalid clientID value, cannot be empty",
        ),
        (
            "/send/event",
            json!({"ClientID": "c", "Channel": "a.", "Metadata": "m"}),
            "Error 119: invalid channel value, cannot end with `.`",
        ),
        (
            "/send/request",
            json!({"ClientID": "c", "Channel": "a", "Metadata": "m", "Timeout": 1}),
            "Error 206: invalid request type",
        ),
        (
            "/send/response",
            json!({"ClientID": "c", "ReplyChannel": "1-2-3"}),
            "Error 117: invalid request id, cannot be empty",
        ),
        ("/queue/send_batch", json!({}), "empty messages batch"),
    ];
    for (path, body, expected) in cases {
        let refused = post(gateway.rest, path, &body.to_string()).await.refused();
        assert_eq!(refused, (400, expected.to_owned()), "{path}");
    }
    let (status, text) = post(gateway.rest, "/send/event", "{\"Body\":7}")
        .await
        .refused();
    assert_eq!(status, 400);
    assert!(text.contains("Body: invalid type"), "{text}");
    let (status, text) = post(gateway.rest, "/nowhere", "").await.refused();
    assert_eq!(
        (status, text.as_str()),
        (404, "there is nothing at /nowhere")
    );
    let wrong = get(gateway.rest, "/queue/send").await;
    assert!(wrong.head.contains("\r\nallow: post"), "{}", wrong.head);
    let expected = (405, "GET is not possible here, POST is".to_owned());
    assert_eq!(wrong.refused(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_queue_calls_stand_in_the_data() {
    let gateway = Gateway::start().await;
    for (path, body, expected) in [
        (
            "/queue/send",
            json!({"ClientID": "c", "Channel": "a b", "Metadata": "m"}),
            "Error 120: invalid queue name value, cannot be empty, contains wildcards ,white spaces and end with dot",
        ),
        (
            "/queue/receive",
            json!({"ClientID": "c", "Channel": "q"}),
            "Error 122: max messages should be between 1 and max message setting in kubemq config  ",
        ),
        (
            "/queue/ack_all",
            json!({"Channel": "q"}),
            "Error 101: invalid clientID value, cannot be empty",
        ),
    ] {
        let data = post(gateway.rest, path, &body.to_string()).await.data();
        assert_eq!(
            (&data["IsError"], &data["Error"]),
            (&json!(true), &json!(expected))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_through_a_queue() {
    let gateway = Gateway::start().await;
    let queue = unique("rest");
    let mut message = a_message(&queue, "1");
    message["Policy"] = json!({"ExpirationSeconds": 100, "DelaySeconds": 0});
    let sent = post(gateway.rest, "/queue/send", &message.to_string())
        .await
        .data();
    assert!(sent["SentAt"].as_i64().unwrap() > 0);
    assert!(sent["ExpirationAt"].as_i64() > sent["SentAt"].as_i64());
    assert_eq!(sent.get("IsError"), None);

    let batch = json!({"BatchID": "b", "Messages": [
        a_message(&queue, "Batch Message 2"), {"Channel": queue}]});
    let sent = post(gateway.rest, "/queue/send_batch", &batch.to_string())
        .await
        .data();
    assert_eq!(
        (&sent["BatchID"], &sent["HaveErrors"]),
        (&json!("b"), &json!(true))
    );
    assert_eq!(sent["Results"][1]["IsError"], true);

    let mut peek = a_receive(&queue, 10, 1);
    peek["IsPeak"] = json!(true);
    let peeked = post(gateway.rest, "/queue/receive", &peek.to_string())
        .await
        .data();
    assert_eq!(bodies(&peeked), [base64("1"), base64("Batch Message 2")]);
    assert_eq!(
        (&peeked["IsPeak"], &peeked["MessagesReceived"]),
        (&json!(true), &json!(2))
    );

    let wanted = a_receive(&queue, 2, 5).to_string();
    let got = post(gateway.rest, "/queue/receive", &wanted).await.data();
    assert_eq!(bodies(&got), [base64("1"), base64("Batch Message 2")]);
    assert_eq!(got["RequestID"], "r");
    let attributes = &got["Messages"][1]["Attributes"];
    assert_eq!(attributes["MD5OfBody"], "467bd369acea7c452a6ef23d6d33b624");
    assert_eq!(
        (&attributes["Sequence"], &attributes["ReceiveCount"]),
        (&json!(2), &json!(1))
    );

    let wanted = a_receive(&queue, 1, 1).to_string();
    let got = post(gateway.rest, "/queue/receive", &wanted).await.data();
    assert_eq!(
        got,
        json!({"RequestID": "r"}),
        "what was received does not come again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_described_and_emptied() {
    let gateway = Gateway::start().await;
    let queue = unique("rest");
    fill(&mut gateway.client().await, &queue, 3).await;
    for path in [
        format!("/queue/info?RequestID=i&QueueName={queue}"),
        format!("/queue/info?request_id=i&queue_name={queue}"),
    ] {
        let data = get(gateway.rest, &path).await.data();
        assert_eq!(data["RefRequestID"], "i");
        assert_eq!(data["Info"]["Queues"][0]["Waiting"], 3, "{data}");
    }
    let body = json!({"RequestID": "j", "QueueName": queue}).to_string();
    let request = a_post("/queue/info", &body).replacen("POST", "GET", 1);
    let data = raw(gateway.rest, &request).await.data();
    assert_eq!(
        (&data["RefRequestID"], &data["Info"]["TotalQueue"]),
        (&json!("j"), &json!(1))
    );

    let wanted = json!({"RequestID": "a", "ClientID": "c", "Channel": queue, "WaitTimeSeconds": 2});
    let data = post(gateway.rest, "/queue/ack_all", &wanted.to_string())
        .await
        .data();
    assert_eq!(data, json!({"RequestID": "a", "AffectedMessages": 3}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_answers_fails_when_its_time_is_over() {
    let gateway = Gateway::start().await;
    let request = json!({"RequestTypeData": 2, "ClientID": "c", "Channel": unique("rpc"),
                         "Metadata": "m", "Timeout": 300});
    let started = Instant::now();
    let refused = post(gateway.rest, "/send/request", &request.to_string())
        .await
        .refused();
    assert_eq!(
        refused,
        (400, "Error 301: timeout for request message".to_owned())
    );
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_channels_is_asked_for_over_http_too() {
    let gateway = Gateway::start().await;
    let queue = unique("listed");
    let manage = |operation: &str| {
        json!({"RequestTypeData": 2, "ClientID": "c", "Metadata": operation, "Timeout": 10_000,
               "Channel": "kubemq.cluster.internal.requests",
               "Tags": {"channel_type": "queues", "channel": queue, "channel_search": queue}})
    };
    for operation in ["create-channel", "list-channels"] {
        let body = manage(operation).to_string();
        let data = post(gateway.rest, "/send/request", &body).await.data();
        assert_eq!(data["Executed"], true, "{data}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_received_that_left_comes_to_the_next_one() {
    let gateway = Gateway::start().await;
    let queue = unique("left");
    let mut connection = TcpStream::connect(gateway.rest).await.unwrap();
    let wanted = a_post("/queue/receive", &a_receive(&queue, 1, 60).to_string());
    connection.write_all(wanted.as_bytes()).await.unwrap();
    until_gauge(&gateway, WAITING, 1).await;
    drop(connection);
    until_gauge(&gateway, WAITING, 0).await;
    let mut client = gateway.client().await;
    fill(&mut client, &queue, 1).await;
    assert_eq!(leased(&gateway, &queue).await, 0);
    let wanted = a_receive(&queue, 1, 5).to_string();
    let data = post(gateway.rest, "/queue/receive", &wanted).await.data();
    assert_eq!(data["MessagesReceived"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_may_call() {
    let gateway = Gateway::start().await;
    let asked = "OPTIONS /queue/send HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\n\
                 Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n";
    let answer = raw(gateway.rest, asked).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    for line in [
        "access-control-allow-origin: *",
        "access-control-allow-methods: get, post",
        "access-control-allow-headers: authorization, content-type",
    ] {
        assert!(answer.head.contains(line), "{}", answer.head);
    }
    for answer in [
        get(gateway.rest, "/ping").await,
        get(gateway.rest, "/no").await,
    ] {
        assert!(answer.head.contains("access-control-allow-origin: *"));
        assert!(answer.head.contains("content-type: application/json"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_use_one_connection() {
    let gateway = Gateway::start().await;
    let queue = unique("kept");
    let mut text = String::new();
    for _ in 0..10 {
        let body = a_message(&queue, "b").to_string();
        text.push_str(&a_post("/queue/send", &body).replacen("Connection: close\r\n", "", 1));
    }
    let body = a_receive(&queue, 10, 5).to_string();
    text.push_str(&a_post("/queue/receive", &body));
    let answers = raw(gateway.rest, &text).await;
    let (_, last) = answers.body.rsplit_once("\r\n\r\n").unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["data"]["MessagesReceived"], 10);
    until_none_is_leased(&gateway, &queue).await;
}
