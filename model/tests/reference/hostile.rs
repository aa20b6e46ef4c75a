//! Entries that no correct node would send, at any times: nothing panics, replicas agree, and every
//! byte is accounted for.

use std::collections::BTreeMap;

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::machine::apply_in_memory;
use flotilla_model::metadata::NodeState;
use flotilla_model::name::Name;
use flotilla_model::query;
use flotilla_model::records::MemoryRecords;
use flotilla_model::settings::*;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::replica::Replica;
use crate::steps::{self, SHARD};

fn name() -> impl Strategy<Value = Name> {
    let signal = Name::signal("s").unwrap();
    let all = [steps::topics(), steps::queues(), vec![signal]].concat();
    proptest::sample::select(all)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..40, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0u32..40, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn session() -> impl Strategy<Value = SessionId> {
    (0u64..2, 0u64..3, 0u64..2).prop_map(|(node, incarnation, number)| SessionId {
        node: NodeId(node),
        incarnation,
        number,
    })
}

fn dedup() -> impl Strategy<Value = Vec<(u32, DedupId)>> {
    vec((small(), (0u8..5).prop_map(|id| DedupId::of(&[id]))), 0..4)
}

fn policy() -> impl Strategy<Value = QueuePolicy> {
    (
        number(),
        proptest::option::of(number()),
        small(),
        proptest::option::of(name()),
    )
        .prop_map(
            |(delay_ms, ttl_ms, receive_count_max, dead_letter)| QueuePolicy {
                delay_ms,
                ttl_ms,
                receive_count_max,
                dead_letter,
            },
        )
}

fn run() -> impl Strategy<Value = EnqueueRun> {
    let expiry = proptest::option::of((number(), number().prop_map(WallTime)));
    let moved = (name(), expiry).prop_map(|(from, expiry)| Moved { from, expiry });
    let policy = prop_oneof![policy(), Just(QueuePolicy::default())];
    (small(), policy, proptest::option::weighted(0.2, moved)).prop_map(|(count, policy, moved)| {
        EnqueueRun {
            count,
            policy,
            moved,
        }
    })
}

fn topic_settings() -> impl Strategy<Value = TopicSettings> {
    let limit = || proptest::option::of(number());
    (limit(), limit(), limit(), number(), number()).prop_map(
        |(retention_ms, retention_bytes, retention_messages, dedup_window_ms, cursor_idle_ms)| {
            TopicSettings {
                retention_ms,
                retention_bytes,
                retention_messages,
                dedup_window_ms,
                cursor_idle_ms,
            }
        },
    )
}

fn queue_settings() -> impl Strategy<Value = QueueSettings> {
    let limit = || proptest::option::of(number());
    let dead_letter = proptest::option::of(name());
    (limit(), limit(), limit(), small(), dead_letter, number()).prop_map(
        |(
            retention_ms,
            messages_max,
            bytes_max,
            receive_count_max,
            dead_letter,
            dedup_window_ms,
        )| {
            QueueSettings {
                retention_ms,
                messages_max,
                bytes_max,
                receive_count_max,
                dead_letter,
                dedup_window_ms,
            }
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let which = prop_oneof![
        Just(Selection::All),
        vec(number().prop_map(Sequence), 0..5).prop_map(Selection::Sequences),
    ];
    let how = prop_oneof![
        Just(Settlement::Ack),
        Just(Settlement::Return),
        Just(Settlement::Release),
        name().prop_map(|to| Settlement::Move { to }),
        number().prop_map(|pause_ms| Settlement::Withdraw { pause_ms }),
        number().prop_map(|pause_ms| Settlement::Postpone { pause_ms }),
    ];
    let cursor = || {
        prop_oneof![
            Just("c".to_owned()),
            Just(String::new()),
            Just("x".repeat(1_025))
        ]
    };
    let offset = || number().prop_map(Offset);
    let settled = vec((offset(), offset()), 0..4);
    let lease = || (0u64..5).prop_map(LeaseId);
    prop_oneof![
        4 => (name(), small(), dedup())
            .prop_map(|(topic, count, dedup)| Command::Append { topic, count, dedup }),
        6 => (name(), vec(run(), 0..3), dedup())
            .prop_map(|(queue, runs, dedup)| Command::Enqueue { queue, runs, dedup }),
        4 => (name(), session(), small(), number(), proptest::option::of(number())).prop_map(
            |(queue, session, messages_max, bytes_max, visibility_ms)| Command::Lease {
                queue,
                session,
                messages_max,
                bytes_max,
                visibility_ms,
            }
        ),
        4 => (name(), session(), lease(), which, how).prop_map(
            |(queue, session, lease, which, how)| Command::Settle {
                queue,
                session,
                lease,
                which,
                how,
            }
        ),
        1 => (name(), session(), lease(), number()).prop_map(
            |(queue, session, lease, visibility_ms)| Command::ExtendLease {
                queue,
                session,
                lease,
                visibility_ms,
            }
        ),
        1 => name().prop_map(|queue| Command::Purge { queue }),
        1 => session().prop_map(|session| Command::EndSession { session }),
        1 => session().prop_map(|session| Command::WithdrawSession { session }),
        1 => (0u64..3).prop_map(|node| Command::ForgetNode { node: NodeId(node) }),
        1 => (0u64..2, 0u64..3).prop_map(|(node, incarnation)| Command::EndOldSessions {
            node: NodeId(node),
            incarnation,
        }),
        1 => (name(), cursor(), offset())
            .prop_map(|(topic, cursor, start)| Command::OpenCursor { topic, cursor, start }),
        1 => (name(), cursor(), offset(), settled).prop_map(
            |(topic, cursor, low_water, settled)| Command::AdvanceCursor {
                topic,
                cursor,
                low_water,
                settled,
            }
        ),
        1 => (name(), cursor(), offset())
            .prop_map(|(topic, cursor, to)| Command::ResetCursor { topic, cursor, to }),
        1 => (name(), cursor()).prop_map(|(topic, cursor)| Command::DeleteCursor { topic, cursor }),
        1 => (name(), topic_settings())
            .prop_map(|(topic, settings)| Command::ConfigureTopic { topic, settings }),
        1 => (name(), queue_settings())
            .prop_map(|(queue, settings)| Command::ConfigureQueue { queue, settings }),
        1 => name().prop_map(|name| Command::Delete { name }),
        1 => (0u32..3, topic_settings(), queue_settings()).prop_map(|(shard_count, topic, queue)| {
            Command::SetDefaults { defaults: ShardDefaults { shard_count, topic, queue } }
        }),
        1 => (0u32..3, number()).prop_map(|(target, upto)| Command::ConfirmOutbox {
            target: ShardId(target),
            upto,
        }),
        3 => metadata_command(),
    ]
}

fn metadata_command() -> impl Strategy<Value = Command> {
    let node = || number().prop_map(NodeId);
    let text = || prop_oneof![Just("a:7600".to_owned()), Just("x".repeat(301))];
    let states = vec![
        NodeState::Up,
        NodeState::Draining,
        NodeState::Gone,
        NodeState::Removed,
    ];
    let state = proptest::sample::select(states);
    prop_oneof![
        4 => (0u8..5, text(), 0u16..3, proptest::option::of(node())).prop_map(
            |(disk, address, feature_level_max, wanted)| Command::RegisterNode {
                disk: DiskId([disk; 16]),
                name: String::new(),
                address,
                zone: String::new(),
                feature_level_max,
                wanted,
            }
        ),
        1 => (node(), state, number()).prop_map(|(node, state, expected_version)| {
            Command::SetNodeState { node, state, expected_version }
        }),
        1 => (small(), vec(node(), 0..12), number()).prop_map(|(shard, replicas, expected_version)| {
            Command::SetPlacement { shard: ShardId(shard), replicas, expected_version }
        }),
        1 => small().prop_map(|replicas| Command::SetReplicas { replicas }),
        1 => any::<u16>().prop_map(|to| Command::RaiseFeatureLevel { to }),
    ]
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let origin = prop_oneof![
        6 => Just(Origin::Node { node: NodeId(1), incarnation: 1 }),
        1 => (0u64..3).prop_map(|incarnation| Origin::Node { node: NodeId(1), incarnation }),
        1 => (0u32..2).prop_map(|shard| Origin::Shard(ShardId(shard))),
    ];
    let first_slot = prop_oneof![6 => 0u32..60, 1 => any::<u32>()];
    (
        origin,
        prop_oneof![0u64..30, any::<u64>()],
        first_slot,
        vec(command(), 0..5),
    )
        .prop_map(|(origin, sequence, first_slot, commands)| Proposal {
            origin,
            sequence,
            first_slot,
            commands,
        })
}

/// A time step, slots' lengths, proposals, a seed.
type Entry = (u64, Vec<u32>, Vec<Proposal>, u64);

fn entry() -> impl Strategy<Value = Entry> {
    let step_ms = prop_oneof![8 => 0u64..130, 1 => 0u64..100_000];
    let slots = vec(prop_oneof![9 => 0u32..50, 1 => Just(u32::MAX)], 0..120);
    (step_ms, slots, vec(proposal(), 0..4), any::<u64>())
}

fn sequence_of(origins: &mut BTreeMap<Origin, u64>, proposal: &Proposal) -> u64 {
    // Mostly the next one, else nearly every proposal would be refused as a whole.
    let next = origins.entry(proposal.origin).or_insert(1);
    match proposal.sequence % 8 {
        0 => proposal.sequence,
        _ => {
            *next += 1;
            *next - 1
        }
    }
}

proptest! {
    #![proptest_config(crate::config(400))]

    #[test]
    fn nothing_that_a_node_could_send_does_harm(
        shard in proptest::sample::select(vec![SHARD, ShardId::METADATA]),
        entries in vec(entry(), 1..40),
    ) {
        let (mut memory, mut replica) = (MemoryRecords::default(), Replica::new(shard));
        let mut origins = BTreeMap::new();
        let (mut now, mut appended, mut released) = (12_345_678, 0u64, 0u64);
        for (index, (step_ms, slots, mut proposals, seed)) in (1u64..).zip(entries) {
            now += step_ms;
            for proposal in &mut proposals {
                proposal.sequence = sequence_of(&mut origins, proposal);
            }
            let head = EntryHead { now: ShardTime(now), wall: WallTime(seed), proposals };
            let index = LogIndex(index);
            let applied = apply_in_memory(shard, index, head.clone(), slots.clone(), &mut memory);
            let mut random = seed | 1;
            replica.evict(&mut random);
            let again = replica.apply(index, head, slots.clone(), seed);
            prop_assert_eq!(format!("{again:?}"), format!("{applied:?}"));
            prop_assert_eq!(replica.digest(), memory.digest());
            appended += slots.iter().map(|bytes| u64::from(*bytes)).sum::<u64>();
            released += applied.released.iter().map(|dead| dead.bytes).sum::<u64>();
            let live = query::shard_stats(&memory).unwrap().live_bytes;
            prop_assert_eq!(live + released, appended);
            for name in steps::queues() {
                if let Some(info) = query::queue_info(&memory, &name).unwrap() {
                    let shown = query::queue_peek(&memory, &name, ShardTime(0), usize::MAX).unwrap();
                    prop_assert!(shown.len() as u64 <= info.available);
                }
            }
        }
    }
}
