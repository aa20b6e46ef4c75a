//! Clusters that grow, shrink and mend.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::ids::NodeId;
use flotilla_model::metadata::NodeState;
use flotilla_model::name::Name;

use super::fleet::Fleet;
use super::{Node, PATIENCE};

#[test]
fn a_node_alone_grows_to_three_with_its_data() {
    let mut fleet = Fleet::new(1);
    fleet.seeds = Some(Vec::new());
    fleet.start_all();
    let topic = Name::topic("topic").unwrap();
    fleet.node(0).append(&topic, &["one", "two"]);
    fleet.seeds = None;
    let (second, third) = (fleet.add(), fleet.add());
    fleet.start_these(&[second, third]);
    let cluster = fleet.node(0).cluster.node().cluster;
    assert!(
        fleet
            .nodes()
            .all(|node| node.cluster.node().cluster == cluster)
    );
    fleet.wait_for("replicas everywhere", |fleet| fleet.is_settled(3, 3));
    fleet.wait_for("the old messages everywhere", |fleet| {
        (0..3).all(|place| fleet.holds(place, &topic, 2))
    });
    // Now any one of them can go, the first one too.
    fleet.kill(0);
    fleet.node(second).append(&topic, &["three"]);
    fleet.wait_for("the new message", |fleet| fleet.holds(third, &topic, 3));
}

#[test]
fn one_of_four_is_drained_leaves_and_is_not_let_in_again() {
    let mut fleet = Fleet::start(4);
    fleet.wait_for("the records", |fleet| fleet.is_settled(4, 3));
    let topic = Name::topic("topic").unwrap();
    fleet.node(0).append(&topic, &["one"]);
    let leaving = fleet.node(3).cluster.node().id;
    let node = fleet.node(0);
    let deadline = Instant::now() + PATIENCE;
    node.runtime
        .block_on(node.cluster.leave(leaving, deadline))
        .unwrap();
    fleet.wait_for("three nodes", |fleet| {
        (0..3).all(|place| fleet.node(place).cluster.nodes().len() == 3)
    });
    let other = fleet.node(1).cluster.node().id;
    let refused = node.runtime.block_on(node.cluster.drain(other, deadline));
    let complaint = refused.unwrap_err().to_string();
    assert!(complaint.contains("cannot hold as many"), "{complaint}");
    fleet.kill(3);
    let complaint = fleet.try_start_one(3).err().unwrap().to_string();
    assert!(complaint.contains("was removed"), "{complaint}");
    fleet.node(1).append(&topic, &["two"]);
    fleet.wait_for("both messages", |fleet| {
        (0..3).all(|place| fleet.holds(place, &topic, 2))
    });
}

#[test]
fn a_wiped_node_joins_as_a_new_one() {
    let mut fleet = Fleet::start(3);
    fleet.wait_for("the records", |fleet| fleet.is_settled(3, 3));
    let topic = Name::topic("topic").unwrap();
    fleet.node(0).append(&topic, &["one"]);
    fleet.kill(2);
    fleet.berths[2].dir = tempfile::tempdir().unwrap();
    fleet.start_these(&[2]);
    assert_eq!(fleet.node(2).cluster.node().id, NodeId(4));
    // It may not have heard yet that it was taken in.
    assert!(!fleet.node(2).cluster.was_removed());
    fleet.wait_for("the message", |fleet| {
        fleet.holds(0, &topic, 1) && fleet.nodes().all(|node| node.cluster.nodes().len() == 4)
    });
}

#[test]
fn a_node_that_stays_away_is_replaced_and_is_welcome_when_it_comes_back() {
    let mut fleet = Fleet::new(4);
    fleet.tune = |config| config.repair_after = Duration::from_secs(3);
    fleet.start_all();
    fleet.wait_for("the records", |fleet| fleet.is_settled(4, 3));
    let topic = Name::topic("topic").unwrap();
    fleet.node(0).append(&topic, &["one"]);
    let away = fleet.node(3).cluster.node().id;
    fleet.kill(3);
    fleet.wait_for("new replicas", |fleet| {
        let nodes = fleet.node(0).cluster.nodes();
        let gone = nodes.iter().find(|node| node.id == away);
        fleet.is_settled(4, 3)
            && gone.is_some_and(|node| node.state == NodeState::Gone && node.holds.is_empty())
    });
    fleet.wait_for("the message on all three", |fleet| {
        (0..3).all(|place| fleet.holds(place, &topic, 1))
    });
    fleet.start_these(&[3]);
    fleet.wait_for("its part", |fleet| {
        let nodes = fleet.node(0).cluster.nodes();
        let back = nodes.iter().find(|node| node.id == away);
        fleet.is_settled(4, 3)
            && back.is_some_and(|node| node.state == NodeState::Up && node.holds.len() == 3)
    });
}

