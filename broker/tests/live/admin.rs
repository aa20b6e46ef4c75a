//! Lists, details, health and metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use flotilla_broker::{BrokerError, CursorMode, Start};
use flotilla_model::name::Kind;
use flotilla_model::settings::{QueueSettings, TopicSettings};

use crate::node::{Node, eventually, from, group, queue, read, receive, received, texts, topic};

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_every_object_once_page_by_page() {
    let node = Node::start().await;
    let mut expected = BTreeSet::new();
    for number in 0..30 {
        let name = topic(&format!("t{number}"));
        node.publish(&name, &texts(0..3)).await;
        node.enqueue(&queue(&format!("q{number}")), &texts(0..2))
            .await;
        expected.insert(name);
    }
    let mut listed = BTreeSet::new();
    let mut after = None;
    loop {
        let page = node.broker.list(Kind::Topic, after, 7).await.unwrap();
        assert!(page.items.len() <= 7);
        for item in page.items {
            assert_eq!((item.messages, item.published_total), (3, 3));
            assert!(listed.insert(item.name), "listed twice");
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, expected);
    let bad = node
        .broker
        .list(Kind::Queue, Some("nonsense".to_owned()), 7)
        .await;
    assert!(matches!(bad, Err(BrokerError::InvalidRequest { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn details_show_settings_counts_and_subscribers() {
    let node = Node::start().await;
    let (events, jobs) = (topic("events"), queue("jobs"));
    assert!(matches!(
        node.broker.topic(&events).await,
        Err(BrokerError::NotFound { .. })
    ));
    assert!(matches!(
        node.broker.queue(&jobs).await,
        Err(BrokerError::NotFound { .. })
    ));
    let settings = TopicSettings {
        retention_messages: Some(1_000),
        ..TopicSettings::default()
    };
    node.broker
        .configure_topic(events.clone(), settings.clone())
        .await
        .unwrap();
    let job_settings = QueueSettings {
        receive_count_max: 3,
        ..QueueSettings::default()
    };
    node.broker
        .configure_queue(jobs.clone(), job_settings.clone())
        .await
        .unwrap();
    node.publish(&events, &texts(1..11)).await;
    node.enqueue(&jobs, &texts(1..11)).await;
    let _one = node
        .subscribe(from(&events, Start::First, CursorMode::None))
        .await;
    let _two = node.subscribe(group(&events, Start::First, "g")).await;
    let session = node.broker.open_session();
    received(&session, receive(&jobs, 4, Duration::from_secs(1))).await;

    let detail = node.broker.topic(&events).await.unwrap();
    assert_eq!(detail.settings, settings);
    assert_eq!(
        (detail.first.0, detail.next.0, detail.messages),
        (1, 11, 10)
    );
    assert_eq!((detail.published_total, detail.subscriber_count), (10, 2));
    let detail = node.broker.queue(&jobs).await.unwrap();
    assert_eq!(detail.settings, job_settings);
    assert_eq!(
        (detail.messages, detail.available, detail.leased),
        (10, 6, 4)
    );
    assert_eq!((detail.enqueued_total, detail.delivered_total), (10, 4));

    node.broker.delete(jobs.clone()).await.unwrap();
    assert!(matches!(
        node.broker.queue(&jobs).await,
        Err(BrokerError::NotFound { .. })
    ));
    assert!(matches!(
        node.broker.delete(jobs).await,
        Err(BrokerError::NotFound { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_health_tell_what_happened() {
    let node = Node::start().await;
    let (events, jobs) = (topic("events"), queue("jobs"));
    node.publish(&events, &texts(0..10)).await;
    node.enqueue(&jobs, &texts(0..10)).await;
    node.broker.client_connected("kubemq");
    let mut member = node.subscribe(group(&events, Start::First, "g")).await;
    read(&mut member, 10).await;
    let session = node.broker.open_session();
    received(&session, receive(&jobs, 4, Duration::from_secs(1))).await;
    let expected = [
        "flotilla_messages_in_total{kind=\"topic\"} 10",
        "flotilla_messages_out_total{kind=\"topic\"} 10",
        "flotilla_messages_in_total{kind=\"queue\"} 10",
        "flotilla_messages_out_total{kind=\"queue\"} 4",
        "flotilla_bytes_in_total{kind=\"queue\"} 10",
        "flotilla_name_messages_in_total{kind=\"topic\",namespace=\"default\",name=\"events\"} 10",
        "flotilla_queue_messages{namespace=\"default\",name=\"jobs\",state=\"available\"} 6",
        "flotilla_queue_messages{namespace=\"default\",name=\"jobs\",state=\"leased\"} 4",
        "flotilla_group_lag_messages{namespace=\"default\",name=\"events\",group=\"g\"} 0",
        "flotilla_names{kind=\"topic\"} 1",
        "flotilla_clients{protocol=\"kubemq\"} 1",
        "flotilla_sessions 1",
        "flotilla_log_damaged_ranges 0",
        "flotilla_shard_is_leader{shard=\"4\"} 1",
        "flotilla_shard_leader{shard=\"0\"} 1",
        "flotilla_shard_is_failed{shard=\"1\"} 0",
        "flotilla_ready 1",
        "flotilla_log_sync_seconds_count ",
        "flotilla_mailbox_depth{actor=\"shard\",shard=\"1\"} 0",
    ];
    for line in expected {
        let shown = async || Ok::<_, BrokerError>(node.broker.metrics_text());
        eventually(line, shown, |text| text.contains(line)).await;
    }
    let health = node.broker.health();
    assert!(health.alive && health.ready, "{health:?}");
    assert_eq!(health.shards.len(), 5, "metadata and four shards");
    assert_eq!(node.broker.nodes()[0].leads.len(), 4);
    assert_eq!(node.broker.damage(), []);
    node.broker.shutdown().await;
    let health = node.broker.health();
    assert!(!health.ready && !health.reasons.is_empty());
}
