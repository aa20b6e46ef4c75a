//! What group 0 promises beside what a naive model of it shows.

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::metadata::{NODES_MAX, NodeState};
use flotilla_model::outcome::*;
use flotilla_model::query;

use crate::harness::*;

fn register(disk: u64, wanted: Option<u64>) -> Command {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&disk.to_le_bytes());
    Command::RegisterNode {
        disk: DiskId(id),
        name: format!("node-{disk}"),
        address: "127.0.0.1:7600".to_owned(),
        zone: String::new(),
        feature_level_max: 1,
        wanted: wanted.map(NodeId),
    }
}

fn set_state(node: u64, state: NodeState, expected_version: u64) -> Command {
    Command::SetNodeState {
        node: NodeId(node),
        state,
        expected_version,
    }
}

fn place(shard: u32, replicas: &[u64], expected_version: u64) -> Command {
    Command::SetPlacement {
        shard: ShardId(shard),
        replicas: replicas.iter().copied().map(NodeId).collect(),
        expected_version,
    }
}

fn registered(node: u64) -> Outcome {
    Outcome::NodeRegistered { node: NodeId(node) }
}

#[test]
fn a_shard_takes_no_metadata() {
    let mut shard = Shard::new();
    let commands = [
        register(1, None),
        set_state(1, NodeState::Gone, 1),
        place(1, &[1], 0),
        Command::SetReplicas { replicas: 1 },
    ];
    for command in commands {
        let refusal = Refusal::NotMetadata { shard: SHARD };
        assert_eq!(shard.run(command), Outcome::Refused(refusal));
    }
    assert_eq!(query::metadata(&shard.state).unwrap().cluster.version, 0);
}

#[test]
fn group_0_takes_what_shards_take() {
    let mut group = Shard::of(ShardId::METADATA);
    assert_eq!(group.run(register(1, None)), registered(1));
    let outcome = group.run(append(1));
    assert!(matches!(outcome, Outcome::Appended { .. }), "{outcome:?}");
    let mut defaults = (*group.stats().defaults).clone();
    defaults.shard_count = 16;
    let applied = group.apply(node(1), 3, vec![Command::SetDefaults { defaults }]);
    assert_eq!(applied.changes, [Change::Metadata]);
    let cluster = query::metadata(&group.state).unwrap().cluster;
    assert_eq!((cluster.shard_count, cluster.version), (16, 1));
}

#[test]
fn ids_that_a_forming_cluster_planned_may_come_in_any_order() {
    let mut group = Shard::of(ShardId::METADATA);
    for id in [3, 1, 2] {
        assert_eq!(group.run(register(id, Some(id))), registered(id));
        assert_eq!(group.run(register(id, Some(id))), registered(id));
    }
    let taken = Refusal::NodeIdTaken { node: NodeId(2) };
    assert_eq!(group.run(register(9, Some(2))), Outcome::Refused(taken));
    assert_eq!(group.run(register(9, None)), registered(4));
}

#[test]
fn of_two_decisions_based_on_the_same_version_the_first_is_taken() {
    let mut group = Shard::of(ShardId::METADATA);
    for disk in [1, 2, 3] {
        group.run(register(disk, None));
    }
    assert_eq!(group.run(place(1, &[1, 2], 0)), Outcome::Done);
    assert_eq!(group.run(place(1, &[2, 3], 1)), Outcome::Done);
    let outcome = group.run(place(1, &[1, 3], 1));
    let Outcome::Refused(refusal @ Refusal::VersionConflict { .. }) = outcome else {
        panic!("{outcome:?}");
    };
    let text = "the placement of shard 1 has version 2, not 1";
    assert_eq!(refusal.to_string(), text);
    let placements = query::metadata(&group.state).unwrap().placements;
    assert_eq!(placements[0].replicas, [NodeId(2), NodeId(3)]);
}

#[test]
fn a_full_cluster_forgets_removed_nodes_but_never_gives_their_ids_again() {
    let mut group = Shard::of(ShardId::METADATA);
    for disk in 1..=NODES_MAX {
        assert_eq!(group.run(register(disk, None)), registered(disk));
    }
    let refused = group.run(register(5_000, None));
    assert!(matches!(refused, Outcome::Refused(Refusal::Invalid { .. })));
    // Node 5 is still named by a placement, so node 7 is the oldest that can be forgotten.
    assert_eq!(group.run(place(1, &[5], 0)), Outcome::Done);
    for id in [5, 7, 8] {
        let command = set_state(id, NodeState::Removed, 1);
        assert_eq!(group.run(command), Outcome::Done);
    }
    assert_eq!(group.run(register(5_000, None)), registered(NODES_MAX + 1));
    let view = query::metadata(&group.state).unwrap();
    assert_eq!(view.nodes.len() as u64, NODES_MAX);
    let has = |id: u64| view.nodes.iter().any(|node| node.id == NodeId(id));
    assert_eq!((has(5), has(7), has(8)), (true, false, true));
    let taken = Refusal::NodeIdTaken { node: NodeId(7) };
    let outcome = group.run(register(5_001, Some(7)));
    assert_eq!(outcome, Outcome::Refused(taken));
}
