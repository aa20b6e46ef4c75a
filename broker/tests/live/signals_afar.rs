//! Signals between nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_broker::{Broker, BrokerConfig, Signal, SignalSubscription, SubscribeSignals};
use flotilla_model::name::{Kind, Name};

use crate::fleet::Fleet;
use crate::node::{PATIENCE, eventually, message, text_of, texts};

async fn listen(broker: &Broker, pattern: &str, group: Option<&str>) -> SignalSubscription {
    let request = SubscribeSignals {
        namespace: "default".to_owned(),
        pattern: pattern.to_owned(),
        group: group.map(str::to_owned),
    };
    broker.subscribe_signals(request).await.unwrap()
}

async fn signal(broker: &Broker, name: &str, texts: &[String]) {
    let batch = texts.iter().map(|text| Signal {
        name: Name::signal(name).unwrap(),
        message: Arc::new(message(text)),
    });
    for result in broker.signal(batch.collect()).await {
        result.unwrap();
    }
}

async fn heard(listener: &mut SignalSubscription, count: usize) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let next = tokio::time::timeout(PATIENCE, listener.next()).await;
        let signals = next.expect("nothing heard in time").unwrap();
        heard.extend(signals.iter().map(|signal| text_of(&signal.message)));
    }
    heard
}

/// What it hears until nothing comes for as long.
async fn heard_within(listener: &mut SignalSubscription, quiet: Duration) -> Vec<String> {
    let mut heard = Vec::new();
    while let Ok(next) = tokio::time::timeout(quiet, listener.next()).await {
        heard.extend(next.unwrap().iter().map(|signal| text_of(&signal.message)));
    }
    heard
}

/// What it hears until nothing comes for a while.
async fn drain(listener: &mut SignalSubscription) -> Vec<String> {
    heard_within(listener, Duration::from_millis(500)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_listeners_of_all_nodes_once() {
    let fleet = Fleet::start().await;
    let mut listeners = Vec::new();
    for place in 0..3 {
        for pattern in ["a.b", "a.*", "a.>"] {
            listeners.push(listen(fleet.broker(place), pattern, None).await);
        }
    }
    for place in 0..3 {
        let texts = texts(place * 100..(place + 1) * 100);
        signal(fleet.broker(place as usize), "a.b", &texts).await;
        for listener in &mut listeners {
            assert_eq!(heard(listener, 100).await, texts, "in order, right after");
        }
    }
    for listener in &mut listeners {
        assert!(drain(listener).await.is_empty());
    }
    let list = || fleet.broker(1).list(Kind::Signal, None, 10);
    let page = eventually("listeners are counted", list, |page| {
        page.items
            .first()
            .is_some_and(|item| item.subscriber_count == 9)
    })
    .await;
    assert_eq!(page.items[0].published_total, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_over_nodes_hears_each_signal_once() {
    let fleet = Fleet::start().await;
    let mut members = Vec::new();
    for place in [0, 0, 1, 2] {
        members.push(listen(fleet.broker(place), "work.>", Some("g")).await);
    }
    for place in 0..3_u64 {
        let texts = texts(place * 100..(place + 1) * 100);
        signal(fleet.broker(place as usize), "work.now", &texts).await;
    }
    let mut shares = vec![Vec::new(); members.len()];
    let deadline = Instant::now() + PATIENCE;
    while shares.iter().map(Vec::len).sum::<usize>() < 300 {
        assert!(Instant::now() < deadline, "{shares:?}");
        for (member, share) in members.iter_mut().zip(&mut shares) {
            share.extend(heard_within(member, Duration::from_millis(20)).await);
        }
    }
    for (member, share) in members.iter_mut().zip(&mut shares) {
        share.extend(drain(member).await);
        assert!(share.len() > 30, "a share of {}", share.len());
    }
    let all = shares.iter().flatten();
    let mut all: Vec<u64> = all.map(|text| text.parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..300).collect::<Vec<_>>());

    // Whoever is gone is not chosen any more.
    members.truncate(3);
    let mut left = members.pop().unwrap();
    drop(members);
    let list = || fleet.broker(2).list(Kind::Signal, None, 10);
    eventually("who is gone is known", list, |page| {
        let mut items = page.items.iter();
        items.any(|item| item.name.text() == "work.now" && item.subscriber_count == 1)
    })
    .await;
    signal(fleet.broker(2), "work.now", &texts(0..50)).await;
    assert_eq!(heard(&mut left, 50).await, texts(0..50));
}

#[tokio::test(flavor = "multi_thread")]
async fn interest_is_known_again_after_a_node_was_away() {
    let mut fleet = Fleet::start().await;
    let mut stays = listen(fleet.broker(0), "news", None).await;
    let mut goes = listen(fleet.broker(2), "news", None).await;
    signal(fleet.broker(1), "news", &texts(1..2)).await;
    assert_eq!(heard(&mut stays, 1).await, texts(1..2));
    assert_eq!(heard(&mut goes, 1).await, texts(1..2));
    fleet.kill(2);
    signal(fleet.broker(1), "news", &texts(2..3)).await;
    assert_eq!(heard(&mut stays, 1).await, texts(2..3));
    fleet.restart(2).await;
    // A publisher on the node that came back knows the listeners of the others.
    signal(fleet.broker(2), "news", &texts(3..4)).await;
    assert_eq!(heard(&mut stays, 1).await, texts(3..4));
    let mut back = listen(fleet.broker(2), "news", None).await;
    signal(fleet.broker(1), "news", &texts(4..5)).await;
    assert_eq!(heard(&mut back, 1).await, texts(4..5));
    assert_eq!(heard(&mut stays, 1).await, texts(4..5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_hears_nothing_holds_up_no_other_of_its_node() {
    let config = BrokerConfig {
        signal_wait_max: PATIENCE * 3,
        ..BrokerConfig::default()
    };
    let fleet = Fleet::start_with(config).await;
    let _deaf = listen(fleet.broker(1), "flood", None).await;
    let mut hears = listen(fleet.broker(1), "news", None).await;
    signal(fleet.broker(0), "flood", &texts(0..1_000)).await;
    let news = texts(0..10);
    signal(fleet.broker(0), "news", &news).await;
    assert_eq!(heard(&mut hears, 10).await, news);
    // What else is told goes on too.
    let mut newcomer = listen(fleet.broker(0), "late", None).await;
    signal(fleet.broker(1), "late", &news).await;
    assert_eq!(heard(&mut newcomer, 10).await, news);
}
