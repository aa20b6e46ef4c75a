//! Names that are made before anything is sent to them, and forgotten, on any node.

use flotilla_broker::{BrokerError, SubscribeSignals};
use flotilla_model::name::{Kind, Name};
use flotilla_model::settings::QueueSettings;

use crate::fleet::Fleet;
use crate::node::{Node, eventually};
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
