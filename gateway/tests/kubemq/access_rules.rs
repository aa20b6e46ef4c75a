//! Whom rules are asked about, what they say of patterns, and that they may change.

use std::time::Duration;

use flotilla_gateway::access::{AuthenticationConfig, RulesSource};
use flotilla_gateway::kubemq::protocol::QueuesInfoRequest;
use flotilla_gateway::kubemq::protocol::subscribe::SubscribeType;
use serde_json::json;
use tonic::Code;

use crate::authorization::{BOTH, assert_denied, event_of, message_of};
use crate::shared::tokens::{authentication, rules, rules_text, security, token, with_token};
use crate::support::{Gateway, a_subscribe, next_event, soon};

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_queues_are_for_whom_the_token_names() {
    let rules = rules(&[
        ("sender", ".*", "Queues", BOTH),
        ("app", "open", "Queues", &["Read"]),
    ]);
    let gateway = Gateway::secured(security(Some(authentication()), Some(rules))).await;
    let mut client = gateway.client().await;
    let app = token(&json!({"sub": "app"}));
    for queue in ["open", "closed"] {
        let message = with_token(&app, message_of("sender", queue));
        let sent = client.send_queue_message(message).await.unwrap();
        assert!(!sent.into_inner().is_error);
    }
    let info = |names: &str| {
        let request = QueuesInfoRequest {
            request_id: "i".to_owned(),
            queue_name: names.to_owned(),
        };
        with_token(&app, request)
    };
    let all = client.queues_info(info("")).await.unwrap().into_inner();
    let queues = all.info.unwrap().queues;
    let names: Vec<&str> = queues.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(names, ["open"]);
    assert!(client.queues_info(info("open")).await.is_ok());
    assert_denied(client.queues_info(info("open;closed")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_names_the_client_counts_more_than_what_a_request_says() {
    let authentication = AuthenticationConfig {
        client_claim: Some("client".to_owned()),
        ..authentication()
    };
    let rules = rules(&[("boss", ".*", "EventsStore", BOTH)]);
    let gateway = Gateway::secured(security(Some(authentication), Some(rules))).await;
    let mut client = gateway.client().await;
    let boss = token(&json!({"client": "boss"}));
    let other = token(&json!({"client": "other"}));
    let event = || event_of("boss", "e", true);
    assert!(client.send_event(with_token(&boss, event())).await.is_ok());
    assert_denied(client.send_event(with_token(&other, event())).await);
    let unnamed = token(&json!({"sub": "boss"}));
    let refused = client.send_event(with_token(&unnamed, event())).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_brings_only_the_channels_that_its_client_may_read() {
    let rules = rules(&[
        ("sender", ".*", "Events", &["Write"]),
        // Allows the text of the pattern, and not all that it stands for.
        ("listener", "a\\.[^x]+", "Events", &["Read"]),
    ]);
    let gateway = Gateway::secured(security(None, Some(rules))).await;
    let mut client = gateway.client().await;
    let subscribe = a_subscribe(SubscribeType::Events as i32, "a.>", "listener");
    let mut events = client
        .subscribe_to_events(subscribe)
        .await
        .unwrap()
        .into_inner();
    for channel in ["a.x", "a.b", "a.b.x", "a.c"] {
        client
            .send_event(event_of("sender", channel, false))
            .await
            .unwrap();
    }
    assert_eq!(next_event(&mut events).await.channel, "a.b");
    assert_eq!(next_event(&mut events).await.channel, "a.c");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_rules_are_in_force_soon_and_wrong_ones_never() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.json");
    let put = |text: &str| {
        let next = folder.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, &path).unwrap();
    };
    let for_client = |client| rules_text(&[(client, ".*", "EventsStore", BOTH)]);
    put(&for_client("a"));
    let source = RulesSource::File {
        path: path.clone(),
        reload_interval: Some(Duration::from_millis(10)),
    };
    let gateway = Gateway::secured(security(None, Some(source))).await;
    let mut client = gateway.client().await;
    assert!(client.send_event(event_of("a", "e", true)).await.is_ok());
    assert_denied(client.send_event(event_of("b", "e", true)).await);
    put(&for_client("b"));
    soon(async {
        while client.send_event(event_of("b", "e", true)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_denied(client.send_event(event_of("a", "e", true)).await);
    put("[{\"ClientID\":\"a\"");
    let refused = "flotilla_access_rules_read_total{outcome=\"refused\"} 1";
    soon(async {
        while !gateway
            .broker
            .metrics_text()
            .lines()
            .any(|line| line == refused)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(client.send_event(event_of("b", "e", true)).await.is_ok());
    assert_denied(client.send_event(event_of("a", "e", true)).await);
}
