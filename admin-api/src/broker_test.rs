//! The routes over a real broker in a temporary directory.

use std::future::Future;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use actix_web::rt::System;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, web};
use flotilla_broker::{Broker, BrokerConfig, CursorMode, Enqueue, Publish, Start, SubscribeTopic};
use flotilla_cluster::{Cluster, ClusterConfig};
use flotilla_model::command::QueuePolicy;
use flotilla_model::message::Message;
use flotilla_model::name::Name;
use flotilla_model::settings::{QueueSettings, TopicSettings};
use serde_json::{Value, json};

use crate::routes;
use crate::state::{Admin, AdminConfig};

const DEADLINE: Duration = Duration::from_secs(30);

/// Runs a test against a node of its own: the broker on a runtime of many threads, the handlers on
/// an actix system, as in the program.
pub(crate) fn with_node<T, F>(run: T)
where
    T: FnOnce(Client) -> F,
    F: Future<Output = ()>,
{
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut config = ClusterConfig::new(directory.path());
    config.shards = 2;
    config.log.segment_bytes = 1 << 20;
    config.log.reserve_bytes = Some(1 << 20);
    let handle = runtime.handle().clone();
    let (cluster, broker) = runtime.block_on(async move {
        let cluster = Cluster::start(config, handle).await.unwrap();
        let broker = Broker::start(cluster.clone(), BrokerConfig::default())
            .await
            .unwrap();
        (cluster, broker)
    });
    let admin = Admin::new(AdminConfig {
        version: "test".to_owned(),
        node_name: "node-1".to_owned(),
        body_bytes_max: 65_536,
        connections_max: 8,
        topic_defaults: TopicSettings::default(),
        queue_defaults: QueueSettings::default(),
    });
    admin.serve_broker(broker.clone());
    let client = Client {
        admin,
        broker: broker.clone(),
    };
    System::new().block_on(async move {
        tokio::time::timeout(DEADLINE, run(client)).await.unwrap();
    });
    runtime.block_on(async move {
        broker.shutdown().await;
        let deadline = std::time::Instant::now() + DEADLINE;
        cluster.shutdown(deadline).await.unwrap();
    });
}

/// Sends requests through the routes.
pub(crate) struct Client {
    pub(crate) admin: Admin,
    pub(crate) broker: Broker,
}

impl Client {
    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let app = init_service(
            App::new()
                .app_data(web::Data::new(self.admin.clone()))
                .configure(|service| routes::configure(service, 65_536)),
        )
        .await;
        let mut request = TestRequest::with_uri(path).method(method);
        if let Some(body) = body {
            request = request.set_json(body);
        }
        let response = call_service(&app, request.to_request()).await;
        let status = response.status();
        let body = read_body(response).await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.send(method.clone(), path, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ok(Method::GET, path, None).await
    }

    async fn error(&self, method: Method, path: &str, body: Option<Value>) -> (u16, String) {
        let (status, answer) = self.send(method, path, body).await;
        let code = answer["error"]["code"].as_str().unwrap_or("none");
        (status.as_u16(), code.to_owned())
    }

    pub(crate) async fn publish(&self, topic: &str, count: usize) {
        let batch = (0..count).map(|_| Publish {
            topic: Name::topic(topic).unwrap(),
            message: Message::default(),
            dedup: None,
        });
        for result in self.broker.publish(batch.collect()).await {
            result.unwrap();
        }
    }
}

/// A name as it stands in a path: everything but letters and digits is encoded.
fn encoded(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(byte).collect()
}