#[test]
fn a_node_that_never_comes_back_is_taken_out_when_others_have_its_part() {
    let mut fleet = Fleet::start(4);
    fleet.wait_for("the records", |fleet| fleet.is_settled(4, 3));
    let dead = fleet.node(3).cluster.node().id;
    fleet.kill(3);
    let node = fleet.node(0);
    let deadline = Instant::now() + PATIENCE;
    node.runtime
        .block_on(node.cluster.leave(dead, deadline))
        .unwrap();
    fleet.wait_for("three nodes with everything", |fleet| {
        fleet.is_settled(3, 3) && fleet.nodes().all(|node| node.cluster.nodes().len() == 3)
    });
    let topic = Name::topic("topic").unwrap();
    fleet.node(1).append(&topic, &["one"]);
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let fleet = Fleet::start(3);
    let mut other = Fleet::new(1);
    other.seeds = Some(Vec::new());
    other.start_all();
    other.kill(0);
    // Its own word about itself must not be taken for that of a member of its cluster.
    let own = other.berths[0].address.clone();
    other.seeds = Some([own].into_iter().chain(fleet.seeds()).collect());
    let complaint = other.try_start_one(0).err().unwrap().to_string();
    assert!(
        complaint.contains("belongs to a node of cluster"),
        "{complaint}"
    );
}

#[test]
fn a_node_that_moved_is_found_at_its_new_address() {
    let mut fleet = Fleet::start(3);
    fleet.wait_for("the records", |fleet| fleet.is_settled(3, 3));
    fleet.kill(2);
    let listen = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listen.local_addr().unwrap().to_string();
    fleet.berths[2].listen = Arc::new(listen);
    fleet.start_these(&[2]);
    fleet.wait_for("the new address", |fleet| {
        fleet.nodes().all(|node| {
            let nodes = node.cluster.nodes();
            nodes
                .iter()
                .any(|node| node.address == address && node.is_up)
        })
    });
    let topic = Name::topic("topic").unwrap();
    fleet.node(0).append(&topic, &["one"]);
    fleet.wait_for("the message", |fleet| fleet.holds(2, &topic, 1));
}

#[test]
fn preferred_nodes_lead_after_a_while() {
    let mut fleet = Fleet::start(3);
    fleet.wait_for("the records", |fleet| fleet.is_settled(3, 3));
    let leads_what_it_should = |node: &Node| {
        let cluster = &node.cluster;
        cluster.shards().iter().all(|shard| {
            let wanted = cluster.inner.roster.replicas(shard.id());
            shard.leader() == wanted.and_then(|nodes| nodes.first().copied())
        })
    };
    fleet.wait_for("the preferred leaders", |fleet| {
        fleet.nodes().all(leads_what_it_should)
    });
    let leaders: BTreeSet<NodeId> = fleet
        .node(0)
        .cluster
        .shards()
        .iter()
        .filter_map(|shard| shard.leader())
        .collect();
    assert_eq!(leaders.len(), 3);
    // And again after one of them was away.
    fleet.kill(1);
    fleet.wait_for("other leaders", |fleet| {
        let nodes = fleet.node(0).cluster.nodes();
        let led: usize = nodes
            .iter()
            .filter(|node| node.is_up)
            .map(|node| node.leader_of.len())
            .sum();
        led == 4
    });
    fleet.start_these(&[1]);
    fleet.wait_for("the preferred leaders again", |fleet| {
        fleet.nodes().all(leads_what_it_should)
    });
}

#[test]
fn the_number_of_replicas_is_changed_while_service_goes_on() {
    let mut fleet = Fleet::new(3);
    fleet.tune = |config| config.replicas = 1;
    fleet.start_all();
    fleet.wait_for("one replica of each", |fleet| fleet.is_settled(3, 1));
    let topic = Name::topic("topic").unwrap();
    let mut messages = 0;
    let mut change = |fleet: &mut Fleet, replicas: u32| {
        let node = fleet.node(1);
        let deadline = Instant::now() + PATIENCE;
        let changed = node.cluster.set_replicas(replicas, deadline);
        node.runtime.block_on(changed).unwrap();
        fleet.wait_for("the new number of replicas", |fleet| {
            fleet.node(0).append(&topic, &["message"]);
            messages += 1;
            fleet.is_settled(3, replicas as usize)
        });
        fleet.wait_for("all messages", |fleet| {
            let held = (0..3).filter(|place| fleet.holds(*place, &topic, messages));
            held.count() >= replicas as usize
        });
    };
    change(&mut fleet, 3);
    change(&mut fleet, 1);
    change(&mut fleet, 2);
    change(&mut fleet, 3);
    fleet.kill(0);
    fleet.node(1).append(&topic, &["without the first"]);
    let node = fleet.node(1);
    for wrong in [0, 8] {
        let deadline = Instant::now() + PATIENCE;
        let refused = node.cluster.set_replicas(wrong, deadline);
        let complaint = node.runtime.block_on(refused).unwrap_err().to_string();
        assert!(complaint.contains("1 to 7 replicas"), "{complaint}");
    }
}
