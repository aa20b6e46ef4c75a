//! What queues keep, count, return and give up.

use std::time::{Duration, Instant};

use flotilla_broker::{BrokerError, Receive};
use flotilla_model::command::{QueuePolicy, Selection, Settlement};
use flotilla_model::settings::QueueSettings;

use crate::node::{
    Node, PATIENCE, bodies, eventually, message, queue, receive, received, texts, topic,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_in_order_and_with_all_that_was_sent() {
    let node = Node::start().await;
    let queue = queue("orders");
    node.enqueue(&queue, &texts(1..101)).await;
    let session = node.broker.open_session();
    let got = received(&session, receive(&queue, 100, SECOND)).await;
    assert_eq!(bodies(&got), texts(1..101));
    let sequences: Vec<u64> = got
        .messages
        .iter()
        .map(|message| message.sequence.0)
        .collect();
    assert_eq!(sequences, (1..101).collect::<Vec<_>>());
    assert_eq!(got.messages[6].message, message("7"));
    assert!(got.messages.iter().all(|delivery| {
        delivery.receive_count == 1 && delivery.lease == got.lease && delivery.expires.is_none()
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_message_is_gone_and_a_returned_one_comes_back() {
    let node = Node::start().await;
    let queue = queue("settle");
    node.enqueue(&queue, &texts(1..5)).await;
    let session = node.broker.open_session();
    let got = received(&session, receive(&queue, 4, SECOND)).await;
    let two = Selection::Sequences(got.messages[..2].iter().map(|m| m.sequence).collect());
    let settled = session
        .settle(&queue, got.lease, two.clone(), Settlement::Ack)
        .await
        .unwrap();
    assert_eq!((settled.count, settled.remaining), (2, 2));
    let again = session
        .settle(&queue, got.lease, two, Settlement::Ack)
        .await
        .unwrap();
    assert_eq!((again.count, again.not_held.len()), (0, 2));
    let held = session.held(&queue, got.lease).await.unwrap();
    assert_eq!(
        held.iter().map(|sequence| sequence.0).collect::<Vec<_>>(),
        [3, 4]
    );
    let settled = session
        .settle(&queue, got.lease, Selection::All, Settlement::Return)
        .await;
    assert_eq!(settled.unwrap().remaining, 0);
    assert_eq!(session.held(&queue, got.lease).await.unwrap(), []);
    let stale = session
        .settle(&queue, got.lease, Selection::All, Settlement::Ack)
        .await;
    assert_eq!(stale, Err(BrokerError::StaleLease));
    let back = received(&session, receive(&queue, 4, SECOND)).await;
    assert_eq!(bodies(&back), ["3", "4"]);
    assert!(
        back.messages
            .iter()
            .all(|delivery| delivery.receive_count == 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_session_cannot_settle_a_lease() {
    let node = Node::start().await;
    let queue = queue("mine");
    node.enqueue(&queue, &texts(1..2)).await;
    let (mine, other) = (node.broker.open_session(), node.broker.open_session());
    let got = received(&mine, receive(&queue, 1, SECOND)).await;
    let refused = other
        .settle(&queue, got.lease, Selection::All, Settlement::Ack)
        .await;
    assert_eq!(refused, Err(BrokerError::StaleLease));
    assert_eq!(other.held(&queue, got.lease).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_gives_back_what_it_held_in_its_old_order() {
    let node = Node::start().await;
    let queue = queue("ended");
    node.enqueue(&queue, &texts(1..11)).await;
    let first = node.broker.open_session();
    received(&first, receive(&queue, 5, SECOND)).await;
    first.end().await;
    let second = node.broker.open_session();
    let got = received(&second, receive(&queue, 10, SECOND)).await;
    assert_eq!(bodies(&got), texts(1..11));
    assert_eq!(got.messages[0].receive_count, 2);
    drop(second);
    let third = node.broker.open_session();
    let ask = || third.receive(receive(&queue, 10, SECOND));
    let got = eventually("a dropped session ends too", ask, |got| {
        got.messages.len() == 10
    })
    .await;
    assert_eq!(bodies(&got), texts(1..11));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_back_when_its_visibility_runs_out() {
    let node = Node::start().await;
    let queue = queue("visible");
    node.enqueue(&queue, &texts(1..2)).await;
    let session = node.broker.open_session();
    let request = Receive {
        visibility: Some(PATIENCE),
        ..receive(&queue, 1, SECOND)
    };
    let before = Instant::now();
    let got = received(&session, request).await;
    // Its end comes nearer by that.
    session
        .extend(&queue, got.lease, Duration::from_millis(500))
        .await
        .unwrap();
    let again = received(&session, receive(&queue, 1, Duration::from_secs(15))).await;
    assert_eq!(bodies(&again), ["1"]);
    assert!(
        before.elapsed() >= Duration::from_millis(500),
        "{:?}",
        before.elapsed()
    );
    let stale = session
        .settle(&queue, got.lease, Selection::All, Settlement::Ack)
        .await;
    assert_eq!(stale, Err(BrokerError::StaleLease));
}

#[tokio::test(flavor = "multi_thread")]
async fn delay_expiry_and_dead_letters_do_as_the_policy_says() {
    let node = Node::start().await;
    let (work, dead) = (queue("work"), queue("dead"));
    let policy = QueuePolicy {
        delay_ms: 300,
        ..QueuePolicy::default()
    };
    let session = node.broker.open_session();
    let before = Instant::now();
    node.enqueue_with(&work, &texts(1..2), policy).await;
    let got = received(&session, receive(&work, 1, Duration::from_secs(15))).await;
    assert_eq!(bodies(&got), ["1"]);
    assert!(
        before.elapsed() >= Duration::from_millis(250),
        "{:?}",
        before.elapsed()
    );

    let policy = QueuePolicy {
        ttl_ms: Some(100),
        ..QueuePolicy::default()
    };
    node.enqueue_with(&work, &texts(2..3), policy).await;
    let ask = || node.broker.queue(&work);
    let detail = eventually("it expires", ask, |detail| detail.expired_total == 1).await;
    assert_eq!(detail.available, 0);

    let policy = QueuePolicy {
        receive_count_max: 1,
        dead_letter: Some(dead.clone()),
        ..QueuePolicy::default()
    };
    node.enqueue_with(&work, &texts(3..4), policy).await;
    let got = received(&session, receive(&work, 1, SECOND)).await;
    session
        .settle(&work, got.lease, Selection::All, Settlement::Return)
        .await
        .unwrap();
    let got = received(&session, receive(&dead, 1, Duration::from_secs(15))).await;
    assert_eq!(bodies(&got), ["3"]);
    assert_eq!(got.messages[0].moved_from.as_ref(), Some(&work));
    assert_eq!(got.messages[0].receive_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_removes_what_is_available_only() {
    let node = Node::start().await;
    let queue = queue("purge");
    assert_eq!(node.broker.purge(queue.clone()).await, Ok(0));
    node.enqueue(&queue, &texts(1..101)).await;
    let session = node.broker.open_session();
    let held = received(&session, receive(&queue, 10, SECOND)).await;
    assert_eq!(node.broker.purge(queue.clone()).await, Ok(90));
    let detail = node.broker.queue(&queue).await.unwrap();
    assert_eq!((detail.available, detail.leased), (0, 10));
    session
        .settle(&queue, held.lease, Selection::All, Settlement::Ack)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_clearly() {
    let node = Node::start().await;
    let queue = queue("small");
    let settings = QueueSettings {
        messages_max: Some(5),
        ..QueueSettings::default()
    };
    node.broker
        .configure_queue(queue.clone(), settings)
        .await
        .unwrap();
    node.enqueue(&queue, &texts(1..6)).await;
    let more = flotilla_broker::Enqueue {
        queue: queue.clone(),
        message: message("6"),
        policy: QueuePolicy::default(),
        dedup: None,
    };
    let results = node.broker.enqueue(vec![more]).await;
    assert!(
        matches!(&results[0], Err(BrokerError::QueueFull { allowed: 5, .. })),
        "{results:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_receives_are_refused() {
    let node = Node::start().await;
    let session = node.broker.open_session();
    for request in [
        receive(&queue("q"), 0, SECOND),
        receive(&queue("q"), 5_000, SECOND),
        receive(&topic("q"), 1, SECOND),
    ] {
        let refused = session.receive(request).await;
        assert!(
            matches!(refused, Err(BrokerError::InvalidRequest { .. })),
            "{refused:?}"
        );
    }
}