#[test]
fn replicas_are_compared_on_demand() {
    with_node(|node| async move {
        let path = "/api/v1/cluster/verify";
        assert_eq!(
            node.error(Method::GET, path, None).await,
            (404, "not_found".to_owned())
        );
        node.publish("orders", 3).await;
        let begun = node.ok(Method::POST, path, None).await;
        assert_eq!(begun, json!({"run": 1}));
        let found = loop {
            let found = node.get(path).await;
            if found["running"] == false {
                break found;
            }
            actix_web::rt::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(
            (&found["fine"], &found["shards_total"]),
            (&json!(true), &json!(3))
        );
        let replicas = found["shards"].as_array().unwrap().iter();
        let messages = replicas.map(|shard| shard["replicas"][0]["messages"].as_u64().unwrap());
        assert_eq!(messages.sum::<u64>(), 3, "{found}");
    });
}

#[test]
fn a_topic_is_created_changed_listed_and_deleted() {
    with_node(|node| async move {
        let path = "/api/v1/topics/orders";
        assert_eq!(
            node.error(Method::GET, path, None).await,
            (404, "not_found".to_owned())
        );
        let settings = json!({"retention_messages": 5, "retention_ms": null});
        let made = node.ok(Method::PUT, path, Some(settings)).await;
        assert_eq!(made["settings"]["retention_messages"], 5);
        assert_eq!(made["settings"]["retention_ms"], Value::Null);
        assert_eq!(made["messages"], 0);
        node.publish("orders", 3).await;
        let seen = node.get(path).await;
        assert_eq!(
            (&seen["messages"], &seen["next_offset"]),
            (&json!(3), &json!(4))
        );
        let list = node.get("/api/v1/topics").await;
        assert_eq!(list["items"][0]["name"], "orders");
        assert_eq!(list["items"][0]["messages"], 3);
        let again = node.ok(Method::PUT, path, Some(json!({}))).await;
        assert_eq!(again["settings"]["retention_messages"], Value::Null);
        assert_eq!(again["messages"], 3);
        node.ok(Method::DELETE, path, None).await;
        assert_eq!(node.error(Method::GET, path, None).await.0, 404);
        assert_eq!(node.error(Method::DELETE, path, None).await.0, 404);
    });
}

#[test]
fn a_queue_is_created_and_shows_its_counts() {
    with_node(|node| async move {
        let path = "/api/v1/queues/work";
        let settings = json!({"messages_max": 2, "dead_letter": {"name": "dead"}});
        let made = node.ok(Method::PUT, path, Some(settings)).await;
        let dead_letter = json!({"namespace": "default", "name": "dead"});
        assert_eq!(made["settings"]["dead_letter"], dead_letter);
        let item = |delay_ms| Enqueue {
            queue: Name::queue("work").unwrap(),
            message: Message::default(),
            policy: QueuePolicy {
                delay_ms,
                ..QueuePolicy::default()
            },
            dedup: None,
        };
        for result in node.broker.enqueue(vec![item(0), item(60_000)]).await {
            result.unwrap();
        }
        let seen = node.get(path).await;
        assert_eq!(
            (&seen["available"], &seen["delayed"]),
            (&json!(1), &json!(1))
        );
        assert_eq!((&seen["messages"], &seen["leased"]), (&json!(2), &json!(0)));
        let list = node.get("/api/v1/queues?namespace=default").await;
        assert_eq!(list["items"][0]["available"], 1);
        let other = node.get("/api/v1/queues?namespace=other").await;
        assert_eq!(other["items"], json!([]));
    });
}

#[test]
fn any_name_can_be_written_in_a_path() {
    with_node(|node| async move {
        for name in [
            "a/b",
            "a%2Fb",
            "100%",
            "a b",
            "ä→",
            "a?b#c",
            "..",
            "a+b",
            "%",
            "a;b\\c\"d",
        ] {
            let path = format!("/api/v1/topics/{}", encoded(name));
            let made = node.ok(Method::PUT, &path, Some(json!({}))).await;
            assert_eq!(made["name"], name);
            assert_eq!(node.get(&path).await["name"], name);
        }
    });
}

#[test]
fn a_namespace_is_part_of_the_name() {
    with_node(|node| async move {
        let path = "/api/v1/topics/a?namespace=one";
        let made = node.ok(Method::PUT, path, Some(json!({}))).await;
        assert_eq!(made["namespace"], "one");
        assert_eq!(
            node.error(Method::GET, "/api/v1/topics/a", None).await.0,
            404
        );
    });
}

#[test]
fn pages_show_every_topic_once() {
    with_node(|node| async move {
        for number in 0..25 {
            node.publish(&format!("t{number}"), 1).await;
        }
        let mut names = Vec::new();
        let mut path = "/api/v1/topics?limit=4".to_owned();
        loop {
            let page = node.get(&path).await;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 4);
            names.extend(items.iter().map(|t| t["name"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else {
                break;
            };
            path = format!("/api/v1/topics?limit=4&after={}", encoded(next));
        }
        names.sort();
        let mut expected: Vec<_> = (0..25).map(|n| format!("t{n}")).collect();
        expected.sort();
        assert_eq!(names, expected);
        let bad = node
            .error(Method::GET, "/api/v1/topics?after=nonsense", None)
            .await;
        assert_eq!(bad, (400, "invalid_request".to_owned()));
    });
}

#[test]
fn a_group_shows_its_lag_and_can_be_reset_and_deleted() {
    with_node(|node| async move {
        node.publish("log", 10).await;
        let subscription = node
            .broker
            .subscribe_topic(SubscribeTopic {
                topic: Name::topic("log").unwrap(),
                start: Start::First,
                cursor: CursorMode::Group {
                    name: "group:a/b".to_owned(),
                },
                buffer_messages: 1,
                buffer_bytes: 1 << 20,
            })
            .await
            .unwrap();
        let groups = "/api/v1/topics/log/groups";
        let group = format!("{groups}/{}", encoded("group:a/b"));
        let seen = node.get(groups).await;
        assert_eq!(seen["items"][0]["name"], "group:a/b");
        assert_eq!(seen["items"][0]["lag"], 10);
        assert_eq!(seen["items"][0]["members"], 1);
        assert_eq!(node.get("/api/v1/topics/log").await["subscriber_count"], 1);
        drop(subscription);
        while node.get(groups).await["items"][0]["members"] != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let reset = format!("{group}/reset");
        node.ok(Method::POST, &reset, Some(json!({"offset": 8})))
            .await;
        let seen = node.get(groups).await;
        assert_eq!(seen["items"][0]["next_offset"], 8);
        assert_eq!(seen["items"][0]["lag"], 3);
        node.ok(Method::DELETE, &group, None).await;
        assert_eq!(node.get(groups).await["items"], json!([]));
        let gone = node
            .error(Method::POST, &reset, Some(json!({"to": "first"})))
            .await;
        assert_eq!(gone, (404, "not_found".to_owned()));
    });
}

#[test]
fn a_serving_node_is_ready_and_shows_itself() {
    with_node(|node| async move {
        let ready = node.get("/readyz").await;
        assert_eq!(ready["ready"], true);
        assert_eq!(ready["reasons"], json!([]));
        assert!(ready["shards"].as_array().unwrap().len() >= 2);
        let nodes = node.get("/api/v1/nodes").await;
        assert_eq!(nodes["items"][0]["self"], true);
        assert_eq!(node.get("/api/v1/damage").await["items"], json!([]));
        node.admin.hold_back("the node is shutting down");
        let (status, ready) = node.send(Method::GET, "/readyz", None).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ready["reasons"][0], "the node is shutting down");
        assert_eq!(
            node.error(Method::GET, "/api/v1/topics", None).await.1,
            "not_serving"
        );
        assert_eq!(node.get("/healthz").await["alive"], true);
    });
}

#[test]
fn the_cluster_is_shown_with_its_nodes_and_shards() {
    with_node(|node| async move {
        let cluster = node.get("/api/v1/cluster").await;
        assert_eq!(cluster["cluster"].as_str().unwrap().len(), 32);
        assert_eq!(cluster["node"], 1);
        assert_eq!(cluster["ready"], true);
        assert_eq!(cluster["metadata"]["leader"], 1);
        let shards = cluster["shards"].as_array().unwrap();
        let places: Vec<_> = shards.iter().map(|s| (&s["id"], &s["leader"])).collect();
        assert_eq!(places, [(&json!(1), &json!(1)), (&json!(2), &json!(1))]);
        assert_eq!(shards[0]["replicas"], json!([1]));
        assert_eq!(shards[0]["voters"], json!([1]));
        let shown = node.get("/api/v1/nodes/1").await;
        assert_eq!(shown, cluster["nodes"][0]);
        assert_eq!(shown["state"], "up");
        assert_eq!(shown["leads_shards"], json!([1, 2]));
        for (path, status, code) in [
            ("/api/v1/nodes/2", 404, "not_found"),
            ("/api/v1/nodes/x", 400, "invalid_request"),
        ] {
            let got = node.error(Method::GET, path, None).await;
            assert_eq!(got, (status, code.to_owned()), "{path}");
        }
    });
}

#[test]
fn the_number_of_replicas_is_changed() {
    with_node(|node| async move {
        let path = "/api/v1/cluster/replicas";
        assert_eq!(node.get("/api/v1/cluster").await["replicas"], 3);
        node.ok(Method::PUT, path, Some(json!({"replicas": 5})))
            .await;
        assert_eq!(node.get("/api/v1/cluster").await["replicas"], 5);
        for wrong in [json!({"replicas": 0}), json!({"replicas": 8}), json!({})] {
            let got = node.error(Method::PUT, path, Some(wrong)).await;
            assert_eq!(got, (400, "invalid_request".to_owned()));
        }
    });
}

#[test]
fn metrics_of_broker_and_interface_are_one_valid_text() {
    with_node(|node| async move {
        node.publish("m", 2).await;
        let text = crate::handlers::health::metrics(web::Data::new(node.admin.clone()))
            .await
            .unwrap();
        let text = actix_web::body::to_bytes(text.into_body()).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        let mut seen = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let name = family.split(' ').next().unwrap();
                assert!(seen.insert(name.to_owned()), "{name} is described twice");
            } else if !line.starts_with('#') {
                let (_, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(
            seen.contains("flotilla_serving") && seen.len() > 15,
            "{seen:?}"
        );
    });
}
