//! Messages that are leased and do not come to their receivers: unreadable ones, and answers that nobody
//! takes.

use std::time::{Duration, Instant};

use flotilla_broker::{Broker, BrokerError, Enqueue, Receive, Received, Session};
use flotilla_cluster::{Cluster, ClusterConfig};
use flotilla_model::command::{QueuePolicy, Selection, Settlement};
use flotilla_model::format::FEATURE_LEVEL;
use flotilla_model::name::Name;
use flotilla_model::settings::QueueSettings;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::faults::damage;
use crate::fleet::Fleet;
use crate::node::{Node, PATIENCE, bodies, eventually, message, queue, receive, received};

const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(60);
/// Enough to begin to wait on a busy machine.
const LISTENS: Duration = Duration::from_secs(4);

/// The feature level of a release in which every lease counts as a delivery.
const BEFORE_WITHDRAWALS: u16 = 2;

/// The messages of a queue, the third of which is to be damaged.
const MESSAGES: [&str; 5] = ["one", "two", "spoil-the-third", "four", "five"];

async fn enqueue(broker: &Broker, queue: &Name, text: &str, policy: &QueuePolicy) {
    let one = Enqueue {
        queue: queue.clone(),
        message: message(text),
        policy: policy.clone(),
        dedup: None,
    };
    for result in broker.enqueue(vec![one]).await {
        result.unwrap();
    }
}

/// A queue that comes to lie on the same shard as another one.
fn neighbour(cluster: &Cluster, of: &Name) -> Name {
    let mut names = (0..).map(|number| queue(&format!("neighbour-{number}")));
    let is_near = |name: &Name| cluster.shard_of(name) == cluster.shard_of(of);
    names.find(is_near).unwrap()
}

/// Messages are soon read from the disk only.
fn small_cache(config: &mut ClusterConfig) {
    config.log.tail_cache_bytes = 1 << 10;
}

fn small_cache_of_the_release_before(config: &mut ClusterConfig) {
    small_cache(config);
    config.feature_level_max = BEFORE_WITHDRAWALS;
}

