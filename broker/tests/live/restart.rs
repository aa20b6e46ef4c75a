//! What survives a restart of the node.

use std::time::Duration;

use flotilla_broker::{CursorMode, Start};
use flotilla_model::command::{Selection, Settlement};

use crate::node::{
    Node, at, bodies, from, group, next, offsets, queue, read, receive, received, texts, topic,
};

#[tokio::test(flavor = "multi_thread")]
async fn cursors_go_on_where_they_were() {
    let node = Node::start().await;
    let topic = topic("durable");
    node.publish(&topic, &texts(1..21)).await;
    let cursor = CursorMode::Exclusive {
        name: "client-1".to_owned(),
    };
    let mut reader = node
        .subscribe(from(&topic, Start::First, cursor.clone()))
        .await;
    let mut member = node.subscribe(group(&topic, Start::First, "g")).await;
    while next(&mut reader).await.last().unwrap().offset < at(20) {}
    while next(&mut member).await.last().unwrap().offset < at(20) {}
    reader.done(at(7));
    member.done(at(15));
    let node = node.restart().await;
    let mut reader = node.subscribe(from(&topic, Start::First, cursor)).await;
    let mut member = node.subscribe(group(&topic, Start::First, "g")).await;
    assert_eq!(read(&mut reader, 13).await, offsets(8..21));
    assert_eq!(read(&mut member, 5).await, offsets(16..21));
    node.publish(&topic, &texts(21..22)).await;
    assert_eq!(read(&mut reader, 1).await, offsets(21..22));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_node_held_is_available_again() {
    let node = Node::start().await;
    let queue = queue("held");
    node.enqueue(&queue, &texts(1..11)).await;
    let session = node.broker.open_session();
    let got = received(&session, receive(&queue, 6, Duration::from_secs(1))).await;
    let done = Selection::Sequences(got.messages[..2].iter().map(|m| m.sequence).collect());
    session
        .settle(&queue, got.lease, done, Settlement::Ack)
        .await
        .unwrap();
    let node = node.restart().await;
    drop(session);
    let session = node.broker.open_session();
    let got = received(&session, receive(&queue, 10, Duration::from_secs(1))).await;
    assert_eq!(bodies(&got), texts(3..11));
}
