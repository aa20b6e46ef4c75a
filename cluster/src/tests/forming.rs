//! Nodes that become one cluster.

use std::collections::BTreeSet;

use flotilla_model::ids::NodeId;
use flotilla_model::name::Name;

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

#[test]
fn five_nodes_form_a_cluster_while_they_are_recorded_one_by_one() {
    // Three voters of five hold a quorum: whoever forgot the plan after the first record could not
    // make the second.
    let fleet = Fleet::start(5);
    fleet.wait_for("five recorded nodes with three replicas each", |fleet| {
        fleet.is_settled(5, 3)
    });
}

#[test]
fn a_formed_cluster_records_its_nodes_and_places() {
    let fleet = Fleet::start(3);
    fleet.wait_for("the records", |fleet| fleet.is_settled(3, 3));
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
