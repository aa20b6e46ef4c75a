//! Calls and subscriptions on nodes that do not lead, and leaders that go.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_broker::{
    Broker, BrokerError, CursorMode, Enqueue, Fill, Publish, Start, TopicSubscription,
};
use flotilla_model::command::{QueuePolicy, Selection, Settlement};
use flotilla_model::name::{Kind, Name};
use flotilla_model::settings::TopicSettings;

use crate::fleet::Fleet;
use crate::node::{
    PATIENCE, assert_silent, at, bodies, eventually, from, group, message, next, offsets, queue,
    read, receive, received, text_of, texts, topic,
};

/// Publishes until it is stored, as a client that may send twice would.
async fn publish(broker: &Broker, topic: &Name, text: &str) -> u64 {
    let one = Publish {
        topic: topic.clone(),
        message: message(text),
        dedup: Some(flotilla_model::ids::DedupId::of(text.as_bytes())),
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match broker.publish(vec![one.clone()]).await.remove(0) {
            Ok(published) => return published.offset.0,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
    }
}

async fn enqueue(broker: &Broker, queue: &Name, texts: &[String]) {
    let batch = texts.iter().map(|text| Enqueue {
        queue: queue.clone(),
        message: message(text),
        policy: QueuePolicy::default(),
        dedup: None,
    });
    for result in broker.enqueue(batch.collect()).await {
        result.unwrap();
    }
}

async fn subscribe(broker: &Broker, request: flotilla_broker::SubscribeTopic) -> TopicSubscription {
    broker.subscribe_topic(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_works_on_every_node() {
    let fleet = Fleet::start().await;
    for place in 0..3 {
        let broker = fleet.broker(place);
        for number in 0..4 {
            // Four names meet leaders here and elsewhere.
            let events = topic(&format!("events-{place}-{number}"));
            let jobs = queue(&format!("jobs-{place}-{number}"));
            broker
                .configure_topic(events.clone(), TopicSettings::default())
                .await
                .unwrap();
            let mut reader = subscribe(broker, group(&events, Start::First, "g")).await;
            for number in 1..4 {
                assert_eq!(publish(broker, &events, &number.to_string()).await, number);
            }
            assert_eq!(read(&mut reader, 3).await, offsets(1..4));
            let detail = broker.topic(&events).await.unwrap();
            assert_eq!((detail.messages, detail.subscriber_count), (3, 1));
            let ask = || broker.groups(&events);
            let groups = eventually("the position is stored", ask, |groups| groups[0].lag == 0);
            assert_eq!(groups.await[0].members, 1);
            broker
                .reset_group(&events, "g", Start::Offset(at(3)))
                .await
                .unwrap();
            assert_eq!(read(&mut reader, 1).await, offsets(3..4));
            let refused = broker.delete_group(&events, "g").await;
            assert!(matches!(refused, Err(BrokerError::InvalidRequest { .. })));

            enqueue(broker, &jobs, &texts(1..4)).await;
            let peeked = broker.peek(jobs.clone(), 10, 1 << 20, Duration::ZERO).await;
            assert_eq!(peeked.unwrap().len(), 3);
            let session = broker.open_session();
            let got = received(&session, receive(&jobs, 2, Duration::from_secs(5))).await;
            assert_eq!(bodies(&got), texts(1..3));
            assert_eq!(session.held(&jobs, got.lease).await.unwrap().len(), 2);
            let settled = session.settle(&jobs, got.lease, Selection::All, Settlement::Ack);
            assert_eq!(settled.await.unwrap().count, 2);
            assert_eq!(broker.queue(&jobs).await.unwrap().available, 1);
            assert_eq!(broker.purge(jobs).await.unwrap(), 1);
        }
    }
    for place in 0..3 {
        let page = fleet
            .broker(place)
            .list(Kind::Topic, None, 100)
            .await
            .unwrap();
        assert_eq!(page.items.len(), 12);
        let subscribers: u64 = page.items.iter().map(|item| item.messages).sum();
        assert_eq!(subscribers, 36);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_go_on_where_they_were_when_the_leader_dies() {
    let mut fleet = Fleet::start().await;
    let topic = topic("events");
    let leader = fleet.leader(&topic).await;
    let [one, two] = fleet.others(leader);
    let exclusive = |name: &str| CursorMode::Exclusive {
        name: name.to_owned(),
    };
    let mut readers = vec![
        subscribe(
            fleet.broker(one),
            from(&topic, Start::First, CursorMode::None),
        )
        .await,
        subscribe(
            fleet.broker(two),
            from(&topic, Start::NewOnly, CursorMode::None),
        )
        .await,
        subscribe(
            fleet.broker(one),
            from(&topic, Start::First, exclusive("x")),
        )
        .await,
        subscribe(
            fleet.broker(two),
            from(&topic, Start::First, exclusive("y")),
        )
        .await,
    ];
    for number in 1..51 {
        publish(fleet.broker(one), &topic, &number.to_string()).await;
    }
    // Some are done, some are in hand, and the rest is on the way when the leader goes.
    let mut got: Vec<Vec<u64>> = Vec::new();
    for reader in &mut readers {
        let deliveries = next(reader).await;
        reader.done(deliveries[deliveries.len() / 2].offset);
        got.push(deliveries.iter().map(|one| one.offset.0).collect());
    }
    fleet.kill(leader);
    for number in 51..101 {
        publish(fleet.broker(two), &topic, &number.to_string()).await;
    }
    for (reader, got) in readers.iter_mut().zip(&mut got) {
        while got.len() < 100 {
            for delivery in next(reader).await {
                assert_eq!(text_of(&delivery.message), delivery.offset.0.to_string());
                reader.done(delivery.offset);
                got.push(delivery.offset.0);
            }
        }
        assert_eq!(*got, (1..101).collect::<Vec<_>>());
        assert_silent(reader).await;
    }
    let ask = || fleet.broker(one).groups(&topic);
    let is_done = |cursors: &Vec<flotilla_broker::GroupDetail>| {
        cursors.len() == 2 && cursors.iter().all(|cursor| cursor.lag == 0)
    };
    eventually("both cursors are through", ask, is_done).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_gets_each_message_once_when_the_leader_dies() {
    let mut fleet = Fleet::start().await;
    let topic = topic("shared");
    let leader = fleet.leader(&topic).await;
    let [one, two] = fleet.others(leader);
    let mut members = vec![
        subscribe(fleet.broker(one), group(&topic, Start::First, "g")).await,
        subscribe(fleet.broker(two), group(&topic, Start::First, "g")).await,
        subscribe(fleet.broker(one), group(&topic, Start::First, "g")).await,
    ];
    for number in 1..61 {
        publish(fleet.broker(one), &topic, &number.to_string()).await;
    }
    let mut got: BTreeMap<u64, usize> = BTreeMap::new();
    // Every member holds some that it is not done with across the change.
    let mut held = Vec::new();
    for member in &mut members {
        let deliveries = next(member).await;
        for delivery in &deliveries {
            *got.entry(delivery.offset.0).or_default() += 1;
        }
        let half = deliveries[deliveries.len() / 2].offset;
        member.done(half);
        held.push(deliveries.last().unwrap().offset);
    }
    fleet.kill(leader);
    for number in 61..121 {
        publish(fleet.broker(two), &topic, &number.to_string()).await;
    }
    for (member, last) in members.iter_mut().zip(held) {
        member.done(last);
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    while got.len() < 120 {
        assert!(std::time::Instant::now() < deadline, "missing: {got:?}");
        for member in &mut members {
            let waiting = tokio::time::timeout(Duration::from_millis(50), member.next());
            let Ok(deliveries) = waiting.await else {
                continue;
            };
            for delivery in deliveries.unwrap() {
                *got.entry(delivery.offset.0).or_default() += 1;
                member.done(delivery.offset);
            }
        }
    }
    let repeated: Vec<_> = got.iter().filter(|(_, times)| **times > 1).collect();
    assert!(repeated.is_empty(), "delivered again: {repeated:?}");
    let ask = || fleet.broker(one).groups(&topic);
    eventually("the group is through", ask, |groups| {
        groups
            .first()
            .is_some_and(|group| group.lag == 0 && group.members == 3)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_receiver_is_served_by_the_next_leader() {
    let mut fleet = Fleet::start().await;
    let queue = queue("jobs");
    let leader = fleet.leader(&queue).await;
    let [one, two] = fleet.others(leader);
    let session = fleet.broker(one).open_session();
    enqueue(fleet.broker(two), &queue, &texts(1..3)).await;
    let got = received(&session, receive(&queue, 1, Duration::from_secs(5))).await;
    assert_eq!(bodies(&got), texts(1..2));
    let second = received(&session, receive(&queue, 1, Duration::from_secs(5))).await;
    assert_eq!(bodies(&second), texts(2..3));

    let mut waits = receive(&queue, 1, Duration::from_secs(15));
    waits.fill = Fill::Full;
    let waiting = tokio::time::timeout(PATIENCE, session.receive(waits));
    let dying = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        fleet.kill(leader);
        fleet.settled().await;
        enqueue(fleet.broker(two), &queue, &texts(3..4)).await;
    };
    let (third, ()) = tokio::join!(waiting, dying);
    let third = match third.expect("no answer in time") {
        Ok(third) => third,
        // The shard was without a leader for so long that sessions ended: then all comes back.
        Err(BrokerError::Unavailable { reason }) if reason.contains("session was lost") => {
            let session = fleet.broker(two).open_session();
            let mut got = Vec::new();
            while got.len() < 3 {
                let some = received(&session, receive(&queue, 3, Duration::from_secs(15))).await;
                got.extend(bodies(&some));
            }
            got.sort_unstable();
            return assert_eq!(got, texts(1..4));
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(bodies(&third), texts(3..4), "what is held stays held");
    let settled = session.settle(&queue, got.lease, Selection::All, Settlement::Ack);
    assert_eq!(
        settled.await.unwrap().count,
        1,
        "the lease outlives its leader"
    );
    let settled = session.settle(&queue, second.lease, Selection::All, Settlement::Release);
    settled.await.unwrap();
    let again = received(&session, receive(&queue, 1, Duration::from_secs(5))).await;
    assert_eq!(bodies(&again), texts(2..3));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_a_receiver_that_left_come_back_from_another_node() {
    let fleet = Fleet::start().await;
    let queue = queue("left");
    let leader = fleet.leader(&queue).await;
    let [one, two] = fleet.others(leader);
    let session = fleet.broker(one).open_session();
    let stays = fleet.broker(two).open_session();
    for round in 0..20 {
        // Given up at about the moment when the messages come.
        let waiting = session.receive(receive(&queue, 10, Duration::from_secs(10)));
        let sending = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            enqueue(fleet.broker(two), &queue, &texts(round..round + 1)).await;
        };
        let given_up = Duration::from_millis(5 + round % 7);
        let (got, ()) = tokio::join!(tokio::time::timeout(given_up, waiting), sending);
        let (holder, got) = match got {
            Ok(got) => (&session, got.unwrap()),
            Err(_) => (
                &stays,
                received(&stays, receive(&queue, 10, Duration::from_secs(10))).await,
            ),
        };
        assert_eq!(bodies(&got), texts(round..round + 1));
        let ack = holder.settle(&queue, got.lease, Selection::All, Settlement::Ack);
        ack.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_does_not_notice_that_leadership_is_handed_over() {
    let fleet = Fleet::start().await;
    let topic = topic("handed");
    let leader = fleet.leader(&topic).await;
    let [one, _] = fleet.others(leader);
    let mut here = subscribe(
        fleet.broker(leader),
        from(&topic, Start::First, CursorMode::None),
    )
    .await;
    let mut there = subscribe(fleet.broker(one), group(&topic, Start::First, "g")).await;
    let publishing = async {
        for number in 1..201 {
            publish(fleet.broker(one), &topic, &number.to_string()).await;
            if number == 50 {
                let cluster = &fleet.member(leader).cluster;
                cluster
                    .hand_over(std::time::Instant::now() + PATIENCE)
                    .await;
            }
        }
    };
    let (a, b, ()) = tokio::join!(read(&mut here, 200), read(&mut there, 200), publishing);
    assert_eq!(a, offsets(1..201));
    assert_eq!(b, offsets(1..201));
    assert_ne!(fleet.leader(&topic).await, leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_and_holds_nothing_does_not_notice_that_its_session_was_lost() {
    let mut fleet = Fleet::start().await;
    let queue = queue("jobs");
    let stays = 0;
    let others = fleet.others(stays);
    enqueue(fleet.broker(stays), &queue, &texts(1..2)).await;
    let [holder, settled, waiter] = [0; 3].map(|_| fleet.broker(stays).open_session());
    let got = received(&settled, receive(&queue, 1, PATIENCE)).await;
    let back = settled.settle(&queue, got.lease, Selection::All, Settlement::Release);
    assert_eq!(back.await.unwrap().remaining, 0);
    let held = received(&holder, receive(&queue, 1, PATIENCE)).await;
    assert_eq!(bodies(&held), texts(1..2));
    let cluster = fleet.member(stays).cluster.clone();
    let generation = cluster.session_generation();
    let waiting = waiter.receive(receive(&queue, 1, PATIENCE * 3));
    let losing = async {
        for place in others {
            fleet.kill(place);
        }
        let lost = tokio::time::timeout(PATIENCE, holder.lost()).await;
        let lost = lost.expect("who holds a message is told");
        assert!(matches!(lost, BrokerError::Unavailable { .. }), "{lost}");
        assert!(cluster.session_generation() > generation);
        let over = tokio::time::timeout(Duration::from_millis(200), waiter.lost());
        assert!(over.await.is_err(), "it has lost nothing");
        let over = tokio::time::timeout(Duration::from_millis(200), settled.lost());
        assert!(over.await.is_err(), "what it had is settled");
        fleet.restart(others[0]).await;
        fleet.settled().await;
    };
    let (got, ()) = tokio::join!(waiting, losing);
    assert_eq!(
        bodies(&got.unwrap()),
        texts(1..2),
        "what the other one lost"
    );
}
