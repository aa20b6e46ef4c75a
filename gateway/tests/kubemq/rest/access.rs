//! Who is let in over REST, and what they may do there: what holds over gRPC.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Answer, Socket, a_post, get, post, raw};
use crate::authentication::{EXPIRED, NO_TOKEN, in_seconds};
use crate::authorization::DENIED;
use crate::certificates::Authority;
use crate::encrypting::{encrypted, socket};
use crate::shared::tokens::{authentication, rules, security, token};
use crate::support::{Gateway, soon, unique};

fn an_event(client: &str, channel: &str) -> String {
    json!({"ClientID": client, "Channel": channel, "Metadata": "m"}).to_string()
}

/// A request with a header more.
fn with_header(request: &str, header: &str) -> String {
    request.replacen("\r\n", &format!("\r\n{header}\r\n"), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_a_ping_needs_a_token() {
    let gateway = Gateway::secured(security(Some(authentication()), None)).await;
    let rest = gateway.rest;
    assert_eq!(get(rest, "/ping").await.status, 200);
    let event = an_event("c", &unique("e"));
    let (status, text) = post(rest, "/send/event", &event).await.refused();
    assert_eq!(status, 401);
    assert_eq!(text, NO_TOKEN);
    let path = "/subscribe/events?client_id=c&channel=e&subscribe_type=events";
    let Err((status, text)) = Socket::try_open(rest, path).await else {
        panic!("a subscription without a token");
    };
    assert_eq!(status, 401);
    assert_eq!(text, NO_TOKEN);
    let token = token(&json!({"exp": in_seconds(60)}));
    for header in [
        format!("Authorization: {token}"),
        format!("authorization: Bearer {token}"),
    ] {
        let sending = with_header(&a_post("/send/event", &event), &header);
        assert_eq!(raw(rest, &sending).await.data()["Sent"], true);
    }
    let old = self::token(&json!({"exp": in_seconds(-60)}));
    let sending = a_post("/send/event", &event);
    let late = with_header(&sending, &format!("Authorization: {old}"));
    let refused = raw(rest, &late).await.refused();
    assert_eq!(refused, (401, EXPIRED.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_those_of_the_other_protocols() {
    let rules = rules(&[("c", "open.*", "Events", &["Write"])]);
    let gateway = Gateway::secured(security(None, Some(rules))).await;
    let rest = gateway.rest;
    let allowed = post(rest, "/send/event", &an_event("c", "open.1")).await;
    assert_eq!(allowed.data()["Sent"], true);
    for event in [
        an_event("c", "closed"),
        an_event("d", "open.1"),
        // All targets of a list, or none.
        an_event("c", "open.1;queues:open.1"),
    ] {
        let denied = post(rest, "/send/event", &event).await;
        assert_eq!(denied.refused(), (403, DENIED.to_owned()), "{event}");
    }
    let path = "/subscribe/events?client_id=c&channel=open.1&subscribe_type=events";
    let Err(denied) = Socket::try_open(rest, path).await else {
        panic!("a subscription without the right");
    };
    assert_eq!(denied, (403, DENIED.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_like_those_of_grpc() {
    let authority = Authority::new();
    let server = authority.server(&["localhost"]);
    let gateway = Gateway::secured(encrypted(&server, None)).await;
    let mut connection = soon(socket(gateway.rest, &authority, b"http/1.1"))
        .await
        .unwrap();
    let request = "GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    soon(connection.read_to_string(&mut text)).await.unwrap();
    assert!(Answer::of(&text).data()["Host"].is_string(), "{text}");
    let wrong = soon(socket(gateway.rest, &authority, b"h2")).await;
    assert!(wrong.is_err(), "HTTP/2 was agreed on");
}
