//! Random entries: few names, few ids, so that commands meet each other.

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::name::Name;
use flotilla_model::settings::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// The shard under test, of two.
pub const SHARD: ShardId = ShardId(1);
pub const SHARD_COUNT: u32 = 2;
pub const TOPICS: usize = 2;
pub const QUEUES: usize = 3;

/// An entry before its sequences are decided.
#[derive(Clone, Debug)]
pub struct Step {
    /// In buckets; mostly few, now and then many, and backwards too.
    pub time_buckets: i64,
    pub wall_step: u64,
    pub proposals: Vec<ProposalStep>,
    /// Decides on eviction, checkpoints and the like.
    pub seed: u64,
}

#[derive(Clone, Debug)]
pub struct ProposalStep {
    pub node: u64,
    /// 0: the next sequence; else a repeat or a gap.
    pub sequence_error: i64,
    /// The node starts again.
    pub restarts: bool,
    pub commands: Vec<Command>,
}

pub fn topics() -> Vec<Name> {
    (0..TOPICS)
        .map(|n| Name::topic(&format!("topic-{n}")).unwrap())
        .collect()
}

/// Queues of this shard, and as the last one a queue of the other.
pub fn queues() -> Vec<Name> {
    let mut all = (0..).map(|n| Name::queue(&format!("queue-{n}")).unwrap());
    let is_here = |name: &Name| name.shard(SHARD_COUNT) == SHARD;
    let mut here: Vec<Name> = all.by_ref().filter(is_here).take(QUEUES).collect();
    here.push(all.find(|name| !is_here(name)).unwrap());
    here
}

fn topic() -> impl Strategy<Value = Name> {
    proptest::sample::select(topics())
}

fn queue() -> impl Strategy<Value = Name> {
    proptest::sample::select(queues()[..QUEUES].to_vec())
}

fn any_queue() -> impl Strategy<Value = Name> {
    proptest::sample::select(queues())
}

fn duration() -> impl Strategy<Value = u64> {
    prop_oneof![Just(50), Just(100), Just(250), Just(1_000)]
}

fn session() -> impl Strategy<Value = SessionId> {
    (1u64..3, 1u64..3, 1u64..3).prop_map(|(node, incarnation, number)| SessionId {
        node: NodeId(node),
        incarnation,
        number,
    })
}

fn dedup(count: u32) -> impl Strategy<Value = Vec<(u32, DedupId)>> {
    vec(proptest::option::weighted(0.3, 0u8..6), count as usize).prop_map(|ids| {
        let placed = (0..).zip(ids);
        placed
            .filter_map(|(place, id)| Some((place, DedupId::of(&[id?]))))
            .collect()
    })
}

fn policy() -> impl Strategy<Value = QueuePolicy> {
    let plain = Just(QueuePolicy::default());
    let special = (
        prop_oneof![3 => Just(0), 1 => duration()],
        proptest::option::weighted(0.4, prop_oneof![4 => duration(), 1 => Just(0)]),
        0u32..3,
        proptest::option::weighted(0.3, any_queue()),
    );
    let special =
        special.prop_map(
            |(delay_ms, ttl_ms, receive_count_max, dead_letter)| QueuePolicy {
                delay_ms,
                ttl_ms,
                receive_count_max,
                dead_letter,
            },
        );
    prop_oneof![1 => plain, 2 => special]
}

fn moved() -> impl Strategy<Value = Option<Moved>> {
    let expiry = proptest::option::of((duration(), (0u64..9).prop_map(WallTime)));
    let moved = (any_queue(), expiry).prop_map(|(from, expiry)| Moved { from, expiry });
    proptest::option::weighted(0.1, moved)
}

