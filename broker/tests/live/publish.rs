//! Publishing: order, batches, repeats, limits.

use flotilla_broker::{BrokerConfig, BrokerError, CursorMode, Publish, Start};
use flotilla_model::ids::DedupId;

use crate::node::{Node, from, message, offsets, queue, read, texts, topic};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gets_dense_offsets_in_its_order() {
    let node = Node::start().await;
    let topic = topic("orders");
    let published = node.publish(&topic, &texts(1..5_001)).await;
    let expected: Vec<u64> = (1..5_001).collect();
    let got: Vec<u64> = published.iter().map(|done| done.offset.0).collect();
    assert_eq!(got, expected);
    let mut subscription = node
        .subscribe(from(&topic, Start::First, CursorMode::None))
        .await;
    assert_eq!(read(&mut subscription, 5_000).await, offsets(1..5_001));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_in_the_order_of_the_items_whatever_topics_they_name() {
    let node = Node::start().await;
    let names: Vec<_> = (0..7).map(|number| topic(&format!("t{number}"))).collect();
    let batch = (0..700)
        .map(|number| Publish {
            topic: names[number % 7].clone(),
            message: message(&number.to_string()),
            dedup: None,
        })
        .collect();
    let results = node.broker.publish(batch).await;
    for (number, result) in results.into_iter().enumerate() {
        assert_eq!(result.unwrap().offset.0, number as u64 / 7 + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_stored_in_the_order_in_which_they_were_begun() {
    // Each batch is several submissions, and there is not room for all of them at once.
    let node = Node::start_with(BrokerConfig {
        ingress_bytes_max: 4 << 20,
        ..BrokerConfig::default()
    })
    .await;
    let topic = topic("begun");
    let padding = "x".repeat(10_000);
    let mut begun = Vec::new();
    for batch in 0..6 {
        let publishes = (0..250).map(|number| Publish {
            topic: topic.clone(),
            message: message(&format!("{batch} {number} {padding}")),
            dedup: None,
        });
        begun.push(node.broker.begin_publish(publishes.collect()).await);
    }
    for (batch, submitted) in begun.into_iter().enumerate().rev() {
        for (number, result) in submitted.await.into_iter().enumerate() {
            assert_eq!(result.unwrap().offset.0, (batch * 250 + number) as u64 + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn single_publishes_of_one_writer_keep_their_order_when_pipelined() {
    let node = Node::start().await;
    let topic = topic("pipelined");
    // Large enough that several entries are in flight at a time.
    let padding = "x".repeat(10_000);
    // The calls are begun one after the other and awaited together, as a gateway does.
    let pending: Vec<_> = (0..500)
        .map(|number| {
            let publish = Publish {
                topic: topic.clone(),
                message: message(&format!("{number} {padding}")),
                dedup: None,
            };
            node.broker.publish(vec![publish])
        })
        .collect();
    let results = futures::future::join_all(pending).await;
    let offsets: Vec<u64> = results
        .into_iter()
        .map(|mut result| result.remove(0).unwrap().offset.0)
        .collect();
    assert_eq!(offsets, (1..501).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_a_dedup_id_is_stored_once() {
    let node = Node::start().await;
    let topic = topic("once");
    let publish = |text: &str| Publish {
        topic: topic.clone(),
        message: message(text),
        dedup: Some(DedupId::of(text.as_bytes())),
    };
    let first = node.broker.publish(vec![publish("a"), publish("b")]).await;
    let again = node.broker.publish(vec![publish("c"), publish("b")]).await;
    let offset = |result: &Result<flotilla_broker::Published, BrokerError>| {
        let done = result.as_ref().unwrap();
        (done.offset.0, done.duplicate)
    };
    let first: Vec<_> = first.iter().map(offset).collect();
    let again: Vec<_> = again.iter().map(offset).collect();
    assert_eq!(first, [(1, false), (2, false)]);
    assert_eq!(again, [(3, false), (2, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_item_does_not_harm_its_neighbours() {
    let config = BrokerConfig {
        message_bytes_max: 1_000,
        ..BrokerConfig::default()
    };
    let node = Node::start_with(config).await;
    let item = |name, text: &str| Publish {
        topic: name,
        message: message(text),
        dedup: None,
    };
    let results = node
        .broker
        .publish(vec![
            item(topic("t"), "1"),
            item(topic("t"), &"x".repeat(2_000)),
            item(queue("t"), "2"),
            item(topic("t"), "3"),
        ])
        .await;
    assert_eq!(results[0].as_ref().unwrap().offset.0, 1);
    assert!(matches!(
        results[1],
        Err(BrokerError::TooLarge { allowed: 1_000, .. })
    ));
    assert!(matches!(
        results[2],
        Err(BrokerError::InvalidRequest { .. })
    ));
    assert_eq!(results[3].as_ref().unwrap().offset.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_an_entry_is_stored_whole() {
    let node = Node::start().await;
    let topic = topic("large");
    let large = "x".repeat(5 << 20);
    node.publish(&topic, &[large.clone(), "small".to_owned()])
        .await;
    let mut subscription = node
        .subscribe(from(&topic, Start::First, CursorMode::None))
        .await;
    let got = read(&mut subscription, 2).await;
    assert_eq!(got, [(1, large), (2, "small".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_broker_refuses_with_a_clear_error() {
    let node = Node::start().await;
    node.broker.shutdown().await;
    let publish = Publish {
        topic: topic("t"),
        message: message("1"),
        dedup: None,
    };
    let results = node.broker.publish(vec![publish]).await;
    assert_eq!(results, [Err(BrokerError::ShuttingDown)]);
}
