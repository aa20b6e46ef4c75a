//! Signals: patterns, groups, order, slow listeners.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_broker::{BrokerConfig, BrokerError, Signal, SignalSubscription, SubscribeSignals};
use flotilla_model::name::{Kind, Name};
use futures::FutureExt;

use crate::node::{Node, PATIENCE, eventually, message, text_of, texts};

const SECOND: Duration = Duration::from_secs(1);

async fn listen(node: &Node, pattern: &str, group: Option<&str>) -> SignalSubscription {
    let request = SubscribeSignals {
        namespace: "default".to_owned(),
        pattern: pattern.to_owned(),
        group: group.map(str::to_owned),
    };
    node.broker.subscribe_signals(request).await.unwrap()
}

async fn signal(node: &Node, name: &str, texts: &[String]) {
    let batch = texts
        .iter()
        .map(|text| Signal {
            name: Name::signal(name).unwrap(),
            message: Arc::new(message(text)),
        })
        .collect();
    for result in node.broker.signal(batch).await {
        result.unwrap();
    }
}

async fn heard(subscription: &mut SignalSubscription, count: usize) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
        let signals = next.expect("nothing heard in time").unwrap();
        heard.extend(signals.iter().map(|signal| text_of(&signal.message)));
    }
    heard
}

async fn assert_deaf(subscription: &mut SignalSubscription) {
    let next = tokio::time::timeout(Duration::from_millis(100), subscription.next()).await;
    assert!(next.is_err(), "heard something");
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_decide_who_hears_what() {
    let node = Node::start().await;
    let mut exact = listen(&node, "a.b", None).await;
    let mut one = listen(&node, "a.*", None).await;
    let mut rest = listen(&node, "a.>", None).await;
    let mut other = listen(&node, "b", None).await;
    signal(&node, "a.b", &texts(1..2)).await;
    signal(&node, "a.b.c", &texts(2..3)).await;
    signal(&node, "a", &texts(3..4)).await;
    assert_eq!(heard(&mut exact, 1).await, ["1"]);
    assert_eq!(heard(&mut one, 1).await, ["1"]);
    assert_eq!(heard(&mut rest, 2).await, ["1", "2"]);
    for silent in [&mut exact, &mut one, &mut rest, &mut other] {
        assert_deaf(silent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shares_and_everyone_else_hears_all() {
    let node = Node::start().await;
    let mut first = listen(&node, "a", Some("g")).await;
    let mut second = listen(&node, "a", Some("g")).await;
    // Another pattern under the same name is another group.
    let mut elsewhere = listen(&node, "*", Some("g")).await;
    let mut alone = listen(&node, "a", None).await;
    signal(&node, "a", &texts(0..100)).await;
    assert_eq!(heard(&mut alone, 100).await, texts(0..100));
    assert_eq!(heard(&mut elsewhere, 100).await, texts(0..100));
    let mut shared = heard(&mut first, 50).await;
    shared.extend(heard(&mut second, 50).await);
    shared.sort_by_key(|text| text.parse::<u64>().unwrap());
    assert_eq!(shared, texts(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_heard_whole_and_in_order() {
    let node = Node::start().await;
    let mut subscription = listen(&node, "burst", None).await;
    let hearing = tokio::spawn(async move { heard(&mut subscription, 5_000).await });
    for number in (0..5_000).step_by(500) {
        signal(&node, "burst", &texts(number..number + 500)).await;
    }
    assert_eq!(hearing.await.unwrap(), texts(0..5_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_listener_loses_signals_alone_and_they_are_counted() {
    let config = BrokerConfig {
        signal_wait_max: SECOND,
        ..BrokerConfig::default()
    };
    let node = Node::start_with(config).await;
    let mut slow = listen(&node, "a", None).await;
    let mut quick = listen(&node, "a", None).await;
    let before = Instant::now();
    for number in (0..1_000).step_by(50) {
        let batch = texts(number..number + 50);
        signal(&node, "a", &batch).await;
        assert_eq!(heard(&mut quick, 50).await, batch);
    }
    assert!(
        before.elapsed() < 10 * SECOND,
        "publishers were held up for each batch"
    );
    assert_eq!(heard(&mut slow, 100).await, texts(0..100));
    assert_deaf(&mut slow).await;
    let text = node.broker.metrics_text();
    assert!(
        text.contains("flotilla_signals_dropped_total 900\n"),
        "{text}"
    );
    signal(&node, "a", &texts(1..2)).await;
    assert_eq!(heard(&mut slow, 1).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_left_gets_nothing_and_its_group_goes_on() {
    let node = Node::start().await;
    let first = listen(&node, "a", Some("g")).await;
    let mut second = listen(&node, "a", Some("g")).await;
    drop(first);
    signal(&node, "a", &texts(0..10)).await;
    assert_eq!(heard(&mut second, 10).await, texts(0..10));
    drop(second);
    signal(&node, "a", &texts(0..10)).await;
    assert!(
        node.broker
            .metrics_text()
            .contains("flotilla_signal_listeners 0\n")
    );
}

async fn until_listeners(node: &Node, count: u32) {
    let shown = format!("flotilla_signal_listeners {count}\n");
    let metrics = || async { Ok(node.broker.metrics_text()) };
    eventually(&shown, metrics, |text| text.contains(&shown)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_left_before_it_heard_that_it_listens_is_no_longer_one() {
    let node = Node::start().await;
    let mut listening = Box::pin(node.broker.subscribe_signals(SubscribeSignals {
        namespace: "default".to_owned(),
        pattern: "a".to_owned(),
        group: None,
    }));
    // The question is on its way; the answer is hardly ever there at once.
    let answered = listening.as_mut().now_or_never();
    until_listeners(&node, 1).await;
    drop((listening, answered));
    until_listeners(&node, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_signals_are_listed() {
    let node = Node::start().await;
    let _listener = listen(&node, "b.*", None).await;
    for name in ["a", "b.1", "b.2"] {
        signal(&node, name, &texts(0..3)).await;
    }
    let page = node.broker.list(Kind::Signal, None, 2).await.unwrap();
    let rest = node.broker.list(Kind::Signal, page.next, 2).await.unwrap();
    let items: Vec<_> = page.items.iter().chain(&rest.items).collect();
    let shown: Vec<_> = items
        .iter()
        .map(|item| {
            (
                item.name.text(),
                item.published_total,
                item.subscriber_count,
            )
        })
        .collect();
    assert_eq!(shown, [("a", 3, 0), ("b.1", 3, 1), ("b.2", 3, 1)]);
    assert_eq!(rest.next, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_end_when_the_broker_stops() {
    let node = Node::start().await;
    let mut subscription = listen(&node, "a", None).await;
    node.broker.shutdown().await;
    let ended = subscription.next().await.map(|_| ());
    assert_eq!(ended, Err(BrokerError::ShuttingDown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_pattern_is_refused() {
    let node = Node::start().await;
    for pattern in ["", "a.>.b"] {
        let request = SubscribeSignals {
            namespace: "default".to_owned(),
            pattern: pattern.to_owned(),
            group: None,
        };
        assert!(
            node.broker.subscribe_signals(request).await.is_err(),
            "{pattern:?}"
        );
    }
}