/// All shards, which all of these nodes hold, have come to a level.
async fn levelled(clusters: &[&Cluster], level: u16) {
    let deadline = Instant::now() + PATIENCE;
    let is_there = |cluster: &&Cluster| {
        let shards = cluster.shards().iter();
        shards.map(|shard| shard.feature_level()).min() == Some(level)
    };
    while !clusters.iter().all(is_there) {
        assert!(Instant::now() < deadline, "the level is not raised");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn levelled_fleet(fleet: &Fleet, level: u16) {
    let clusters: Vec<&Cluster> = (0..3).map(|place| &fleet.member(place).cluster).collect();
    levelled(&clusters, level).await;
}

/// A queue with one message that these nodes cannot read any more.
async fn spoil(fleet: &Fleet, places: &[usize], jobs: &Name, policy: &QueuePolicy) {
    let broker = fleet.broker(places[0]);
    for text in MESSAGES {
        enqueue(broker, jobs, text, policy).await;
    }
    // What comes after it is in the caches.
    let filler = "x".repeat(1_000);
    for _ in 0..10 {
        enqueue(broker, &queue("filler"), &filler, &QueuePolicy::default()).await;
    }
    for place in places {
        let directory = fleet.directory(*place).to_owned();
        let text = MESSAGES[2];
        let deadline = Instant::now() + PATIENCE;
        // A follower has it a moment later.
        while damage(&directory, text) == 0 {
            assert!(Instant::now() < deadline, "{text} is not in the log");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Receives all that can be read, and acknowledges all of its lease. While replicas are made anew their leaders
/// change, and on a busy machine a session may be lost by that: clients then begin another.
async fn receive_the_rest(broker: &Broker, jobs: &Name) -> Session {
    let deadline = Instant::now() + PATIENCE;
    let (session, got) = loop {
        let session = broker.open_session();
        match session
            .receive(receive(jobs, 20, Duration::from_secs(5)))
            .await
        {
            Ok(got) => break (session, got),
            Err(BrokerError::Unavailable { .. }) if Instant::now() < deadline => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(bodies(&got), ["one", "two", "four", "five"]);
    let settled = session.settle(jobs, got.lease, Selection::All, Settlement::Ack);
    assert_eq!(settled.await.unwrap().count, 4, "and nothing else");
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_node_can_read_holds_up_nothing_and_becomes_a_dead_letter_in_the_end() {
    let fleet = Fleet::start_tuned(small_cache).await;
    levelled_fleet(&fleet, FEATURE_LEVEL).await;
    let jobs = queue("jobs");
    let dead = neighbour(&fleet.member(0).cluster, &jobs);
    let policy = QueuePolicy {
        receive_count_max: 1,
        dead_letter: Some(dead.clone()),
        ..QueuePolicy::default()
    };
    spoil(&fleet, &[0, 1, 2], &jobs, &policy).await;
    let leader = fleet.leader(&jobs).await;
    let session = receive_the_rest(fleet.broker(fleet.others(leader)[0]), &jobs).await;
    let broker = fleet.broker(leader);
    let is_counted = |place| {
        let shown = fleet.broker(place).metrics_text();
        !shown.contains("flotilla_damaged_messages_total 0\n")
    };
    assert!((0..3).any(is_counted));
    let detail = broker.queue(&jobs).await.unwrap();
    assert_eq!((detail.messages, detail.dead_lettered_total), (0, 1));
    // There it waits, for there is no limit.
    let none = received(&session, receive(&dead, 1, SHORT)).await;
    assert_eq!(bodies(&none), Vec::<String>::new());
    let detail = broker.queue(&dead).await.unwrap();
    assert_eq!((detail.available, detail.delayed), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_that_is_away_may_have_is_kept_and_holds_up_nothing() {
    let mut fleet = Fleet::start_tuned(small_cache).await;
    levelled_fleet(&fleet, FEATURE_LEVEL).await;
    let jobs = queue("jobs");
    let away = fleet.others(fleet.leader(&jobs).await)[0];
    let discarded_after_one = QueuePolicy {
        receive_count_max: 1,
        ..QueuePolicy::default()
    };
    spoil(&fleet, &fleet.others(away), &jobs, &discarded_after_one).await;
    fleet.kill(away);
    fleet.settled().await;
    let leader = fleet.leader(&jobs).await;
    let _session = receive_the_rest(fleet.broker(leader), &jobs).await;
    let detail = fleet.broker(leader).queue(&jobs).await.unwrap();
    assert_eq!((detail.messages, detail.delayed), (1, 1));
    assert_eq!(detail.dead_lettered_total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_node_can_read_holds_up_nothing_among_nodes_of_the_release_before() {
    let fleet = Fleet::start_tuned(small_cache_of_the_release_before).await;
    let jobs = queue("jobs");
    spoil(&fleet, &[0, 1, 2], &jobs, &QueuePolicy::default()).await;
    let leader = fleet.leader(&jobs).await;
    let session = receive_the_rest(fleet.broker(leader), &jobs).await;
    let detail = fleet.broker(leader).queue(&jobs).await.unwrap();
    assert_eq!((detail.messages, detail.available), (1, 1));
    // To be held for less time than it takes to find out that nobody can read it.
    let brief = Receive {
        visibility: Some(Duration::from_millis(100)),
        ..receive(&jobs, 1, SHORT)
    };
    let none = received(&session, brief).await;
    assert_eq!(bodies(&none), Vec::<String>::new());
}

/// A receiver whose message is leased and not seen: it is looked after until it waits, and then no more.
async fn leased_unseen<'a>(
    broker: &Broker,
    session: &'a Session,
    request: Receive,
) -> BoxFuture<'a, Result<Received, BrokerError>> {
    let jobs = &request.queue.clone();
    let mut receiving = session.receive(request).boxed();
    let ask = || broker.queue(jobs);
    // Nor is there who waited before.
    eventually("nobody waits", ask, |detail| detail.subscriber_count == 0).await;
    let waits = eventually("it waits", ask, |detail| detail.subscriber_count == 1);
    tokio::select! {
        got = &mut receiving => panic!("{got:?}"),
        _ = waits => {}
    }
    enqueue(broker, jobs, "text", &QueuePolicy::default()).await;
    eventually("it is leased", ask, |detail| detail.leased == 1).await;
    receiving
}

async fn until_back(broker: &Broker, jobs: &Name) {
    let is_back =
        |detail: &flotilla_broker::QueueDetail| (detail.leased, detail.available) == (0, 1);
    eventually("it is back", || broker.queue(jobs), is_back).await;
}

/// From now on whatever was received once is not there any more.
async fn allow_one_delivery(broker: &Broker, jobs: &Name) {
    let once = QueueSettings {
        receive_count_max: 1,
        ..QueueSettings::default()
    };
    broker.configure_queue(jobs.clone(), once).await.unwrap();
}

/// With one delivery allowed, a message that came to nobody is there for the next.
async fn a_miss_does_not_count(leading: &Broker, receiving: &Broker, jobs: &Name) {
    allow_one_delivery(leading, jobs).await;
    let session = receiving.open_session();
    drop(leased_unseen(leading, &session, receive(jobs, 1, LONG)).await);
    until_back(leading, jobs).await;
    let got = received(&session, receive(jobs, 1, LONG)).await;
    assert_eq!(bodies(&got), ["text"]);
    assert_eq!(got.messages[0].receive_count, 1);
}

/// The same, when its session ends at the same time, by itself or in order.
async fn nor_does_one_with_which_its_session_ends(
    leading: &Broker,
    receiving: &Broker,
    jobs: &Name,
) {
    allow_one_delivery(leading, jobs).await;
    for round in 0..8 {
        let session = receiving.open_session();
        drop(leased_unseen(leading, &session, receive(jobs, 1, LONG)).await);
        match round % 2 {
            0 => drop(session),
            _ => session.end().await,
        }
        until_back(leading, jobs).await;
        let other = receiving.open_session();
        let got = received(&other, receive(jobs, 1, LONG)).await;
        assert_eq!(bodies(&got), ["text"], "round {round}");
        assert_eq!(got.messages[0].receive_count, 1);
        let settled = other.settle(jobs, got.lease, Selection::All, Settlement::Ack);
        assert_eq!(settled.await.unwrap().count, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_session_ended_meanwhile_was_not_received() {
    let node = Node::start().await;
    levelled(&[&node.cluster], FEATURE_LEVEL).await;
    nor_does_one_with_which_its_session_ends(&node.broker, &node.broker, &queue("jobs")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_session_at_another_node_ended_meanwhile_was_not_received() {
    let fleet = Fleet::start().await;
    levelled_fleet(&fleet, FEATURE_LEVEL).await;
    let jobs = queue("jobs");
    let leader = fleet.leader(&jobs).await;
    let other = fleet.others(leader)[0];
    nor_does_one_with_which_its_session_ends(fleet.broker(leader), fleet.broker(other), &jobs)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_receiver_was_gone_was_not_received() {
    let node = Node::start().await;
    levelled(&[&node.cluster], FEATURE_LEVEL).await;
    a_miss_does_not_count(&node.broker, &node.broker, &queue("jobs")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_node_did_not_hand_on_was_not_received() {
    let fleet = Fleet::start().await;
    levelled_fleet(&fleet, FEATURE_LEVEL).await;
    let jobs = queue("jobs");
    let leader = fleet.leader(&jobs).await;
    let other = fleet.others(leader)[0];
    a_miss_does_not_count(fleet.broker(leader), fleet.broker(other), &jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_when_nobody_listens_any_more_was_not_received() {
    let node = Node::start().await;
    levelled(&[&node.cluster], FEATURE_LEVEL).await;
    let jobs = queue("jobs");
    allow_one_delivery(&node.broker, &jobs).await;
    let session = node.broker.open_session();
    let brief = Receive {
        answer_within: Some(LISTENS),
        ..receive(&jobs, 1, LONG)
    };
    let began = Instant::now();
    let none = received(&session, brief.clone()).await;
    assert_eq!(bodies(&none), Vec::<String>::new());
    assert!((LISTENS..PATIENCE).contains(&began.elapsed()));
    // The answer is there in time, and nobody looks.
    let receiving = leased_unseen(&node.broker, &session, brief).await;
    tokio::time::sleep(LISTENS).await;
    assert_eq!(bodies(&receiving.await.unwrap()), Vec::<String>::new());
    until_back(&node.broker, &jobs).await;
    let got = received(&session, receive(&jobs, 1, LONG)).await;
    assert_eq!(bodies(&got), ["text"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_the_next_leader_finds_too_late_holds_nothing() {
    let mut fleet = Fleet::start().await;
    levelled_fleet(&fleet, FEATURE_LEVEL).await;
    let jobs = queue("jobs");
    let leader = fleet.leader(&jobs).await;
    let [one, two] = fleet.others(leader);
    enqueue(fleet.broker(one), &jobs, "text", &QueuePolicy::default()).await;
    let session = fleet.broker(one).open_session();
    fleet.kill(leader);
    // Shorter than elections are.
    let brief = Receive {
        answer_within: Some(SHORT),
        ..receive(&jobs, 1, SHORT / 2)
    };
    let began = Instant::now();
    match session.receive(brief).await {
        Ok(none) => assert_eq!(bodies(&none), Vec::<String>::new()),
        Err(BrokerError::Unavailable { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    assert!(began.elapsed() < SHORT * 16, "{:?}", began.elapsed());
    fleet.settled().await;
    let other = fleet.broker(two).open_session();
    let got = received(&other, receive(&jobs, 1, PATIENCE)).await;
    assert_eq!(bodies(&got), ["text"]);
    assert_eq!(got.messages[0].receive_count, 1);
    // Until now it could have held it.
    drop(session);
}

/// The leader of a queue dies when it has leased its only message for a receiver at another node, who has not
/// seen it yet. By one delivery that counted the message would be over.
async fn a_lease_of_a_dead_leader_does_not_count(is_given_up: bool) {
    let mut fleet = Fleet::start().await;
    levelled_fleet(&fleet, FEATURE_LEVEL).await;
    let jobs = queue("jobs");
    let leader = fleet.leader(&jobs).await;
    let [one, two] = fleet.others(leader);
    allow_one_delivery(fleet.broker(leader), &jobs).await;
    let session = fleet.broker(one).open_session();
    let request = receive(&jobs, 1, PATIENCE);
    let receiving = leased_unseen(fleet.broker(leader), &session, request.clone()).await;
    fleet.kill(leader);
    fleet.settled().await;
    let other = fleet.broker(two).open_session();
    let got = match is_given_up {
        false => receiving.await.unwrap(),
        true => {
            drop(receiving);
            received(&other, request).await
        }
    };
    assert_eq!(bodies(&got), ["text"]);
    assert_eq!(got.messages[0].receive_count, 1);
    // Until now it could have held it.
    drop(session);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_gets_what_a_leader_leased_for_it_and_died() {
    a_lease_of_a_dead_leader_does_not_count(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_leased_for_a_receiver_that_is_gone_like_itself_comes_to_another() {
    a_lease_of_a_dead_leader_does_not_count(true).await;
}
