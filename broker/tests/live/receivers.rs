//! Who gets messages and when: waiting, waking, sharing, and receivers that go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_broker::{BrokerConfig, BrokerError, Enqueue, Fill, Receive};
use flotilla_model::command::{QueuePolicy, Selection, Settlement};
use flotilla_model::message::Message;
use futures::FutureExt;

use crate::node::{Node, PATIENCE, bodies, eventually, queue, receive, received, text_of, texts};

const SECOND: Duration = Duration::from_secs(1);

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
    let taken = Arc::new(AtomicUsize::new(0));
    for _ in 0..8 {
        let (node, queue, taken) = (Arc::clone(&node), queue.clone(), Arc::clone(&taken));
        receivers.push(tokio::spawn(async move {
            let session = node.broker.open_session();
            let mut got = Vec::new();
            let deadline = Instant::now() + PATIENCE;
            while taken.load(Ordering::Relaxed) < 2_000 {
                assert!(
                    Instant::now() < deadline,
                    "{} were taken",
                    taken.load(Ordering::Relaxed)
                );
                let answer = received(&session, receive(&queue, 17, SECOND)).await;
                if answer.messages.is_empty() {
                    continue;
                }
                taken.fetch_add(answer.messages.len(), Ordering::Relaxed);
                got.extend(answer.messages.iter().map(|message| message.sequence.0));
                let ack = session.settle(&queue, answer.lease, Selection::All, Settlement::Ack);
                ack.await.unwrap();
            }
            got
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
    assert!(waited < Duration::from_secs(10), "{waited:?}");

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
    assert!(before.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_receive_keeps_no_messages() {
    let node = Arc::new(Node::start().await);
    let queue = queue("dropped");
    // Kept to the end: it is not the end of a session that gives the messages back.
    let mut sessions = Vec::new();
    for round in 0..40 {
        let session = node.broker.open_session();
        // The receiver goes at another moment in each round: before, while and after the lease is made.
        let wait = Duration::from_micros(round * 150);
        let waiting = session.receive(receive(&queue, 10, Duration::from_secs(15)));
        let enqueue = async {
            node.enqueue(&queue, &texts(round..round + 1)).await;
        };
        let dropped = async {
            if let Ok(answer) = tokio::time::timeout(wait, waiting).await {
                let lease = answer.unwrap().lease;
                let back = session.settle(&queue, lease, Selection::All, Settlement::Release);
                back.await.unwrap();
            }
        };
        tokio::join!(dropped, enqueue);
        sessions.push(session);
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
async fn a_hundred_long_polls_do_not_starve_the_others() {
    let node = Arc::new(Node::start().await);
    let mut polls = Vec::new();
    for number in 0..150 {
        let node = Arc::clone(&node);
        polls.push(tokio::spawn(async move {
            let queue = queue(&format!("poll-{number}"));
            let session = node.broker.open_session();
            received(&session, receive(&queue, 1, Duration::from_secs(60))).await
        }));
    }
    let counted = async || {
        let text = node.broker.metrics_text();
        Ok::<_, BrokerError>(text.contains("flotilla_subscribers{kind=\"queue\"} 150\n"))
    };
    eventually("all wait", counted, |all| *all).await;
    let queue = queue("poll-77");
    node.enqueue(&queue, &texts(1..2)).await;
    assert_eq!(polls.remove(77).await.unwrap().messages.len(), 1);
    for poll in polls {
        assert!(!poll.is_finished(), "the others wait on");
        poll.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_left_before_it_heard_that_it_waits_takes_no_room_from_others() {
    let node = Node::start_with(BrokerConfig {
        waiters_per_name_max: 1,
        ..BrokerConfig::default()
    })
    .await;
    let queue = queue("left");
    node.broker.create(queue.clone()).await.unwrap();
    let peek = |wait| node.broker.peek(queue.clone(), 1, 1_000, wait);
    let mut first = Box::pin(peek(PATIENCE));
    while node.broker.queue(&queue).await.unwrap().subscriber_count == 0 {
        assert!(first.as_mut().now_or_never().is_none());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It waits by now, and has not looked since it asked to.
    drop(first);
    let second = peek(Duration::from_millis(10)).await;
    assert_eq!(second.unwrap().len(), 0);
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

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_come_one_after_the_other_to_receivers_that_made_little_room() {
    /// Two of them are more than may be on their way.
    const BYTES: usize = 40 << 20;
    let node = Node::start().await;
    let queue = queue("large");
    for _ in 0..4 {
        let one = Enqueue {
            queue: queue.clone(),
            message: Message {
                body: Bytes::from(vec![b'x'; BYTES]),
                ..Message::default()
            },
            policy: QueuePolicy::default(),
            dedup: None,
        };
        node.broker.enqueue(vec![one]).await.remove(0).unwrap();
    }
    let session = node.broker.open_session();
    let modest = Receive {
        bytes_max: 1,
        ..receive(&queue, 2, PATIENCE)
    };
    let receivers = (0..4).map(|_| received(&session, modest.clone()));
    for received in futures::future::join_all(receivers).await {
        let bytes = received.messages.iter().map(|one| one.message.body.len());
        assert_eq!(bytes.collect::<Vec<_>>(), [BYTES]);
    }
}