fn enqueue() -> impl Strategy<Value = Command> {
    let run = (1u32..60, policy(), moved()).prop_map(|(count, policy, moved)| EnqueueRun {
        count,
        policy,
        moved,
    });
    (queue(), vec(run, 1..4)).prop_flat_map(|(queue, runs)| {
        let count = runs.iter().map(|run| run.count).sum();
        dedup(count).prop_map(move |dedup| Command::Enqueue {
            queue: queue.clone(),
            runs: runs.clone(),
            dedup,
        })
    })
}

fn append() -> impl Strategy<Value = Command> {
    (topic(), 1u32..6).prop_flat_map(|(topic, count)| {
        dedup(count).prop_map(move |dedup| Command::Append {
            topic: topic.clone(),
            count,
            dedup,
        })
    })
}

fn lease() -> impl Strategy<Value = Command> {
    let bytes_max = prop_oneof![Just(u64::MAX), 0u64..60];
    let visibility_ms = proptest::option::of(duration());
    (queue(), session(), 1u32..80, bytes_max, visibility_ms).prop_map(
        |(queue, session, messages_max, bytes_max, visibility_ms)| Command::Lease {
            queue,
            session,
            messages_max,
            bytes_max,
            visibility_ms,
        },
    )
}

fn settle() -> impl Strategy<Value = Command> {
    let pause = || prop_oneof![Just(0), duration()];
    let some = vec(1u64..150, 1..12).prop_map(|mut list| {
        list.sort_unstable();
        list.dedup();
        Selection::Sequences(list.into_iter().map(Sequence).collect())
    });
    let which = prop_oneof![2 => Just(Selection::All), 3 => some];
    let how = prop_oneof![
        2 => Just(Settlement::Ack),
        2 => Just(Settlement::Return),
        2 => Just(Settlement::Release),
        1 => any_queue().prop_map(|to| Settlement::Move { to }),
        2 => pause().prop_map(|pause_ms| Settlement::Withdraw { pause_ms }),
        2 => pause().prop_map(|pause_ms| Settlement::Postpone { pause_ms }),
    ];
    (queue(), session(), 1u64..8, which, how).prop_map(|(queue, session, lease, which, how)| {
        Command::Settle {
            queue,
            session,
            lease: LeaseId(lease),
            which,
            how,
        }
    })
}

fn cursor_command() -> impl Strategy<Value = Command> {
    let cursor = || proptest::sample::select(vec!["c0".to_owned(), "c1".to_owned()]);
    let offset = || prop_oneof![4 => 0u64..40, 1 => Just(u64::MAX)].prop_map(Offset);
    let settled = vec((1u64..4, 0u64..3), 0..4).prop_map(|gaps| {
        let mut at = 1;
        let mut ranges = Vec::new();
        for (skip, length) in gaps {
            ranges.push((Offset(at + skip), Offset(at + skip + length)));
            at += skip + length;
        }
        ranges
    });
    prop_oneof![
        3 => (topic(), cursor(), offset())
            .prop_map(|(topic, cursor, start)| Command::OpenCursor { topic, cursor, start }),
        4 => (topic(), cursor(), (1u64..20).prop_map(Offset), settled).prop_map(
            |(topic, cursor, low_water, settled)| Command::AdvanceCursor {
                topic,
                cursor,
                low_water,
                settled,
            }
        ),
        1 => (topic(), cursor(), offset())
            .prop_map(|(topic, cursor, to)| Command::ResetCursor { topic, cursor, to }),
        1 => (topic(), cursor()).prop_map(|(topic, cursor)| Command::DeleteCursor { topic, cursor }),
    ]
}

/// Times that stay the same when settings change: a change of these takes effect later, see there.
const DEDUP_WINDOW_MS: u64 = 300;
const CURSOR_IDLE_MS: u64 = 1_500;

fn topic_settings() -> impl Strategy<Value = TopicSettings> {
    let limit = |most: u64| proptest::option::weighted(0.4, 0..most);
    (
        proptest::option::weighted(0.4, duration()),
        limit(200),
        limit(15),
    )
        .prop_map(
            |(retention_ms, retention_bytes, retention_messages)| TopicSettings {
                retention_ms,
                retention_bytes,
                retention_messages,
                dedup_window_ms: DEDUP_WINDOW_MS,
                cursor_idle_ms: CURSOR_IDLE_MS,
            },
        )
}

