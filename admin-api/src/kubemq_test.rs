//! The names that tools of KubeMQ ask for, as they read them.

use std::collections::BTreeSet;

use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, web};
use flotilla_broker::{CursorMode, Enqueue, Start, SubscribeTopic};
use flotilla_model::command::QueuePolicy;
use flotilla_model::message::Message;
use flotilla_model::name::Name;
use serde_json::{Value, json};

use crate::broker_test::{Client, with_node};
use crate::routes;
use crate::state::Admin;

async fn ask(admin: &Admin, path: &str) -> (StatusCode, String) {
    let app = init_service(
        App::new()
            .app_data(web::Data::new(admin.clone()))
            .configure(|service| routes::configure(service, 65_536)),
    )
    .await;
    let request = TestRequest::with_uri(path).to_request();
    let response = call_service(&app, request).await;
    let status = response.status();
    let body = read_body(response).await;
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn enqueue(node: &Client, queue: &str, count: usize) {
    let batch = (0..count).map(|_| Enqueue {
        queue: Name::queue(queue).unwrap(),
        message: Message::default(),
        policy: QueuePolicy::default(),
        dedup: None,
    });
    for result in node.broker.enqueue(batch.collect()).await {
        result.unwrap();
    }
}

async fn data(node: &Client, path: &str) -> Value {
    let answer = node.get(path).await;
    let surrounding = (&answer["node"], &answer["error"], &answer["error_string"]);
    assert_eq!(surrounding, (&json!("node-1"), &json!(false), &json!("")));
    answer["data"].clone()
}

#[test]
fn health_and_readiness_have_the_words_of_kubemq() {
    with_node(|node| async move {
        let told = |status, text: &str| (status, text.to_owned());
        assert_eq!(
            ask(&node.admin, "/health").await,
            told(StatusCode::OK, "healthy")
        );
        assert_eq!(
            ask(&node.admin, "/ready").await,
            told(StatusCode::OK, r#"{"is_healthy":true,"is_ready":true}"#)
        );
        node.admin.hold_back("it is told to");
        assert_eq!(
            ask(&node.admin, "/ready").await,
            told(
                StatusCode::INTERNAL_SERVER_ERROR,
                r#"{"is_healthy":true,"is_ready":false}"#
            )
        );
    });
}

#[test]
fn metrics_have_the_words_of_kubemq_too() {
    with_node(|node| async move {
        node.publish("orders", 2).await;
        let (status, text) = ask(&node.admin, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        let labels =
            r#"{channel="orders",client_id="",node="node-1",side="send",type="events_store"}"#;
        assert!(
            text.contains(&format!("kubemq_messages_count{labels} 2\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("kubemq_messages_last_seen{labels} 1")),
            "{text}"
        );
    });
}

#[test]
fn queues_are_described_a_page_at_a_time() {
    with_node(|node| async move {
        for queue in ["a", "b", "c"] {
            enqueue(&node, queue, 2).await;
        }
        let stats = data(&node, "/v1/stats/queues").await;
        assert_eq!((&stats["total"], &stats["next"]), (&json!(3), &Value::Null));
        let one = stats["queues"].as_array().unwrap();
        let one = one.iter().find(|queue| queue["name"] == "b").unwrap();
        for (key, value) in [
            ("messages", 2),
            ("first_sequence", 1),
            ("last_sequence", 2),
            ("sent", 2),
            ("delivered", 0),
            ("waiting", 2),
            ("delayed", 0),
            ("subscribers", 0),
        ] {
            assert_eq!(one[key], value, "{key} in {one}");
        }
        let mut seen = BTreeSet::new();
        let mut path = "/v1/stats/queues?limit=1".to_owned();
        loop {
            let page = data(&node, &path).await;
            for queue in page["queues"].as_array().unwrap() {
                assert!(seen.insert(queue["name"].as_str().unwrap().to_owned()));
            }
            let Some(next) = page["next"].as_str() else {
                break;
            };
            path = format!("/v1/stats/queues?limit=1&after={next}");
        }
        assert_eq!(seen.len(), 3);
    });
}

#[test]
fn stored_events_are_described_with_their_readers() {
    with_node(|node| async move {
        node.publish("orders", 3).await;
        let subscription = node.broker.subscribe_topic(SubscribeTopic {
            topic: Name::topic("orders").unwrap(),
            start: Start::First,
            cursor: CursorMode::Exclusive {
                name: "client:billing".to_owned(),
            },
            buffer_messages: 10,
            buffer_bytes: 1_000,
        });
        let _subscription = subscription.await.unwrap();
        let stats = data(&node, "/v1/stats/events_stores").await;
        let topic = &stats["queues"][0];
        assert_eq!(
            (&topic["name"], &topic["messages"]),
            (&json!("orders"), &json!(3))
        );
        assert_eq!(
            (&topic["first_sequence"], &topic["last_sequence"]),
            (&json!(1), &json!(3))
        );
        let reader = &topic["clients"][0];
        assert_eq!(
            (&reader["client_id"], &reader["active"]),
            (&json!("billing"), &json!(true))
        );
        let stats = data(&node, "/v1/stats/clients").await;
        let client = &stats["clients"][0];
        assert_eq!(
            (&stats["total"], &client["channel"]),
            (&json!(1), &json!("orders"))
        );
        assert_eq!(
            (&client["client_id"], &client["pending"]),
            (&json!("billing"), &json!(3))
        );
    });
}

#[test]
fn channels_of_all_patterns_are_listed() {
    with_node(|node| async move {
        node.publish("orders", 1).await;
        enqueue(&node, "orders", 1).await;
        let name = Name::signal("orders").unwrap();
        node.broker.create(name).await.unwrap();
        let stats = data(&node, "/v1/stats/channels").await;
        let found: Vec<(&Value, &Value)> = stats["channels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|channel| (&channel["type"], &channel["sent"]))
            .collect();
        let expected = [
            (&json!("events"), &json!(0)),
            (&json!("events_store"), &json!(1)),
            (&json!("queues"), &json!(1)),
        ];
        assert_eq!(found, expected);
    });
}
