//! Commands and queries: who gets a request, and whose response counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_broker::{Reply, Request as Asked, SubscribeRequests, WhenNobody};
use flotilla_gateway::kubemq::protocol::request::RequestType;
use flotilla_gateway::kubemq::protocol::subscribe::SubscribeType;
use flotilla_gateway::kubemq::protocol::{Request, Response};
use flotilla_model::message::Message;
use flotilla_model::name::{Kind, Name};
use tokio::task::JoinHandle;
use tonic::{Code, Status, Streaming};

use crate::support::{Client, Gateway, a_subscribe, soon, unique};

/// Longer than any test.
const PATIENCE_MS: i32 = 60_000;
pub const COMMANDS: i32 = SubscribeType::Commands as i32;
pub const QUERIES: i32 = SubscribeType::Queries as i32;
/// For what must not happen.
const QUIET: Duration = Duration::from_millis(300);

pub fn a_request(kind: RequestType, channel: &str, timeout: i32) -> Request {
    Request {
        // As all clients of one release number their requests.
        request_id: "1".to_owned(),
        request_type_data: kind as i32,
        client_id: "asker".to_owned(),
        channel: channel.to_owned(),
        metadata: "meta".to_owned(),
        body: Bytes::from_static(b"what"),
        timeout,
        span: Bytes::from_static(b"\x00\xff"),
        tags: [("k".to_owned(), "v".to_owned())].into(),
        ..Request::default()
    }
}

pub fn a_query(channel: &str) -> Request {
    a_request(RequestType::Query, channel, PATIENCE_MS)
}

pub fn a_response(request: &Request, text: &str) -> Response {
    Response {
        client_id: "responder".to_owned(),
        request_id: request.request_id.clone(),
        reply_channel: request.reply_channel.clone(),
        metadata: "m".to_owned(),
        body: Bytes::copy_from_slice(text.as_bytes()),
        cache_hit: true,
        timestamp: 1_700_000_000,
        executed: true,
        error: "None".to_owned(),
        span: Bytes::from_static(b"span"),
        tags: [("r".to_owned(), "w".to_owned())].into(),
    }
}

pub async fn subscribe(
    client: &Client,
    kind: i32,
    pattern: &str,
    group: &str,
) -> Streaming<Request> {
    let mut request = a_subscribe(kind, pattern, "responder");
    request.group = group.to_owned();
    let subscribed = soon(client.clone().subscribe_to_requests(request)).await;
    subscribed.unwrap().into_inner()
}

/// Asks, in a task of its own.
pub fn ask(client: &Client, request: Request) -> JoinHandle<Result<Response, Status>> {
    let mut client = client.clone();
    tokio::spawn(async move { Ok(client.send_request(request).await?.into_inner()) })
}

pub async fn answered(asking: JoinHandle<Result<Response, Status>>) -> Response {
    soon(asking).await.unwrap().unwrap()
}

pub async fn next(requests: &mut Streaming<Request>) -> Request {
    soon(requests.message()).await.unwrap().unwrap()
}

async fn is_silent(requests: &mut Streaming<Request>) -> bool {
    tokio::time::timeout(QUIET, requests.message())
        .await
        .is_err()
}

pub async fn say(client: &Client, response: Response) {
    client.clone().send_response(response).await.unwrap();
}

