//! Who is let in, and what the subject of a token may do.

use flotilla_gateway::access::AuthenticationConfig;
use flotilla_gateway::native::protocol::consume_request::{Lease, Settle, settle};
use flotilla_gateway::native::protocol::error::Code;
use flotilla_gateway::native::protocol::reply_batch::item::Outcome;
use flotilla_gateway::native::protocol::request_batch::Item;
use flotilla_gateway::native::protocol::subscribe_request::{Open, open};
use flotilla_gateway::native::protocol::subscribe_response::Kind as Told;
use flotilla_gateway::native::protocol::{
    ConsumeRequest, ListenRequest, PublishRequest, RequestBatch, SendRequest, ServeRequest,
    SignalRequest, SubscribeRequest, serve_request,
};
use serde_json::json;
use tonic::{Code as StatusCode, Status};

use crate::shared::tokens::{authentication, rules, security, token, with_token};
use crate::support::{Gateway, Talk, a_batch, a_record, a_sending, opening, records, side, soon};

const BOTH: &[&str] = &["Read", "Write"];

/// `app` may do everything with names `open…`, and with those of the namespace `other`.
async fn gateway() -> Gateway {
    let mut records = Vec::new();
    for pattern in ["Events", "EventsStore", "Queues", "Queries"] {
        records.push(("app", "open.*", pattern, BOTH));
        records.push(("app", "other/.*", pattern, BOTH));
    }
    records.push(("reader", "open.*", "Queues", &["Read"]));
    Gateway::secured(security(Some(authentication()), Some(rules(&records)))).await
}

/// Opens a stream of a call with the token of a subject.
macro_rules! open {
    ($gateway:expr, $call:ident, $request:ty, $subject:expr) => {{
        let (requests, stream) = side::<$request>();
        let token = token(&json!({ "sub": $subject }));
        let mut client = $gateway.client().await;
        let answers = soon(client.$call(with_token(&token, stream))).await.unwrap();
        Talk::new(requests, answers.into_inner())
    }};
}

