//! Subscriptions with a place of their own: start positions, credit, sharing of reads, retention.

use std::time::Duration;

use flotilla_broker::{BrokerConfig, BrokerError, CursorMode, Start, SubscribeTopic};
use flotilla_model::settings::TopicSettings;

use crate::node::{
    Node, PATIENCE, assert_silent, at, eventually, from, next, offsets, read, texts, topic,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_start_position_begins_where_it_says() {
    let node = Node::start().await;
    let topic = topic("starts");
    node.publish(&topic, &texts(1..4)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let fourth = node.publish(&topic, &texts(4..6)).await[0].at;
    let cases = [
        (Start::NewOnly, 6),
        (Start::First, 1),
        (Start::Last, 5),
        (Start::Offset(at(3)), 3),
        (Start::Offset(at(0)), 1),
        (Start::Wall(fourth), 4),
        (Start::Ago(Duration::from_secs(3_600)), 1),
        (Start::Ago(Duration::ZERO), 6),
    ];
    let mut subscriptions = Vec::new();
    for (start, first) in cases {
        let subscription = node.subscribe(from(&topic, start, CursorMode::None)).await;
        subscriptions.push((subscription, start, first));
    }
    node.publish(&topic, &texts(6..8)).await;
    for (mut subscription, start, first) in subscriptions {
        let expected = offsets(first..8);
        assert_eq!(
            read(&mut subscription, expected.len()).await,
            expected,
            "{start:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_beyond_the_end_waits_for_that_offset() {
    let node = Node::start().await;
    let topic = topic("beyond");
    let mut subscription = node
        .subscribe(from(&topic, Start::Offset(at(4)), CursorMode::None))
        .await;
    node.publish(&topic, &texts(1..4)).await;
    assert_silent(&mut subscription).await;
    node.publish(&topic, &texts(4..6)).await;
    assert_eq!(read(&mut subscription, 2).await, offsets(4..6));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_missed_between_replay_and_live() {
    let node = Node::start().await;
    let topic = topic("gapless");
    node.publish(&topic, &texts(1..501)).await;
    let writer = async {
        for number in (501..2_001).step_by(10) {
            node.publish(&topic, &texts(number..number + 10)).await;
        }
    };
    let reader = async {
        let mut subscription = node
            .subscribe(from(&topic, Start::First, CursorMode::None))
            .await;
        read(&mut subscription, 2_000).await
    };
    let (_, got) = tokio::join!(writer, reader);
    assert_eq!(got, offsets(1..2_001));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_subscribers_at_the_tail_all_get_everything() {
    let node = Node::start().await;
    let topic = topic("fan-out");
    let mut readers = Vec::new();
    for _ in 0..50 {
        let mut subscription = node
            .subscribe(from(&topic, Start::NewOnly, CursorMode::None))
            .await;
        readers.push(tokio::spawn(
            async move { read(&mut subscription, 1_000).await },
        ));
    }
    for number in (1..1_001).step_by(50) {
        node.publish(&topic, &texts(number..number + 50)).await;
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), offsets(1..1_001));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_a_little_now_and_then_holds_up_no_reader_of_another_topic() {
    // As much as one read takes.
    let node = Node::start_with(BrokerConfig {
        read_bytes_max: 16 << 10,
        read_run_bytes: 16 << 10,
        ..BrokerConfig::default()
    })
    .await;
    let (held, other) = (topic("held"), topic("other"));
    node.publish(&held, &texts(1..1_001)).await;
    node.publish(&other, &texts(1..11)).await;
    let request = SubscribeTopic {
        buffer_messages: 1,
        ..from(&held, Start::First, CursorMode::None)
    };
    let mut slow = node.subscribe(request).await;
    assert_eq!(read(&mut slow, 1).await, offsets(1..2));
    let taking = tokio::spawn(async move {
        for number in 2.. {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(read(&mut slow, 1).await, offsets(number..number + 1));
        }
    });
    let mut reader = node
        .subscribe(from(&other, Start::First, CursorMode::None))
        .await;
    assert_eq!(read(&mut reader, 10).await, offsets(1..11));
    assert!(!taking.is_finished(), "nobody held anything up");
    taking.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_paced_and_loses_nothing() {
    let node = Node::start().await;
    let topic = topic("slow");
    let request = SubscribeTopic {
        buffer_messages: 10,
        ..from(&topic, Start::First, CursorMode::None)
    };
    let mut slow = node.subscribe(request).await;
    let mut quick = node
        .subscribe(from(&topic, Start::First, CursorMode::None))
        .await;
    node.publish(&topic, &texts(1..3_001)).await;
    assert_eq!(read(&mut quick, 3_000).await, offsets(1..3_001));
    let mut first = Vec::new();
    while first.len() < 10 {
        first.extend(next(&mut slow).await);
    }
    assert_eq!(first.len(), 10, "no more than the credit");
    assert_silent(&mut slow).await;
    slow.done(first[9].offset);
    assert_eq!(read(&mut slow, 2_990).await, offsets(11..3_001));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusive_cursor_goes_on_where_its_reader_stopped() {
    let node = Node::start().await;
    let topic = topic("resume");
    let cursor = CursorMode::Exclusive {
        name: "client-1".to_owned(),
    };
    node.publish(&topic, &texts(1..11)).await;
    let request = || from(&topic, Start::First, cursor.clone());
    let mut subscription = node.subscribe(request()).await;
    let mut got = Vec::new();
    while got.len() < 10 {
        got.extend(next(&mut subscription).await);
    }
    subscription.done(at(4));
    drop(subscription);
    let mut again = node.subscribe(request()).await;
    assert_eq!(read(&mut again, 6).await, offsets(5..11));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_reader_of_an_exclusive_cursor_has_its_own_place() {
    let node = Node::start().await;
    let topic = topic("twice");
    let request = |start| {
        let name = "client-1".to_owned();
        from(&topic, start, CursorMode::Exclusive { name })
    };
    node.publish(&topic, &texts(1..6)).await;
    let mut first = node.subscribe(request(Start::First)).await;
    assert_eq!(read(&mut first, 5).await, offsets(1..6));
    let mut second = node.subscribe(request(Start::Offset(at(3)))).await;
    assert_eq!(read(&mut second, 3).await, offsets(3..6));
    drop(second);
    drop(first);
    let mut third = node.subscribe(request(Start::First)).await;
    assert_silent(&mut third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_fell_behind_retention_goes_on_with_what_is_kept() {
    let node = Node::start().await;
    let topic = topic("short");
    let settings = TopicSettings {
        retention_messages: Some(10),
        ..TopicSettings::default()
    };
    node.broker
        .configure_topic(topic.clone(), settings)
        .await
        .unwrap();
    let mut subscription = node
        .subscribe(from(&topic, Start::Offset(at(1)), CursorMode::None))
        .await;
    let request = SubscribeTopic {
        buffer_messages: 1,
        ..from(&topic, Start::First, CursorMode::None)
    };
    let mut behind = node.subscribe(request).await;
    node.publish(&topic, &texts(1..2)).await;
    assert_eq!(next(&mut behind).await[0].offset, at(1));
    for number in 2..31 {
        node.publish(&topic, &texts(number..number + 1)).await;
        read(&mut subscription, if number == 2 { 2 } else { 1 }).await;
    }
    behind.done(at(1));
    let mut got = Vec::new();
    while got.last() != Some(&30) {
        got.extend(
            read(&mut behind, 1)
                .await
                .into_iter()
                .map(|(offset, _)| offset),
        );
    }
    // Message 2 was read for both of them while it was still kept.
    let kept: Vec<u64> = (21..31).collect();
    assert_eq!(&got[got.len() - 10..], kept);
    assert!(
        got[..got.len() - 10].iter().all(|offset| *offset == 2),
        "{got:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_goes_on_with_the_successor_of_a_deleted_topic() {
    let node = Node::start().await;
    let topic = topic("phoenix");
    let mut subscription = node
        .subscribe(from(&topic, Start::First, CursorMode::None))
        .await;
    node.publish(&topic, &texts(1..4)).await;
    assert_eq!(read(&mut subscription, 3).await, offsets(1..4));
    node.broker.delete(topic.clone()).await.unwrap();
    node.publish(&topic, &texts(1..3)).await;
    assert_eq!(read(&mut subscription, 2).await, offsets(1..3));
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_end_when_the_broker_stops() {
    let node = Node::start().await;
    let topic = topic("end");
    let mut subscription = node
        .subscribe(from(&topic, Start::First, CursorMode::None))
        .await;
    let waiting = tokio::spawn(async move { subscription.next().await.map(|got| got.len()) });
    node.broker.shutdown().await;
    let ended = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    assert_eq!(ended.unwrap(), Err(BrokerError::ShuttingDown));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_topic_has_no_actor() {
    let config = BrokerConfig {
        idle_actor_timeout: Duration::from_millis(20),
        ..Default::default()
    };
    let node = Node::start_with(config).await;
    for number in 0..200 {
        let topic = topic(&format!("idle-{number}"));
        node.publish(&topic, &texts(1..2)).await;
        let mut subscription = node
            .subscribe(from(&topic, Start::First, CursorMode::None))
            .await;
        read(&mut subscription, 1).await;
    }
    let actors = |text: &str| text.contains("flotilla_actors{kind=\"topic\"} 0\n");
    let ask = || async { Ok(node.broker.metrics_text()) };
    eventually("all actors sleep", ask, |text| actors(text)).await;
    // And one that slept wakes up again.
    let topic = topic("idle-7");
    let mut subscription = node
        .subscribe(from(&topic, Start::First, CursorMode::None))
        .await;
    assert_eq!(read(&mut subscription, 1).await, offsets(1..2));
}