/// Answers one request with a text.
pub async fn serve(client: &Client, requests: &mut Streaming<Request>, text: &str) {
    let request = next(requests).await;
    say(client, a_response(&request, text)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_and_its_response_are_passed_on_as_they_are() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let channel = unique("query");
    let mut requests = subscribe(&client, QUERIES, &channel, "").await;
    let asked = Request {
        cache_key: "k".to_owned(),
        cache_ttl: 7,
        ..a_query(&channel)
    };
    let asking = ask(&client, asked.clone());
    let request = next(&mut requests).await;
    let token = request.reply_channel.clone();
    assert!(!token.is_empty() && !token.contains([' ', '*', '>', '.']));
    let expected = Request {
        reply_channel: token,
        ..asked
    };
    assert_eq!(request, expected);
    let response = a_response(&request, "that");
    say(&gateway.client().await, response.clone()).await;
    let expected = Response {
        reply_channel: String::new(),
        cache_hit: false,
        ..response
    };
    assert_eq!(answered(asking).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_may_be_refused_and_that_is_an_answer() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let channel = unique("command");
    let mut commands = subscribe(&client, COMMANDS, &channel, "").await;
    let mut queries = subscribe(&client, QUERIES, &channel, "").await;
    let asking = ask(
        &client,
        a_request(RequestType::Command, &channel, PATIENCE_MS),
    );
    let request = next(&mut commands).await;
    assert_eq!(request.request_type_data(), RequestType::Command);
    let refusal = Response {
        executed: false,
        error: "not today".to_owned(),
        ..a_response(&request, "why")
    };
    say(&client, refusal).await;
    let told = answered(asking).await;
    assert!(!told.executed && !told.cache_hit);
    assert_eq!(told.error, "not today");
    assert_eq!(told.body, "why");
    assert!(is_silent(&mut queries).await, "queries are something else");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_without_a_group_and_one_of_each_group_get_a_request_and_the_first_response_counts() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let root = unique("who");
    let channel = format!("{root}.a");
    let mut alone = subscribe(&client, QUERIES, &channel, "").await;
    let mut wild = subscribe(&client, QUERIES, &format!("{root}.>"), "").await;
    let mut members = [
        subscribe(&client, QUERIES, &channel, "g").await,
        subscribe(&client, QUERIES, &channel, "g").await,
    ];
    let mut other = subscribe(&client, QUERIES, &format!("{root}.b"), "").await;
    let asking = ask(&client, a_query(&channel));
    let (first, second) = (next(&mut alone).await, next(&mut wild).await);
    assert_eq!(first.channel, channel);
    assert_eq!(second.channel, channel, "not the pattern");
    let silent = [
        is_silent(&mut members[0]).await,
        is_silent(&mut members[1]).await,
    ];
    assert_eq!(silent.iter().filter(|silent| **silent).count(), 1);
    assert!(is_silent(&mut other).await);
    say(&client, a_response(&second, "second")).await;
    say(&client, a_response(&first, "first")).await;
    assert_eq!(answered(asking).await.body, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shares_what_is_asked() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let channel = unique("shared");
    let mut members = [
        subscribe(&client, COMMANDS, &channel, "g").await,
        subscribe(&client, COMMANDS, &channel, "g").await,
    ];
    let asking: Vec<_> = (0..40)
        .map(|_| {
            ask(
                &client,
                a_request(RequestType::Command, &channel, PATIENCE_MS),
            )
        })
        .collect();
    let mut counts = [0; 2];
    for _ in 0..asking.len() {
        let [one, other] = &mut members;
        let (member, request) = tokio::select! {
            request = next(one) => (0, request),
            request = next(other) => (1, request),
        };
        counts[member] += 1;
        say(&client, a_response(&request, "done")).await;
    }
    for asking in asking {
        assert!(answered(asking).await.executed);
    }
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_many_clients_under_one_id_get_each_its_own_response() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let channel = unique("ids");
    let mut requests = subscribe(&client, QUERIES, &channel, "").await;
    let mut asking = Vec::new();
    for number in 0..50 {
        let request = Request {
            body: Bytes::from(number.to_string()),
            ..a_query(&channel)
        };
        asking.push(ask(&gateway.client().await, request));
    }
    let mut heard = Vec::new();
    for _ in &asking {
        heard.push(next(&mut requests).await);
    }
    // In another order than they came.
    for request in heard.iter().rev() {
        let text = format!("re {}", String::from_utf8_lossy(&request.body));
        say(&client, a_response(request, &text)).await;
    }
    for (number, asking) in asking.into_iter().enumerate() {
        let response = answered(asking).await;
        assert_eq!(response.request_id, "1");
        assert_eq!(response.body, format!("re {number}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_answers_fails_when_its_time_is_over_and_not_before() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let channel = unique("nobody");
    let began = Instant::now();
    let nobody = ask(&client, a_request(RequestType::Command, &channel, 3_000));
    let silent_channel = unique("silent");
    let mut silent = subscribe(&client, QUERIES, &silent_channel, "").await;
    let ignored = ask(
        &client,
        a_request(RequestType::Query, &silent_channel, 3_000),
    );
    let request = next(&mut silent).await;
    // Comes too late for what was asked before.
    let mut late = subscribe(&client, COMMANDS, &channel, "").await;
    for asking in [nobody, ignored] {
        let status = soon(asking).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.message(), "Error 301: timeout for request message");
    }
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert!(is_silent(&mut late).await);
    // Whoever is too late is not told.
    say(&client, a_response(&request, "late")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_asked_or_was_answered_is_answered_in_vain() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let channel = unique("forged");
    let mut requests = subscribe(&client, QUERIES, &channel, "").await;
    let asking = ask(&client, a_query(&channel));
    let request = next(&mut requests).await;
    let token = &request.reply_channel;
    let (numbers, seal) = token.rsplit_once('-').unwrap();
    let last = if seal.ends_with('0') { "1" } else { "0" };
    for forged in [
        "1".to_owned(),
        "_INBOX.1".to_owned(),
        numbers.to_owned(),
        format!("{numbers}-1"),
        format!("{numbers}-{}{last}", &seal[..seal.len() - 1]),
        format!("9{token}"),
    ] {
        let response = Response {
            reply_channel: forged,
            ..a_response(&request, "forged")
        };
        say(&client, response).await;
    }
    assert!(!asking.is_finished());
    // By anybody who has the token, under any id.
    let response = Response {
        client_id: "somebody".to_owned(),
        request_id: "another".to_owned(),
        ..a_response(&request, "right")
    };
    say(&client, response.clone()).await;
    say(&client, response).await;
    let told = answered(asking).await;
    assert_eq!(told.body, "right");
    assert_eq!(told.request_id, "another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_may_come_when_the_subscription_is_over() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let channel = unique("left");
    let responder = gateway.client().await;
    let mut requests = subscribe(&responder, QUERIES, &channel, "").await;
    let asking = ask(&client, a_query(&channel));
    let request = next(&mut requests).await;
    drop((requests, responder));
    tokio::time::sleep(QUIET).await;
    say(&client, a_response(&request, "still")).await;
    assert_eq!(answered(asking).await.body, "still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_up_gives_up_its_request() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let channel = unique("given-up");
    let mut requests = subscribe(&client, QUERIES, &channel, "").await;
    let asking = ask(&client, a_query(&channel));
    next(&mut requests).await;
    let is_under_way = |count: u32| {
        let line = format!("flotilla_requests_under_way {count}\n");
        gateway.broker.metrics_text().contains(&line)
    };
    assert!(is_under_way(1));
    asking.abort();
    let over = async {
        while !is_under_way(0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(over).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_come_from_other_protocols_and_go_to_them() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let (here, there) = (unique("here"), unique("there"));
    let message = |text: &str| Message {
        body: Bytes::copy_from_slice(text.as_bytes()),
        ..Message::default()
    };
    let mut requests = subscribe(&client, QUERIES, &here, "").await;
    let asked = Asked {
        name: Arc::new(Name::request(&here).unwrap()),
        message: Arc::new(message("what")),
        extra: Bytes::new(),
        timeout: Duration::from_secs(20),
        when_nobody: WhenNobody::Fail,
    };
    let broker = gateway.broker.clone();
    let asking = tokio::spawn(async move { broker.request(asked).await });
    serve(&client, &mut requests, "this").await;
    let reply = soon(asking).await.unwrap().unwrap();
    assert_eq!(reply.message.body, "this");

    let serving = gateway.broker.serve_requests(SubscribeRequests {
        kind: Kind::Request,
        namespace: "default".to_owned(),
        pattern: there.clone(),
        group: None,
        calls_max: 1,
    });
    let responder = serving.await.unwrap();
    let asking = ask(&client, a_query(&there));
    let call = soon(responder.next()).await.unwrap()[0].call;
    responder.reply(vec![(call, Reply::of(message("that")))]);
    let response = answered(asking).await;
    assert!(response.executed);
    assert_eq!(response.request_id, "1");
    assert_eq!(response.body, "that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_requests_and_subscriptions_as_unavailable() {
    let mut gateway = Gateway::start().await;
    let client = gateway.client().await;
    let channel = unique("ending");
    let mut requests = subscribe(&client, QUERIES, &channel, "").await;
    let asking = ask(&client, a_query(&channel));
    next(&mut requests).await;
    gateway.stop();
    let statuses = [
        soon(asking).await.unwrap().unwrap_err(),
        soon(requests.message()).await.unwrap_err(),
    ];
    for status in statuses {
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "Error 409: server is in shutdown mode");
    }
}
