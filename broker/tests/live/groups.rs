//! Subscriptions that share a place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{BrokerError, Start, SubscribeTopic};

use crate::node::{
    Node, assert_silent, at, eventually, group, next, offsets, read, text_of, texts, topic,
};

#[tokio::test(flavor = "multi_thread")]
async fn each_message_goes_to_one_member_and_all_get_a_share() {
    let node = Node::start().await;
    let topic = topic("shared");
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(node.subscribe(group(&topic, Start::First, "g")).await);
    }
    node.publish(&topic, &texts(1..1_001)).await;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    for (number, mut member) in members.into_iter().enumerate() {
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Ok(deliveries) = member.next().await {
                for delivery in deliveries {
                    member.done(delivery.offset);
                    sender.send((number, delivery.offset.0)).unwrap();
                }
            }
        });
    }
    let mut got = Vec::new();
    let mut shares = [0; 3];
    while got.len() < 1_000 {
        let (member, offset) = receiver.recv().await.unwrap();
        shares[member] += 1;
        got.push(offset);
    }
    got.sort_unstable();
    assert_eq!(got, (1..1_001).collect::<Vec<_>>());
    assert!(shares.iter().all(|share| *share > 100), "{shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_member_s_messages_go_to_another_in_order() {
    let node = Node::start().await;
    let topic = topic("lost");
    let mut lost = node.subscribe(group(&topic, Start::First, "g")).await;
    node.publish(&topic, &texts(1..101)).await;
    let mut held = Vec::new();
    while held.len() < 100 {
        held.extend(next(&mut lost).await);
    }
    lost.done(at(10));
    let mut heir = node.subscribe(group(&topic, Start::First, "g")).await;
    assert_silent(&mut heir).await;
    drop(lost);
    assert_eq!(read(&mut heir, 90).await, offsets(11..101));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_where_all_its_members_stopped() {
    let node = Node::start().await;
    let topic = topic("resumed");
    let mut member = node.subscribe(group(&topic, Start::First, "g")).await;
    node.publish(&topic, &texts(1..11)).await;
    assert_eq!(read(&mut member, 10).await, offsets(1..11));
    drop(member);
    node.publish(&topic, &texts(11..16)).await;
    let mut member = node.subscribe(group(&topic, Start::NewOnly, "g")).await;
    assert_eq!(read(&mut member, 5).await, offsets(11..16));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_groups_of_a_topic_each_get_everything() {
    let node = Node::start().await;
    let topic = topic("both");
    let mut one = node.subscribe(group(&topic, Start::First, "one")).await;
    let mut two = node.subscribe(group(&topic, Start::First, "two")).await;
    node.publish(&topic, &texts(1..101)).await;
    assert_eq!(read(&mut one, 100).await, offsets(1..101));
    assert_eq!(read(&mut two, 100).await, offsets(1..101));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_credit_does_not_hold_up_the_others() {
    let node = Node::start().await;
    let topic = topic("stuck");
    let request = SubscribeTopic {
        buffer_messages: 5,
        ..group(&topic, Start::First, "g")
    };
    let mut stuck = node.subscribe(request).await;
    let mut quick = node.subscribe(group(&topic, Start::First, "g")).await;
    node.publish(&topic, &texts(1..501)).await;
    let held = {
        let mut held = next(&mut stuck).await;
        while held.len() < 5 {
            held.extend(next(&mut stuck).await);
        }
        held
    };
    let mut all: Vec<u64> = held.iter().map(|delivery| delivery.offset.0).collect();
    all.extend(
        read(&mut quick, 495)
            .await
            .into_iter()
            .map(|(offset, _)| offset),
    );
    all.sort_unstable();
    assert_eq!(all, (1..501).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_move_and_forget_groups() {
    let node = Node::start().await;
    let topic = topic("operated");
    node.publish(&topic, &texts(1..21)).await;
    let mut member = node.subscribe(group(&topic, Start::First, "g")).await;
    let mut got = Vec::new();
    while got.len() < 20 {
        got.extend(next(&mut member).await);
    }
    member.done(at(5));
    let ask = || node.broker.groups(&topic);
    let groups = eventually("the position is stored", ask, |groups| {
        groups.first().is_some_and(|group| group.low_water == at(6))
    })
    .await;
    let shown = &groups[0];
    assert_eq!((shown.name.as_str(), shown.lag), ("g", 15));
    assert_eq!((shown.members, shown.outstanding), (1, 15));

    let refused = node.broker.delete_group(&topic, "g").await;
    assert!(matches!(refused, Err(BrokerError::InvalidRequest { .. })));
    node.broker
        .reset_group(&topic, "g", Start::Offset(at(18)))
        .await
        .unwrap();
    assert_eq!(read(&mut member, 3).await, offsets(18..21));
    drop(member);
    let ask = || node.broker.groups(&topic);
    eventually("the group is done", ask, |groups| groups[0].lag == 0).await;
    node.broker.delete_group(&topic, "g").await.unwrap();
    assert_eq!(node.broker.groups(&topic).await.unwrap(), []);
    let missing = node.broker.reset_group(&topic, "g", Start::First).await;
    assert!(matches!(missing, Err(BrokerError::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_is_spread_over_the_members() {
    let node = Node::start().await;
    let topic = topic("trickle");
    let mut one = node.subscribe(group(&topic, Start::First, "g")).await;
    let mut two = node.subscribe(group(&topic, Start::First, "g")).await;
    for number in 0..10 {
        node.publish(&topic, &texts(number..number + 1)).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (mut first, mut second) = (Vec::new(), Vec::new());
    while first.len() + second.len() < 10 {
        tokio::select! {
            got = one.next() => first.extend(got.unwrap()),
            got = two.next() => second.extend(got.unwrap()),
        }
    }
    assert!(
        first.len() >= 3 && second.len() >= 3,
        "{} {}",
        first.len(),
        second.len()
    );
    assert!(
        first
            .iter()
            .all(|delivery| !text_of(&delivery.message).is_empty())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_finish_every_message_once() {
    const COUNT: u64 = 6_000;
    let node = Arc::new(Node::start().await);
    let topic = topic("restless");
    let (sender, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let mut members = Vec::new();
    for number in 0..6u64 {
        let (node, topic, sender) = (Arc::clone(&node), topic.clone(), sender.clone());
        members.push(tokio::spawn(async move {
            let mut life = 3 + number * 5;
            loop {
                let request = SubscribeTopic {
                    buffer_messages: 50,
                    ..group(&topic, Start::First, "g")
                };
                let mut member = node.subscribe(request).await;
                // Lives for some deliveries, finishes half of the last one, and is gone.
                for turn in 0..=life {
                    let deliveries = member.next().await.unwrap();
                    let keep = if turn == life {
                        deliveries.len() / 2
                    } else {
                        deliveries.len()
                    };
                    for delivery in &deliveries[..keep] {
                        sender.send(delivery.offset.0).unwrap();
                        member.done(delivery.offset);
                    }
                }
                life = (life * 7 + number) % 40;
            }
        }));
    }
    for number in (0..COUNT).step_by(60) {
        node.publish(&topic, &texts(number..number + 60)).await;
    }
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    while times.len() < COUNT as usize {
        let offset = tokio::time::timeout(crate::node::PATIENCE, finished.recv()).await;
        *times
            .entry(offset.expect("a message is stuck").unwrap())
            .or_default() += 1;
    }
    for member in &members {
        member.abort();
    }
    assert!(times.values().all(|times| *times == 1), "finished twice");
    let ask = || node.broker.groups(&topic);
    eventually("all is told", ask, |groups| groups[0].lag == 0).await;
}