fn queue_settings() -> impl Strategy<Value = QueueSettings> {
    let rest = (0u32..4, proptest::option::weighted(0.4, any_queue()));
    let limits = (
        proptest::option::weighted(0.2, 0u64..150),
        proptest::option::weighted(0.2, 0u64..3_000),
    );
    (proptest::option::weighted(0.2, duration()), limits, rest).prop_map(
        |(retention_ms, limits, rest)| QueueSettings {
            retention_ms,
            messages_max: limits.0,
            bytes_max: limits.1,
            receive_count_max: rest.0,
            dead_letter: rest.1,
            dedup_window_ms: DEDUP_WINDOW_MS,
        },
    )
}

pub fn defaults() -> impl Strategy<Value = ShardDefaults> {
    (topic_settings(), queue_settings()).prop_map(|(topic, queue)| ShardDefaults {
        shard_count: SHARD_COUNT,
        topic,
        queue,
    })
}

fn rare_command() -> impl Strategy<Value = Command> {
    let other_shard = ShardId(2);
    prop_oneof![
        2 => queue().prop_map(|queue| Command::Purge { queue }),
        3 => session().prop_map(|session| Command::EndSession { session }),
        3 => session().prop_map(|session| Command::WithdrawSession { session }),
        1 => (1u64..3, 1u64..3).prop_map(|(node, incarnation)| Command::EndOldSessions {
            node: NodeId(node),
            incarnation,
        }),
        1 => (1u16..5).prop_map(|to| Command::RaiseFeatureLevel { to }),
        // The one that proposes seldom: what it says is refused from then on.
        1 => prop_oneof![3 => Just(3), 1 => Just(2)]
            .prop_map(|node| Command::ForgetNode { node: NodeId(node) }),
        2 => (topic(), topic_settings())
            .prop_map(|(topic, settings)| Command::ConfigureTopic { topic, settings }),
        2 => (queue(), queue_settings())
            .prop_map(|(queue, settings)| Command::ConfigureQueue { queue, settings }),
        1 => topic().prop_map(|name| Command::Delete { name }),
        1 => queue().prop_map(|name| Command::Delete { name }),
        1 => (0u64..9).prop_map(move |upto| Command::ConfirmOutbox { target: other_shard, upto }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => append(),
        5 => enqueue(),
        6 => lease(),
        5 => settle(),
        1 => (queue(), session(), 1u64..8, duration()).prop_map(
            |(queue, session, lease, visibility_ms)| Command::ExtendLease {
                queue,
                session,
                lease: LeaseId(lease),
                visibility_ms,
            }
        ),
        3 => cursor_command(),
        3 => rare_command(),
    ]
}

fn proposal() -> impl Strategy<Value = ProposalStep> {
    let sequence_error = prop_oneof![12 => Just(0i64), 1 => -3i64..3, 1 => -70i64..0];
    let commands = vec(command(), 0..6);
    (
        1u64..3,
        sequence_error,
        proptest::bool::weighted(0.02),
        commands,
    )
        .prop_map(|(node, sequence_error, restarts, commands)| ProposalStep {
            node,
            sequence_error,
            restarts,
            commands,
        })
}

pub fn step() -> impl Strategy<Value = Step> {
    let time_buckets = prop_oneof![4 => Just(0i64), 6 => 1i64..6, 1 => 6i64..60, 1 => -3i64..0];
    (
        time_buckets,
        0u64..3_000_000,
        vec(proposal(), 0..4),
        any::<u64>(),
    )
        .prop_map(|(time_buckets, wall_step, proposals, seed)| Step {
            time_buckets,
            wall_step,
            proposals,
            seed,
        })
}
