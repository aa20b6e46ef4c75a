//! Random metadata commands, applied by group 0 and by a naive model of it.

use flotilla_model::command::*;
use flotilla_model::format::{decode_head, encode_head};
use flotilla_model::ids::*;
use flotilla_model::machine::apply_in_memory;
use flotilla_model::metadata::NodeState;
use flotilla_model::outcome::*;
use flotilla_model::query;
use flotilla_model::records::MemoryRecords;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::ask;
use crate::naive_metadata::NaiveMetadata;
use crate::replica::Replica;

const GROUP: ShardId = ShardId::METADATA;
const DISKS: u8 = 6;

/// A command; versions are decided when it is proposed: `None` is the present one.
#[derive(Clone, Debug)]
enum Step {
    Plain(Command),
    SetState(NodeId, NodeState, Option<u64>),
    Place(ShardId, Vec<NodeId>, Option<u64>),
}

fn node() -> impl Strategy<Value = NodeId> {
    (1u64..8).prop_map(NodeId)
}

fn version() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![4 => Just(None), 1 => (0u64..6).prop_map(Some)]
}

fn step() -> impl Strategy<Value = Step> {
    let text = || {
        prop_oneof![
            9 => (0u8..3).prop_map(|n| format!("node-{n}.example:7600")),
            1 => Just("x".repeat(301)),
        ]
    };
    let states = vec![
        NodeState::Up,
        NodeState::Draining,
        NodeState::Gone,
        NodeState::Removed,
    ];
    let state = proptest::sample::select(states);
    let wanted = prop_oneof![
        4 => Just(None),
        2 => node().prop_map(Some),
        1 => prop_oneof![Just(0), Just(1_025), Just(u64::MAX)].prop_map(|id| Some(NodeId(id))),
    ];
    let level = prop_oneof![6 => 3u16..5, 1 => 0u16..3];
    let register = (0..DISKS, text(), text(), text(), level, wanted).prop_map(
        |(disk, name, address, zone, feature_level_max, wanted)| Command::RegisterNode {
            disk: DiskId([disk; 16]),
            name,
            address,
            zone,
            feature_level_max,
            wanted,
        },
    );
    let shard = prop_oneof![9 => 0u32..4, 1 => Just(1_025)].prop_map(ShardId);
    let replicas = prop_oneof![9 => vec(node(), 0..4), 1 => vec(node(), 10)];
    prop_oneof![
        5 => register.prop_map(Step::Plain),
        3 => (node(), state, version()).prop_map(|(n, s, v)| Step::SetState(n, s, v)),
        5 => (shard, replicas, version()).prop_map(|(s, r, v)| Step::Place(s, r, v)),
        1 => (0u32..11).prop_map(|replicas| Step::Plain(Command::SetReplicas { replicas })),
        1 => (0u16..5).prop_map(|to| Step::Plain(Command::RaiseFeatureLevel { to })),
    ]
}

fn resolve(step: Step, naive: &mut NaiveMetadata) -> Command {
    match step {
        Step::Plain(command) => command,
        Step::SetState(node, state, version) => Command::SetNodeState {
            node,
            state,
            expected_version: version
                .or_else(|| Some(naive.node(node)?.version))
                .unwrap_or(1),
        },
        Step::Place(shard, replicas, version) => Command::SetPlacement {
            shard,
            replicas,
            expected_version: version
                .or_else(|| Some(naive.placement(shard)?.version))
                .unwrap_or(0),
        },
    }
}

/// Texts of what is invalid are for people.
fn without_text(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Refused(Refusal::Invalid { .. }) => Outcome::Refused(Refusal::Invalid {
            what: String::new(),
        }),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(crate::config(300))]

    #[test]
    fn metadata_is_as_a_naive_model_has_it(entries in vec((vec(step(), 0..6), any::<u64>()), 1..30)) {
        let mut naive = NaiveMetadata::new();
        let (mut memory, mut replica) = (MemoryRecords::default(), Replica::new(GROUP));
        for (index, (steps, seed)) in (1u64..).zip(entries) {
            let version_before = naive.view.cluster.version;
            let mut commands = Vec::new();
            let mut expected = Vec::new();
            for step in steps {
                let command = resolve(step, &mut naive);
                expected.push(naive.run(&command));
                commands.push(command);
            }
            let origin = Origin::Node { node: NodeId(1), incarnation: 1 };
            let head = EntryHead {
                now: ShardTime(index),
                wall: WallTime(index),
                proposals: vec![Proposal { origin, sequence: index, first_slot: 0, commands }],
            };
            let head = decode_head(&encode_head(&head), u16::MAX).unwrap();
            let applied =
                apply_in_memory(GROUP, LogIndex(index), head.clone(), Vec::new(), &mut memory);
            let outcomes: Vec<Outcome> = applied.outcomes[0].iter().map(without_text).collect();
            prop_assert_eq!(outcomes, expected);

            let steps_of_version = naive.view.cluster.version - version_before;
            let notes = applied.changes.iter().filter(|change| **change == Change::Metadata);
            prop_assert_eq!(notes.count() as u64, steps_of_version);
            prop_assert_eq!(&ask(query::metadata(&memory)), &naive.view);

            let mut random = seed | 1;
            replica.evict(&mut random);
            if seed.is_multiple_of(5) {
                replica.restart();
            }
            let again = replica.apply(LogIndex(index), head, Vec::new(), seed);
            prop_assert_eq!(format!("{again:?}"), format!("{applied:?}"));
            prop_assert_eq!(replica.digest(), memory.digest());
            replica.evict(&mut random);
            prop_assert_eq!(&replica.query(|records| query::metadata(records)), &naive.view);
            for disk in 0..DISKS {
                let disk = DiskId([disk; 16]);
                let known = naive.view.nodes.iter().find(|node| node.disk == disk);
                let found = replica.query(|records| query::node_by_disk(records, disk));
                prop_assert_eq!(found.as_ref(), known);
            }
        }
    }
}
