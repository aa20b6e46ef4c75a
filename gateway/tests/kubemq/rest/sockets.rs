//! WebSockets: subscriptions, streams of events, transactions.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::support::{Socket, base64, get, post, until_none_is_leased};
use crate::support::{Gateway, a_message, an_event, fill, leased, soon, store, unique};

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_to_events_gets_them_by_pattern_and_group() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let channel = unique("ws");
    let path = format!("/subscribe/events?client_id=c&channel={channel}.*&subscribe_type=events");
    let mut one = Socket::open(gateway.rest, &path).await;
    let mut two = Socket::open(gateway.rest, &format!("{path}&group=")).await;
    let sent = format!("{channel}.a");
    for number in 1..=3 {
        client
            .send_event(an_event(&sent, number, false))
            .await
            .unwrap();
    }
    for socket in [&mut one, &mut two] {
        for number in 1..=3 {
            let body = base64(&number.to_string());
            let expected = json!({"EventID": number.to_string(), "Channel": sent, "Metadata": "m",
                                  "Body": body, "Tags": {"k": "v"}});
            assert_eq!(socket.next().await, expected);
        }
    }
    let grouped = format!("{path}&group=g");
    let mut members = [
        Socket::open(gateway.rest, &grouped).await,
        Socket::open(gateway.rest, &grouped).await,
    ];
    client.send_event(an_event(&sent, 4, false)).await.unwrap();
    let (first, second) = members.split_at_mut(1);
    tokio::select! {
        event = first[0].next() => assert_eq!(event["EventID"], "4"),
        event = second[0].next() => assert_eq!(event["EventID"], "4"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_events_are_read_from_where_a_reader_asks_and_go_on_where_it_stopped() {
    let gateway = Gateway::start().await;
    let channel = unique("ws");
    store(&mut gateway.client().await, &channel, 5).await;
    let path = format!(
        "/subscribe/events?client_id=c&channel={channel}&subscribe_type=events_store\
         &events_store_type_data=4&events_store_type_value=3"
    );
    let mut reader = Socket::open(gateway.rest, &path).await;
    for sequence in 3..=5 {
        let event = reader.next().await;
        assert_eq!(event["Sequence"], sequence);
        assert!(event["Timestamp"].as_i64().unwrap() > 1_600_000_000_000_000_000);
    }
    // A position is written down only after its event was: one more makes the fifth sure.
    let mut client = gateway.client().await;
    client
        .send_event(an_event(&channel, 6, true))
        .await
        .unwrap();
    assert_eq!(reader.next().await["Sequence"], 6);
    reader.say(Message::Close(None)).await;
    reader.closed().await;
    soon(async {
        loop {
            // The place is free for a new reader once the server has noticed the old one's end.
            let mut again = Socket::open(gateway.rest, &path).await;
            client
                .send_event(an_event(&channel, 7, true))
                .await
                .unwrap();
            let first = again.next().await["Sequence"].as_u64().unwrap();
            if first > 5 {
                return;
            }
            assert_eq!(first, 3, "an independent reader begins where it asked to");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_wrong_is_refused_before_the_upgrade() {
    let gateway = Gateway::start().await;
    for (path, status, text) in [
        (
            "/subscribe/events?channel=a&subscribe_type=events",
            400,
            "Error 101: invalid clientID value, cannot be empty",
        ),
        (
            "/subscribe/events?client_id=c&channel=a",
            400,
            "Error 207: invalid subscribe type",
        ),
        (
            "/subscribe/events?client_id=c&channel=a&subscribe_type=commands",
            400,
            "Error 207: invalid subscribe type",
        ),
        (
            "/subscribe/events?client_id=c&channel=a&subscribe_type=events_store",
            400,
            "Error 111: invalid subscription type, cannot be undefined or 0",
        ),
        (
            "/subscribe/events?client_id=c&channel=a.*&subscribe_type=events_store&events_store_type_data=1",
            400,
            "Error 107: invalid channel value, no wildcards are allowed",
        ),
        (
            "/subscribe/requests?client_id=c&channel=a&subscribe_type=events",
            400,
            "Error 207: invalid subscribe type",
        ),
        (
            "/subscribe/requests?client_id=c&subscribe_type=queries",
            400,
            "Error 102: invalid channel value, cannot be empty",
        ),
    ] {
        let refused = Socket::try_open(gateway.rest, path).await.err();
        assert_eq!(refused, Some((status, text.to_owned())), "{path}");
        // The same without an upgrade.
        assert_eq!(
            get(gateway.rest, path).await.refused(),
            (status, text.to_owned())
        );
    }
    let path = "/subscribe/events?client_id=c&channel=a&subscribe_type=events";
    let (status, text) = get(gateway.rest, path).await.refused();
    assert_eq!(status, 500);
    assert!(text.contains("this is a WebSocket"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_answers_over_http_what_it_got_over_its_socket() {
    let gateway = Gateway::start().await;
    for (kind, name) in [(1, "commands"), (2, "queries")] {
        let channel = unique("ws");
        let path =
            format!("/subscribe/requests?client_id=r&channel={channel}&subscribe_type={name}");
        let mut responder = Socket::open(gateway.rest, &path).await;
        let request = json!({"RequestID": "1", "RequestTypeData": kind, "ClientID": "a",
            "Channel": channel, "Metadata": "m", "Body": base64("question"), "Timeout": 10_000});
        let text = request.to_string();
        let asking = post(gateway.rest, "/send/request", &text);
        let answering = async {
            let asked = responder.next().await;
            assert_eq!(
                (&asked["RequestID"], &asked["Timeout"]),
                (&json!("1"), &json!(10_000))
            );
            assert_eq!(asked["RequestTypeData"], kind);
            let response = json!({"ClientID": "r", "RequestID": asked["RequestID"],
                "ReplyChannel": asked["ReplyChannel"], "Body": base64("answer"), "Executed": true,
                "Timestamp": 5});
            let data = post(gateway.rest, "/send/response", &response.to_string())
                .await
                .data();
            assert_eq!(data, Value::Null);
        };
        let (answer, ()) = tokio::join!(asking, answering);
        let expected = json!({"ClientID": "r", "RequestID": "1", "Body": base64("answer"),
                              "Timestamp": 5, "Executed": true});
        assert_eq!(answer.data(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_a_stream_is_answered() {
    let gateway = Gateway::start().await;
    let mut socket = Socket::open(gateway.rest, "/send/stream").await;
    let channel = unique("ws");
    for number in 0..50 {
        let event = json!({"EventID": number.to_string(), "ClientID": "s", "Channel": channel,
                           "Metadata": "m", "Store": number % 2 == 0});
        socket.send(event).await;
    }
    for number in 0..50 {
        assert_eq!(
            socket.next().await,
            json!({"EventID": number.to_string(), "Sent": true})
        );
    }
    let result = socket
        .ask(json!({"EventID": "x", "Channel": channel}))
        .await;
    let expected = json!({"EventID": "x",
                          "Error": "Error 101: invalid clientID value, cannot be empty"});
    assert_eq!(result, expected);
    let name = flotilla_model::name::Name::topic(&channel).unwrap();
    assert_eq!(gateway.broker.topic(&name).await.unwrap().messages, 25);
    socket.say(Message::text("{\"EventID\":7}")).await;
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 1007);
    assert!(
        reason.starts_with("Error 205: connection was closed by server, "),
        "{reason}"
    );
    assert!(reason.contains("EventID: invalid type"), "{reason}");
}

fn a_step(kind: i32, queue: &str) -> Value {
    json!({"RequestID": kind.to_string(), "ClientID": "c", "StreamRequestTypeData": kind,
           "Channel": queue, "VisibilitySeconds": 30, "WaitTimeSeconds": 10})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_settles_its_message_and_its_socket_is_closed() {
    let gateway = Gateway::start().await;
    let queue = unique("ws");
    fill(&mut gateway.client().await, &queue, 1).await;
    let mut socket = Socket::open(gateway.rest, "/queue/stream").await;
    let answer = socket.ask(a_step(2, &queue)).await;
    assert_eq!(answer["Error"], "Error 124: no active message to ack");
    let answer = socket.ask(a_step(1, &queue)).await;
    assert_eq!(
        (&answer["RequestID"], &answer["StreamRequestTypeData"]),
        (&json!("1"), &json!(1))
    );
    let sequence = &answer["Message"]["Attributes"]["Sequence"];
    assert_eq!(answer["Message"]["Body"], base64("1"));
    let mut ack = a_step(2, &queue);
    ack["RefSequence"] = sequence.clone();
    let expected = json!({"RequestID": "2", "StreamRequestTypeData": 2});
    assert_eq!(socket.ask(ack).await, expected);
    assert_eq!(socket.closed().await, (1000, String::new()));
    let name = flotilla_model::name::Name::queue(&queue).unwrap();
    assert_eq!(gateway.broker.queue(&name).await.unwrap().messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_hand_goes_back_however_its_socket_ends() {
    let gateway = Gateway::start().await;
    let queue = unique("ws");
    fill(&mut gateway.client().await, &queue, 1).await;
    for is_orderly in [true, false] {
        let mut socket = Socket::open(gateway.rest, "/queue/stream").await;
        let answer = socket.ask(a_step(1, &queue)).await;
        assert_eq!(answer["Message"]["MessageID"], "1", "{answer}");
        assert_eq!(leased(&gateway, &queue).await, 1);
        if is_orderly {
            socket.say(Message::Close(None)).await;
            socket.closed().await;
        } else {
            drop(socket.into_connection());
        }
        until_none_is_leased(&gateway, &queue).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_receive_ends_with_its_socket() {
    let gateway = Gateway::start().await;
    let queue = unique("ws");
    let mut socket = Socket::open(gateway.rest, "/queue/stream").await;
    let mut receive = a_step(1, &queue);
    receive["WaitTimeSeconds"] = json!(3_000);
    socket.send(receive).await;
    socket.say(Message::Close(None)).await;
    socket.closed().await;
    let mut client = gateway.client().await;
    client
        .send_queue_message(a_message(&queue, 1))
        .await
        .unwrap();
    until_none_is_leased(&gateway, &queue).await;
    let name = flotilla_model::name::Name::queue(&queue).unwrap();
    soon(async {
        while gateway.broker.queue(&name).await.unwrap().available == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}