fn assert_denied(status: &Status, what: &str) {
    assert_eq!(status.code(), StatusCode::PermissionDenied, "{status}");
    assert_eq!(status.message(), format!("access denied to the {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_token_is_not_opened() {
    let gateway = gateway().await;
    let (_requests, stream) = side::<PublishRequest>();
    let refused = soon(gateway.client().await.publish(stream)).await;
    let status = refused.unwrap_err();
    assert_eq!(status.code(), StatusCode::Unauthenticated);
    assert_eq!(
        status.message(),
        "Error 421: authentication verification failed, the call has no token in its authorization \
         metadata"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_batch_is_allowed_or_denied_alone() {
    let gateway = gateway().await;
    let mut publishes = open!(gateway, publish, PublishRequest, "app");
    for (batch, topic, namespace, code) in [
        (1, "open", "", None),
        (2, "closed", "", Some(Code::AccessDenied)),
        (3, "closed", "other", None),
        (4, "open", "", None),
    ] {
        let mut publish = a_batch(batch, topic, records(0..2));
        publish.namespace = namespace.to_owned();
        let answer = publishes.ask(publish).await;
        let found = answer.error.map(|error| error.code());
        assert_eq!((answer.batch, found), (batch, code));
    }
    let mut sends = open!(gateway, send, SendRequest, "reader");
    let answer = sends.ask(a_sending(1, "open", records(0..1))).await;
    assert_eq!(
        answer.error.unwrap().text,
        "access denied to the queue open"
    );
    let mut sends = open!(gateway, send, SendRequest, "app");
    let mut send = a_sending(1, "open", records(0..1));
    send.dead_letter_queue = "closed".to_owned();
    let answer = sends.ask(send).await;
    assert_eq!(
        answer.error.unwrap().text,
        "access denied to the queue closed"
    );
    let mut signals = open!(gateway, signal, SignalRequest, "reader");
    let signal = SignalRequest {
        name: "open".to_owned(),
        records: records(0..1),
        ..SignalRequest::default()
    };
    let answer = signals.ask(signal).await;
    assert_eq!(answer.error.unwrap().code(), Code::AccessDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_followed_is_not_opened() {
    let gateway = gateway().await;
    for (subject, topic, is_allowed) in [
        ("app", "open", true),
        ("app", "closed", false),
        ("reader", "open", false),
    ] {
        let mut reads = open!(gateway, subscribe, SubscribeRequest, subject);
        let open = Open {
            topic: topic.to_owned(),
            ..Open::default()
        };
        reads.say(opening(open)).await;
        if is_allowed {
            reads.hear().await;
        } else {
            assert_denied(&reads.end().await.unwrap_err(), &format!("topic {topic}"));
        }
    }
    let mut listens = open!(gateway, listen, ListenRequest, "app");
    let listen = |pattern: &str| ListenRequest {
        pattern: pattern.to_owned(),
        ..ListenRequest::default()
    };
    listens.say(listen("closed.*")).await;
    assert_denied(&listens.end().await.unwrap_err(), "signal closed.*");
    let mut listens = open!(gateway, listen, ListenRequest, "app");
    listens.ask(listen("open.*")).await;
    let mut serves = open!(gateway, serve, ServeRequest, "reader");
    let serve = ServeRequest {
        open: Some(serve_request::Open {
            pattern: "open".to_owned(),
            ..serve_request::Open::default()
        }),
        ..ServeRequest::default()
    };
    serves.say(serve).await;
    assert_denied(&serves.end().await.unwrap_err(), "request open");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_and_each_lease_is_allowed_or_denied_alone() {
    let gateway = gateway().await;
    let mut asks = open!(gateway, request, RequestBatch, "app");
    for (name, code) in [
        ("open", Code::NoResponder),
        ("closed", Code::AccessDenied),
        ("open", Code::NoResponder),
    ] {
        let item = Item {
            request: 1,
            name: name.to_owned(),
            timeout_ms: 100,
            record: Some(a_record("1")),
            ..Item::default()
        };
        let answer = asks
            .ask(RequestBatch {
                requests: vec![item],
            })
            .await;
        let Some(Outcome::Error(error)) = &answer.replies[0].outcome else {
            panic!("somebody replied");
        };
        assert_eq!(error.code(), code, "{}", error.text);
    }

    let mut sends = open!(gateway, send, SendRequest, "app");
    sends.ask(a_sending(1, "open", records(0..1))).await;
    let mut consumes = open!(gateway, consume, ConsumeRequest, "reader");
    let lease = |queue: &str| ConsumeRequest {
        leases: vec![Lease {
            request: 1,
            queue: queue.to_owned(),
            messages_max: 1,
            wait_ms: 10_000,
            ..Lease::default()
        }],
        ..ConsumeRequest::default()
    };
    let denied = consumes.ask(lease("closed")).await;
    let error = denied.failed[0].error.clone().unwrap();
    assert_eq!(error.text, "access denied to the queue closed");
    let leased = consumes.ask(lease("open")).await.leased.pop().unwrap();
    let settle = |kind: settle::Kind| ConsumeRequest {
        settles: vec![Settle {
            request: 2,
            queue: "open".to_owned(),
            lease: leased.lease,
            kind: kind.into(),
            move_to: "open.2".to_owned(),
            ..Settle::default()
        }],
        ..ConsumeRequest::default()
    };
    let denied = consumes.ask(settle(settle::Kind::Move)).await;
    let error = denied.failed[0].error.clone().unwrap();
    assert_eq!(error.text, "access denied to the queue open.2");
    assert_eq!(
        consumes.ask(settle(settle::Kind::Ack)).await.settled[0].count,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_bound_to_a_client_sends_as_that_one_and_keeps_only_its_own_position() {
    let bound = AuthenticationConfig {
        client_claim: Some("sub".to_owned()),
        ..authentication()
    };
    let gateway = Gateway::secured(security(Some(bound), None)).await;
    let mut publishes = open!(gateway, publish, PublishRequest, "app");
    // The records say that they are from the tests.
    let answer = publishes.ask(a_batch(1, "topic", records(0..1))).await;
    assert_eq!(answer.error, None);
    let wanted = |cursor: &str| {
        opening(Open {
            topic: "topic".to_owned(),
            start: Some(open::Start::First(true)),
            cursor: Some(open::Cursor::Exclusive(cursor.to_owned())),
            ..Open::default()
        })
    };
    let mut reads = open!(gateway, subscribe, SubscribeRequest, "app");
    reads.ask(wanted("client:app")).await;
    let Some(Told::Deliveries(frame)) = reads.hear().await.kind else {
        panic!("no delivery");
    };
    assert_eq!(frame.deliveries[0].record.as_ref().unwrap().source, "app");
    let mut reads = open!(gateway, subscribe, SubscribeRequest, "app");
    reads.say(wanted("client:other")).await;
    assert_denied(&reads.end().await.unwrap_err(), "cursor client:other");

    let mut serves = open!(gateway, serve, ServeRequest, "server");
    let serve = ServeRequest {
        open: Some(serve_request::Open {
            pattern: "name".to_owned(),
            ..serve_request::Open::default()
        }),
        ..ServeRequest::default()
    };
    serves.ask(serve).await;
    let mut asks = open!(gateway, request, RequestBatch, "asker");
    let item = Item {
        request: 1,
        name: "name".to_owned(),
        timeout_ms: 10_000,
        record: Some(a_record("1")),
        ..Item::default()
    };
    asks.say(RequestBatch {
        requests: vec![item],
    })
    .await;
    let call = serves.hear().await.calls.pop().unwrap();
    assert_eq!(call.record.unwrap().source, "asker");
    let reply = serve_request::Reply {
        call: call.call,
        outcome: Some(serve_request::reply::Outcome::Record(a_record("2"))),
    };
    serves
        .say(ServeRequest {
            open: None,
            replies: vec![reply],
        })
        .await;
    let Some(Outcome::Record(record)) = asks.hear().await.replies.remove(0).outcome else {
        panic!("no reply");
    };
    assert_eq!(record.source, "server");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_rules_hide_take_none_of_a_responders_room() {
    let rules = rules(&[
        ("asker", ".*", "Queries", &["Write"]),
        // Allows the text of the pattern, and not all that it stands for.
        ("server", "a\\.[^x]+", "Queries", &["Read"]),
    ]);
    let gateway = Gateway::secured(security(Some(authentication()), Some(rules))).await;
    let mut serves = open!(gateway, serve, ServeRequest, "server");
    let serve = ServeRequest {
        open: Some(serve_request::Open {
            pattern: "a.>".to_owned(),
            calls_max: 1,
            ..serve_request::Open::default()
        }),
        ..ServeRequest::default()
    };
    serves.ask(serve).await;
    let mut asks = open!(gateway, request, RequestBatch, "asker");
    let item = |request: u64, name: &str| Item {
        request,
        name: name.to_owned(),
        timeout_ms: 60_000,
        record: Some(a_record("1")),
        ..Item::default()
    };
    for request in 0..3 {
        let answer = asks
            .ask(RequestBatch {
                requests: vec![item(request, "a.x")],
            })
            .await;
        let Some(Outcome::Error(error)) = &answer.replies[0].outcome else {
            panic!("somebody replied");
        };
        assert_eq!(error.code(), Code::NoResponder, "{}", error.text);
    }
    asks.say(RequestBatch {
        requests: vec![item(3, "a.b")],
    })
    .await;
    assert_eq!(serves.hear().await.calls[0].name, "a.b");
}

/// A client that does not read leaves requests untaken, hidden ones too, and can guess their numbers.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_replies_to_a_request_that_rules_hide() {
    // More than a client lets in that does not read, and than the gateway takes out for it meanwhile: some messages of
    // a megabyte each. One stream may not ask for so much at a time.
    const ASKERS: u64 = 4;
    const LARGE: u64 = ASKERS * 40;
    let rules = rules(&[
        ("asker", ".*", "Queries", &["Write"]),
        ("server", "a\\.[^x]+", "Queries", &["Read"]),
    ]);
    let gateway = Gateway::secured(security(Some(authentication()), Some(rules))).await;
    let mut serves = open!(gateway, serve, ServeRequest, "server");
    let serve = ServeRequest {
        open: Some(serve_request::Open {
            pattern: "a.>".to_owned(),
            ..serve_request::Open::default()
        }),
        ..ServeRequest::default()
    };
    serves.ask(serve).await;
    let mut asks = open!(gateway, request, RequestBatch, "asker");
    let item = |request: u64, name: &str, text: &str| Item {
        request,
        name: name.to_owned(),
        timeout_ms: 60_000,
        record: Some(a_record(text)),
        ..Item::default()
    };
    let ask = |requests: Vec<Item>| RequestBatch { requests };
    asks.say(ask(vec![item(0, "a.b", "1")])).await;
    let first = serves.hear().await.calls[0].call;
    let text = "x".repeat(100_000);
    let mut others = Vec::new();
    for _ in 0..ASKERS {
        let asks = open!(gateway, request, RequestBatch, "asker");
        let large = (1..=LARGE / ASKERS).map(|number| item(number, "a.b", &text));
        asks.say(ask(large.collect())).await;
        others.push(asks);
    }
    let under_way = |count: u64| format!("flotilla_requests_under_way {count}");
    soon(async {
        while !gateway.has_metric(&under_way(1 + LARGE)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    asks.say(ask(vec![item(100, "a.x", "1")])).await;
    soon(async {
        while !gateway.has_metric(&under_way(2 + LARGE)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let guessed = (first + 1..first + 2 * LARGE).map(|call| serve_request::Reply {
        call,
        outcome: Some(serve_request::reply::Outcome::Record(a_record("mine"))),
    });
    serves
        .say(ServeRequest {
            open: None,
            replies: guessed.collect(),
        })
        .await;
    serves.until_said().await;
    let reading = tokio::spawn(async move {
        loop {
            serves.hear().await;
        }
    });
    let hidden = loop {
        let mut replies = asks.hear().await.replies;
        if let Some(place) = replies.iter().position(|reply| reply.request == 100) {
            break replies.swap_remove(place).outcome;
        }
    };
    let Some(Outcome::Error(error)) = hidden else {
        panic!("it was replied to");
    };
    assert_eq!(error.code(), Code::NoResponder, "{}", error.text);
    reading.abort();
}
