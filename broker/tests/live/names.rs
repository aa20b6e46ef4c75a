//! Names that are made before anything is sent to them, and forgotten, on any node.

use flotilla_broker::{
    Broker, BrokerConfig, BrokerError, CursorMode, Enqueue, Publish, Start, SubscribeSignals,
    SubscribeTopic,
};
use flotilla_model::command::QueuePolicy;
use flotilla_model::name::{Kind, Name};
use flotilla_model::settings::QueueSettings;
use futures::FutureExt;

use crate::fleet::Fleet;
use crate::node::{Node, PATIENCE, eventually, message, queue, topic};
use crate::requests::serve;

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_made_or_forgotten_is_so_on_every_node() {
    let fleet = Fleet::start().await;
    for kind in [Kind::Signal, Kind::Request, Kind::Command] {
        let name = Name::new("default", kind, "made").unwrap();
        fleet.broker(1).create(name.clone()).await.unwrap();
        for place in 0..3 {
            let list = || fleet.broker(place).list(kind, None, 10);
            let page = eventually("the name is listed", list, |page| !page.items.is_empty()).await;
            assert_eq!(page.items.len(), 1, "{kind} at {place}");
            assert_eq!(page.items[0].name, name);
        }
        fleet.broker(2).forget(&name).await.unwrap();
        for place in 0..3 {
            let page = fleet.broker(place).list(kind, None, 10).await.unwrap();
            assert!(page.items.is_empty(), "{kind} at {place}");
        }
        let missing = fleet.broker(0).forget(&name).await;
        assert!(
            matches!(missing, Err(BrokerError::NotFound { .. })),
            "{missing:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_or_queue_that_is_made_is_there_at_once_and_stays_as_it_is() {
    let fleet = Fleet::start().await;
    let strict = QueueSettings {
        receive_count_max: 3,
        ..QueueSettings::default()
    };
    for number in 0..6 {
        let topic = Name::topic(&format!("topic-{number}")).unwrap();
        let queue = Name::queue(&format!("queue-{number}")).unwrap();
        let (one, other) = (fleet.broker(number % 3), fleet.broker((number + 1) % 3));
        one.create(topic.clone()).await.unwrap();
        one.create(queue.clone()).await.unwrap();
        assert_eq!(other.topic(&topic).await.unwrap().messages, 0);
        let configuring = other.configure_queue(queue.clone(), strict.clone());
        configuring.await.unwrap();
        one.create(queue.clone()).await.unwrap();
        assert_eq!(other.queue(&queue).await.unwrap().settings, strict);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_or_listened_to_is_listed_before_anything_is_sent_but_no_pattern() {
    let node = Node::start().await;
    let mut responders = Vec::new();
    let mut listeners = Vec::new();
    for pattern in ["a.b", "a.*", "a.>"] {
        responders.push(serve(&node.broker, pattern, None).await);
        let listen = SubscribeSignals {
            namespace: "default".to_owned(),
            pattern: pattern.to_owned(),
            group: None,
        };
        listeners.push(node.broker.subscribe_signals(listen).await.unwrap());
    }
    for kind in [Kind::Signal, Kind::Request] {
        let page = node.broker.list(kind, None, 10).await.unwrap();
        assert_eq!(page.items.len(), 1, "{kind}");
        assert_eq!(page.items[0].name.text(), "a.b");
        assert_eq!(page.items[0].subscriber_count, 3);
    }
}

async fn enqueue(broker: &Broker, name: &str) -> Result<(), BrokerError> {
    let item = Enqueue {
        queue: queue(name),
        message: message("x"),
        policy: QueuePolicy::default(),
        dedup: None,
    };
    broker.enqueue(vec![item]).await.remove(0).map(|_| ())
}

async fn publish(broker: &Broker, name: &str) -> Result<(), BrokerError> {
    let item = Publish {
        topic: topic(name),
        message: message("x"),
        dedup: None,
    };
    broker.publish(vec![item]).await.remove(0).map(|_| ())
}

/// By whatever makes it, on any node; those that are there are used on.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_or_queue_beyond_the_limit_is_refused_until_another_one_is_deleted() {
    let fleet = Fleet::start_with(BrokerConfig {
        topics_max: Some(2),
        queues_max: Some(3),
        ..BrokerConfig::default()
    })
    .await;
    for place in 0..3 {
        let name = format!("q{place}");
        enqueue(fleet.broker(place), &name).await.unwrap();
    }
    fleet.broker(0).create(topic("t0")).await.unwrap();
    publish(fleet.broker(1), "t1").await.unwrap();
    for place in 0..3 {
        let broker = fleet.broker(place);
        let too_many = |kind: &str, count: u32| {
            let what = format!("there are {count} {kind}s, which is the most that are allowed");
            Err(BrokerError::Conflict { what })
        };
        assert_eq!(enqueue(broker, "more").await, too_many("queue", 3));
        let configured = broker.configure_queue(queue("more"), QueueSettings::default());
        assert_eq!(configured.await, too_many("queue", 3));
        assert_eq!(publish(broker, "more").await, too_many("topic", 2));
        assert_eq!(broker.create(topic("more")).await, too_many("topic", 2));
        let subscribing = broker.subscribe_topic(SubscribeTopic {
            topic: topic("more"),
            start: Start::First,
            cursor: CursorMode::None,
            buffer_messages: 1,
            buffer_bytes: 1,
        });
        let refused = subscribing.await.err();
        assert_eq!(refused, too_many("topic", 2).err());
        // Those of the other nodes too.
        for name in ["q0", "q1", "q2"] {
            enqueue(broker, name).await.unwrap();
        }
        publish(broker, "t1").await.unwrap();
    }
    // In a batch each is refused alone.
    let names = ["q0", "new", "q1", "new"];
    let batch = names.map(|name| Enqueue {
        queue: queue(name),
        message: message("x"),
        policy: QueuePolicy::default(),
        dedup: None,
    });
    let results = fleet.broker(0).enqueue(Vec::from(batch)).await;
    let refused: Vec<bool> = results.iter().map(Result::is_err).collect();
    assert_eq!(refused, [false, true, false, true]);

    fleet.broker(2).delete(queue("q0")).await.unwrap();
    enqueue(fleet.broker(1), "more").await.unwrap();
    // Where it was deleted nobody takes it for one that is still there.
    assert!(enqueue(fleet.broker(2), "q0").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_made_at_the_same_moment_on_one_node_do_not_exceed_the_limit() {
    let node = Node::start_with(BrokerConfig {
        queues_max: Some(5),
        ..BrokerConfig::default()
    })
    .await;
    let making = (0..20).map(|number| {
        let broker = node.broker.clone();
        async move { enqueue(&broker, &format!("q{number}")).await }
    });
    let made = futures::future::join_all(making).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 5);
    let page = node.broker.list(Kind::Queue, None, 100).await.unwrap();
    assert_eq!(page.items.len(), 5);
}

/// As it is with streams whose clients do not read any more.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_looked_after_while_it_makes_a_name_holds_up_nobody() {
    let node = Node::start_with(BrokerConfig {
        queues_max: Some(100),
        ..BrokerConfig::default()
    })
    .await;
    let create = |number: u32| node.broker.create(queue(&format!("q{number}")));
    let mut left: Vec<_> = (0..20).map(|number| Box::pin(create(number))).collect();
    // Often enough for one of them to have the turn, and too seldom for all to be over.
    for _ in 0..5 {
        left.retain_mut(|creating| creating.as_mut().now_or_never().is_none());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let other = tokio::time::timeout(PATIENCE, create(20)).await;
    other.expect("it was held up").unwrap();
}
