//! Replicas that move away and return.

use std::time::Instant;

use flotilla_model::name::Name;

use super::PATIENCE;
use super::fleet::Fleet;

/// What the log of a node takes on disk.
fn log_bytes(fleet: &Fleet, place: usize) -> u64 {
    let metrics = fleet.node(place).cluster.metrics().unwrap();
    metrics.log.segment_bytes
}

/// Whether a node holds none of the shards, or none that it should not.
fn is_emptied(fleet: &Fleet, place: usize) -> bool {
    let node = fleet.node(place);
    let own = node.cluster.node().id;
    node.cluster.inner.groups[1..].iter().all(|group| {
        let wanted = node.cluster.inner.roster.replicas(group.replica.shard);
        wanted.is_some_and(|nodes| nodes.contains(&own)) || !group.is_filled().unwrap()
    })
}

#[test]
fn a_replica_that_moved_away_gives_its_space_back_and_is_right_when_it_returns() {
    let mut fleet = Fleet::start(4);
    fleet.wait_for("the records", |fleet| fleet.is_settled(4, 3));
    let topics: Vec<Name> = (0..8)
        .map(|number| Name::topic(&format!("topic-{number}")).unwrap())
        .collect();
    let payload = "x".repeat(64 << 10);
    for round in 0..16 {
        for topic in &topics {
            fleet.node(round % 4).append(topic, &[&payload]);
        }
    }
    let moving = fleet.node(3).cluster.node().id;
    let full = log_bytes(&fleet, 3);
    assert!(full > 4 << 20, "{full}");
    let deadline = Instant::now() + PATIENCE;
    let node = fleet.node(0);
    let drained = node.cluster.drain(moving, deadline);
    node.runtime.block_on(drained).unwrap();
    fleet.wait_for("an empty node", |fleet| {
        // Each checkpoint lets go of segments.
        fleet.node(0).append(&topics[0], &["on"]);
        fleet.is_settled(4, 3) && is_emptied(fleet, 3)
    });
    fleet.wait_for("its disk space", |fleet| log_bytes(fleet, 3) < full / 2);
    // Killed, it comes back with nothing, and what it did not hold is no trouble.
    fleet.kill(3);
    for topic in &topics {
        fleet.node(1).append(topic, &["while it was away"]);
    }
    fleet.start_these(&[3]);
    assert!(is_emptied(&fleet, 3));
    // The same with a goodbye: what is written at the end must not look like a state.
    let node = fleet.berths[3].node.take().unwrap();
    node.shut_down();
    fleet.start_these(&[3]);
    assert!(is_emptied(&fleet, 3));
    fleet.wait_for("a leader of each group", |fleet| {
        fleet.node(3).cluster.health().ready()
    });

    let node = fleet.node(0);
    let undrained = node.cluster.undrain(moving, Instant::now() + PATIENCE);
    node.runtime.block_on(undrained).unwrap();
    fleet.wait_for("its replicas", |fleet| {
        fleet.node(2).append(&topics[1], &["on"]);
        let nodes = fleet.node(0).cluster.nodes();
        let back = nodes.iter().find(|node| node.id == moving);
        fleet.is_settled(4, 3) && back.is_some_and(|node| node.holds.len() == 3)
    });
    // What it holds is what the others hold, and it can lead with it.
    let held: Vec<&Name> = topics
        .iter()
        .filter(|topic| {
            let shard = fleet.node(3).shard(topic).id();
            let nodes = fleet.node(3).cluster.inner.roster.replicas(shard);
            nodes.is_some_and(|nodes| nodes.contains(&moving))
        })
        .collect();
    assert!(!held.is_empty());
    for topic in held {
        let shard = fleet.node(3).shard(topic).id();
        let nodes = fleet.node(3).cluster.inner.roster.replicas(shard).unwrap();
        let other = (0..3)
            .find(|place| nodes.contains(&fleet.node(*place).cluster.node().id))
            .unwrap();
        fleet.wait_for("the same messages", |fleet| {
            let contents = |place: usize| fleet.node(place).topic_contents(topic);
            contents(3).len() > 16 && contents(3) == contents(other)
        });
    }
    fleet.kill(0);
    for topic in &topics {
        fleet.node(3).append(topic, &["last"]);
    }
}
