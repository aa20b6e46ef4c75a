//! Receiving, settling, waiting, and what happens when receivers go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_broker::{BrokerError, Fill, Receive};
use flotilla_model::command::{QueuePolicy, Selection, Settlement};
use flotilla_model::settings::QueueSettings;

use crate::node::{
    Node, bodies, eventually, message, queue, receive, received, text_of, texts, topic,
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
async fn a_waiting_receiver_wakes_up_for_every_message() {
    let node = Arc::new(Node::start().await);
    let queue = queue("wake");
    let receiver = {
        let (node, queue) = (Arc::clone(&node), queue.clone());
        tokio::spawn(async move {
            let session = node.broker.open_session();
            let mut got = Vec::new();
            while got.len() < 300 {
                let answer = received(&session, receive(&queue, 1, Duration::from_secs(15))).await;
                assert_eq!(
                    answer.messages.len(),
                    1,
                    "woken for nothing after {}",
                    got.len()
                );
                got.extend(bodies(&answer));
            }
            got
        })
    };
    for number in 1..301 {
        node.enqueue(&queue, &texts(number..number + 1)).await;
        if number % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(receiver.await.unwrap(), texts(1..301));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_receivers_never_share_a_message() {
    let node = Arc::new(Node::start().await);
    let queue = queue("share");
    let mut receivers = Vec::new();
    for _ in 0..8 {
        let (node, queue) = (Arc::clone(&node), queue.clone());
        receivers.push(tokio::spawn(async move {
            let session = node.broker.open_session();
            let mut got = Vec::new();
            loop {
                let answer = received(&session, receive(&queue, 17, SECOND)).await;
                if answer.messages.is_empty() {
                    return got;
                }
                got.extend(answer.messages.iter().map(|message| message.sequence.0));
                let ack = session.settle(&queue, answer.lease, Selection::All, Settlement::Ack);
                ack.await.unwrap();
            }
        }));
    }
    for number in (0..2_000).step_by(100) {
        node.enqueue(&queue, &texts(number..number + 100)).await;
    }
    let mut all = Vec::new();
    for receiver in receivers {
        all.extend(receiver.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (1..2_001).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_receive_waits_for_all_or_for_its_time() {
    let node = Arc::new(Node::start().await);
    let queue = queue("full");
    let session = node.broker.open_session();
    let full = |messages_max, wait| Receive {
        fill: Fill::Full,
        ..receive(&queue, messages_max, wait)
    };
    node.enqueue(&queue, &texts(1..4)).await;
    let before = Instant::now();
    let got = received(&session, full(5, Duration::from_millis(300))).await;
    let waited = before.elapsed();
    assert_eq!(bodies(&got), texts(1..4));
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    assert!(waited < Duration::from_millis(1_000), "{waited:?}");

    let writer = async {
        for number in 4..9 {
            node.enqueue(&queue, &texts(number..number + 1)).await;
        }
    };
    let before = Instant::now();
    let (got, ()) = tokio::join!(received(&session, full(5, Duration::from_secs(15))), writer);
    assert_eq!(bodies(&got), texts(4..9));
    assert!(before.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_wait_is_answered_at_once() {
    let node = Node::start().await;
    let queue = queue("empty");
    let session = node.broker.open_session();
    let before = Instant::now();
    let got = received(&session, receive(&queue, 10, Duration::ZERO)).await;
    assert!(got.messages.is_empty());
    assert_eq!(got.lease.0, 0);
    assert!(before.elapsed() < SECOND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_receive_keeps_no_messages() {
    let node = Arc::new(Node::start().await);
    let queue = queue("dropped");
    for round in 0..40 {
        let session = node.broker.open_session();
        // The receiver goes at another moment in each round: before, while and after the lease is made.
        let wait = Duration::from_micros(round * 150);
        let waiting = session.receive(receive(&queue, 10, Duration::from_secs(15)));
        let enqueue = async {
            node.enqueue(&queue, &texts(round..round + 1)).await;
        };
        let dropped = async {
            let _ = tokio::time::timeout(wait, waiting).await;
        };
        tokio::join!(dropped, enqueue);
        drop(session);
    }
    let session = node.broker.open_session();
    let mut got = Vec::new();
    while got.len() < 40 {
        let answer = received(&session, receive(&queue, 40, Duration::from_secs(15))).await;
        assert!(!answer.messages.is_empty(), "only {} came back", got.len());
        got.extend(bodies(&answer));
    }
    got.sort_by_key(|text| text.parse::<u64>().unwrap());
    assert_eq!(got, texts(0..40));
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
        visibility: Some(Duration::from_millis(200)),
        ..receive(&queue, 1, SECOND)
    };
    let before = Instant::now();
    let got = received(&session, request).await;
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
async fn a_peek_takes_nothing_and_waits_only_while_there_is_nothing() {
    let node = Arc::new(Node::start().await);
    let queue = queue("peek");
    let empty = node
        .broker
        .peek(queue.clone(), 10, 1 << 20, Duration::ZERO)
        .await;
    assert_eq!(empty.unwrap().len(), 0);
    let writer = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.enqueue(&queue, &texts(1..4)).await;
    };
    let peek = node
        .broker
        .peek(queue.clone(), 10, 1 << 20, Duration::from_secs(15));
    let (peeked, ()) = tokio::join!(peek, writer);
    let peeked = peeked.unwrap();
    assert_eq!(text_of(&peeked[0].message), "1");
    assert_eq!((peeked[0].receive_count, peeked[0].lease.0), (1, 0));
    let peeked = node
        .broker
        .peek(queue.clone(), 2, 1 << 20, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(peeked.len(), 2);
    let session = node.broker.open_session();
    let got = received(&session, receive(&queue, 3, SECOND)).await;
    assert_eq!(bodies(&got), texts(1..4));
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
async fn a_byte_limit_bounds_an_answer() {
    let node = Node::start().await;
    let queue = queue("bytes");
    // The text is in a message twice, as its body and in its id.
    let large: Vec<String> = (0..20).map(|_| "x".repeat(5_000)).collect();
    node.enqueue(&queue, &large).await;
    let session = node.broker.open_session();
    let request = Receive {
        bytes_max: 35_000,
        ..receive(&queue, 20, SECOND)
    };
    assert_eq!(received(&session, request).await.messages.len(), 3);
    let request = Receive {
        bytes_max: 10,
        ..receive(&queue, 20, SECOND)
    };
    assert_eq!(received(&session, request).await.messages.len(), 1);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_long_polls_do_not_starve_the_others() {
    let node = Arc::new(Node::start().await);
    let mut polls = Vec::new();
    for number in 0..150 {
        let node = Arc::clone(&node);
        polls.push(tokio::spawn(async move {
            let queue = queue(&format!("poll-{number}"));
            let session = node.broker.open_session();
            received(&session, receive(&queue, 1, Duration::from_secs(2))).await
        }));
    }
    let counted = async || {
        let text = node.broker.metrics_text();
        Ok::<_, BrokerError>(text.contains("flotilla_subscribers{kind=\"queue\"} 150\n"))
    };
    eventually("all wait", counted, |all| *all).await;
    let queue = queue("poll-77");
    node.enqueue(&queue, &texts(1..2)).await;
    let mut answers = BTreeMap::new();
    for (number, poll) in polls.into_iter().enumerate() {
        answers.insert(number, poll.await.unwrap().messages.len());
    }
    assert_eq!(answers.values().sum::<usize>(), 1);
    assert_eq!(answers[&77], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_end_when_the_broker_stops() {
    let node = Arc::new(Node::start().await);
    let waiting = {
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let session = node.broker.open_session();
            session
                .receive(receive(&queue("stop"), 1, Duration::from_secs(60)))
                .await
                .map(|_| ())
        })
    };
    let counted = async || {
        let text = node.broker.metrics_text();
        Ok::<_, BrokerError>(text.contains("flotilla_subscribers{kind=\"queue\"} 1\n"))
    };
    eventually("it waits", counted, |waits| *waits).await;
    node.broker.shutdown().await;
    assert_eq!(waiting.await.unwrap(), Err(BrokerError::ShuttingDown));
}
