//! Nodes that become one cluster.

use std::collections::BTreeSet;

use flotilla_model::ids::NodeId;
use flotilla_model::name::Name;
use openraft::async_runtime::watch::WatchReceiver;

use super::fleet::Fleet;

#[test]
fn three_nodes_form_a_cluster_and_all_take_writes() {
    let fleet = Fleet::start(3);
    let ids: BTreeSet<NodeId> = fleet.nodes().map(|node| node.cluster.node().id).collect();
    assert_eq!(ids, [1, 2, 3].map(NodeId).into());
    let clusters: BTreeSet<_> = fleet
        .nodes()
        .map(|node| node.cluster.node().cluster)
        .collect();
    assert_eq!(clusters.len(), 1);
    fleet.wait_for("leaders", |fleet| {
        fleet.nodes().all(|node| node.cluster.health().ready())
    });
    for place in 0..3 {
        let topic = Name::topic(&format!("topic-{place}")).unwrap();
        fleet.node(place).append(&topic, &["one", "two"]);
        for other in 0..3 {
            fleet.wait_for("the message on every node", |fleet| {
                fleet.holds(other, &topic, 2)
            });
        }
    }
}

#[test]
fn a_node_that_was_killed_comes_back_with_its_id_and_catches_up() {
    let mut fleet = Fleet::start(3);
    let topic = Name::topic("topic").unwrap();
    fleet.node(0).append(&topic, &["one"]);
    let before = fleet.node(2).cluster.node().clone();
    fleet.kill(2);
    fleet.node(0).append(&topic, &["two"]);
    fleet.start_these(&[2]);
    let after = fleet.node(2).cluster.node().clone();
    assert_eq!((before.id, before.cluster), (after.id, after.cluster));
    fleet.wait_for("the missed message", |fleet| fleet.holds(2, &topic, 2));
    // All at once, from their disks alone.
    (0..3).for_each(|place| fleet.kill(place));
    fleet.start_all();
    fleet.wait_for("both messages everywhere", |fleet| {
        (0..3).all(|place| fleet.holds(place, &topic, 2))
    });
}

/// Every node knows all nodes and the place of every shard, and Raft has got there.
fn is_settled(fleet: &Fleet, nodes: usize, replicas: usize) -> bool {
    fleet.nodes().all(|node| {
        let known = node.cluster.nodes();
        let view = node.cluster.inner.roster.view();
        known.len() == nodes
            && view.placements.len() == 4
            && view
                .placements
                .iter()
                .all(|place| place.replicas.len() == replicas)
            && node.cluster.inner.groups[1..].iter().all(|group| {
                let Some(raft) = group.raft() else {
                    return false;
                };
                let metrics = raft.metrics();
                let metrics = metrics.borrow_watched();
                // On those that hold it: what everyone has agreed on.
                let membership = metrics.committed_membership_config.membership();
                membership.voter_ids().next().is_none()
                    || membership.get_joint_config().len() == 1
                        && membership.voter_ids().count() == replicas
            })
    })
}

#[test]
fn a_formed_cluster_records_its_nodes_and_places() {
    let fleet = Fleet::start(3);
    fleet.wait_for("the records", |fleet| is_settled(fleet, 3, 3));
    let nodes = fleet.node(0).cluster.nodes();
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(nodes.iter().filter(|node| node.is_self).count(), 1);
    fleet.wait_for("everyone to be heard", |fleet| {
        fleet
            .nodes()
            .all(|node| node.cluster.nodes().iter().all(|node| node.is_up))
    });
}

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
    fleet.wait_for("replicas everywhere", |fleet| is_settled(fleet, 3, 3));
    fleet.wait_for("the old messages everywhere", |fleet| {
        (0..3).all(|place| fleet.holds(place, &topic, 2))
    });
    // Now any one of them can go, the first one too.
    fleet.kill(0);
    fleet.wait_for("leaders without the first node", |fleet| {
        fleet.nodes().all(|node| {
            let groups = node.cluster.health().groups;
            groups
                .iter()
                .all(|group| group.leader.is_some_and(|leader| leader != NodeId(1)))
        })
    });
    fleet.node(second).append(&topic, &["three"]);
    fleet.wait_for("the new message", |fleet| fleet.holds(third, &topic, 3));
}

#[test]
fn one_of_four_is_drained_and_leaves() {
    let mut fleet = Fleet::start(4);
    fleet.wait_for("the records", |fleet| is_settled(fleet, 4, 3));
    let topic = Name::topic("topic").unwrap();
    fleet.node(0).append(&topic, &["one"]);
    let leaving = fleet.node(3).cluster.node().id;
    let node = fleet.node(0);
    let deadline = std::time::Instant::now() + super::PATIENCE;
    node.runtime
        .block_on(node.cluster.leave(leaving, deadline))
        .unwrap();
    fleet.wait_for("three nodes", |fleet| {
        (0..3).all(|place| fleet.node(place).cluster.nodes().len() == 3)
    });
    let refused = node.runtime.block_on(
        node.cluster
            .drain(fleet.node(1).cluster.node().id, deadline),
    );
    let complaint = refused.unwrap_err().to_string();
    assert!(complaint.contains("cannot hold as many"), "{complaint}");
    fleet.kill(3);
    fleet.node(1).append(&topic, &["two"]);
    fleet.wait_for("both messages", |fleet| {
        (0..3).all(|place| fleet.holds(place, &topic, 2))
    });
}

#[test]
fn a_wiped_node_joins_as_a_new_one() {
    let mut fleet = Fleet::start(3);
    fleet.wait_for("the records", |fleet| is_settled(fleet, 3, 3));
    let topic = Name::topic("topic").unwrap();
    fleet.node(0).append(&topic, &["one"]);
    fleet.kill(2);
    fleet.berths[2].dir = tempfile::tempdir().unwrap();
    fleet.start_these(&[2]);
    assert_eq!(fleet.node(2).cluster.node().id, NodeId(4));
    fleet.wait_for("the message", |fleet| {
        fleet.holds(0, &topic, 1) && fleet.nodes().all(|node| node.cluster.nodes().len() == 4)
    });
}
