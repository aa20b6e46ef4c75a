//! Random entries, applied by the state machine and by a naive model of it: every outcome and all
//! that can be seen must be the same, on a replica in memory and on one that has to load and to
//! restart all the time.

#![allow(
    clippy::unwrap_used,
    reason = "a panic in a test is its report of failure"
)]

mod compare;
mod hostile;
mod metadata;
mod naive;
mod naive_metadata;
mod replica;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use flotilla_model::command::*;
use flotilla_model::format::{decode_head, encode_head};
use flotilla_model::ids::*;
use flotilla_model::machine::apply_in_memory;
use flotilla_model::outcome::*;
use flotilla_model::query;
use flotilla_model::records::{MemoryRecords, NeedsKeys};
use proptest::prelude::*;

use naive::{BUCKET_MS, Naive};
use replica::Replica;
use steps::{SHARD, Step};

/// A shard in three forms.
struct Shards {
    naive: Naive,
    memory: MemoryRecords,
    replica: Replica,
    index: LogIndex,
    now: u64,
    wall: u64,
    /// Per node: incarnation and last sequence.
    origins: BTreeMap<u64, (u64, u64)>,
    slot_bytes: BTreeMap<LogIndex, Vec<u32>>,
    released: BTreeSet<(LogIndex, u32)>,
}

fn ask<T>(answer: Result<T, NeedsKeys>) -> T {
    answer.expect("all records are in memory")
}

impl Shards {
    fn new() -> Self {
        Self {
            naive: Naive::new(SHARD),
            memory: MemoryRecords::default(),
            replica: Replica::new(SHARD),
            index: LogIndex(0),
            now: 1_000_000 * BUCKET_MS,
            wall: 1_790_000_000_000_000_000,
            origins: BTreeMap::new(),
            slot_bytes: BTreeMap::new(),
            released: BTreeSet::new(),
        }
    }

    /// Applies an entry everywhere and compares.
    fn apply(&mut self, step: &Step) -> Applied {
        self.index.0 += 1 + step.seed % 3;
        self.now = (self.now as i64 + step.time_buckets * BUCKET_MS as i64) as u64;
        self.wall += step.wall_step;
        let (head, slots) = self.entry(step);
        let head = decode_head(&encode_head(&head), u16::MAX).unwrap();
        let expected = self.naive.apply(self.index, &head, &slots);
        let available_before = self.available();
        let applied = apply_in_memory(
            SHARD,
            self.index,
            head.clone(),
            slots.clone(),
            &mut self.memory,
        );
        let outcomes: Vec<&[Outcome]> = applied.outcomes.iter().map(|o| &**o).collect();
        let expected: Vec<&[Outcome]> = expected.iter().map(|o| &**o).collect();
        assert_eq!(outcomes, expected);

        let mut random = step.seed | 1;
        self.replica.evict(&mut random);
        if step.seed.is_multiple_of(5) {
            self.replica.restart();
        }
        let again = self
            .replica
            .apply(self.index, head, slots.clone(), step.seed);
        assert_eq!(format!("{again:?}"), format!("{applied:?}"));
        if step.seed.is_multiple_of(4) {
            assert_eq!(self.replica.digest(), self.memory.digest());
        }

        self.slot_bytes.insert(self.index, slots);
        for dead in &applied.released {
            let slots = &self.slot_bytes[&dead.index];
            let range = dead.first as usize..(dead.first + dead.count) as usize;
            let bytes: u64 = slots[range].iter().map(|bytes| u64::from(*bytes)).sum();
            assert_eq!(dead.bytes, bytes);
            for slot in dead.first..dead.first + dead.count {
                assert!(
                    self.released.insert((dead.index, slot)),
                    "released twice: {dead:?}"
                );
            }
        }
        self.check_wakes(&applied, &available_before);
        applied
    }

    fn entry(&mut self, step: &Step) -> (EntryHead, Vec<u32>) {
        let mut slots = Vec::new();
        let mut proposals = Vec::new();
        for proposed in &step.proposals {
            let origin = self.origins.entry(proposed.node).or_insert((1, 0));
            if proposed.restarts {
                *origin = (origin.0 + 1, 0);
            }
            let sequence = (origin.1 as i64 + 1 + proposed.sequence_error).max(0) as u64;
            if proposed.sequence_error == 0 {
                origin.1 = sequence;
            }
            let first_slot = slots.len() as u32;
            let count: u64 = proposed.commands.iter().map(Command::slot_count).sum();
            slots.extend((0..count).map(|n| ((step.seed >> (n % 50)) % 40) as u32));
            proposals.push(Proposal {
                origin: Origin::Node {
                    node: NodeId(proposed.node),
                    incarnation: origin.0,
                },
                sequence,
                first_slot,
                commands: proposed.commands.clone(),
            });
        }
        let head = EntryHead {
            now: ShardTime(self.now),
            wall: WallTime(self.wall),
            proposals,
        };
        (head, slots)
    }

    fn available(&self) -> BTreeMap<ObjectId, BTreeSet<u64>> {
        let peek = |name: &_| {
            ask(query::queue_peek(
                &self.memory,
                name,
                ShardTime(0),
                usize::MAX,
            ))
        };
        self.naive
            .queues
            .iter()
            .map(|(name, queue)| {
                let messages = peek(name).into_iter().map(|message| message.sequence.0);
                (queue.object, messages.collect())
            })
            .collect()
    }

    /// Whoever waits for messages of a queue is woken when one has become available.
    fn check_wakes(&self, applied: &Applied, before: &BTreeMap<ObjectId, BTreeSet<u64>>) {
        let none = BTreeSet::new();
        for (object, now) in self.available() {
            let before = before.get(&object).unwrap_or(&none);
            let is_woken = applied.changes.iter().any(
                |change| matches!(change, Change::Available { object: woken, .. } if *woken == object),
            );
            assert!(
                is_woken || now.is_subset(before),
                "queue {object} has unannounced messages"
            );
        }
    }

    /// Ends and deletes everything, and lets time pass: then nothing may be left.
    fn tear_down(&mut self) {
        let mut commands: Vec<Command> = Vec::new();
        for name in steps::topics().into_iter().chain(steps::queues()) {
            commands.push(Command::Delete { name });
        }
        for target in [1, 2] {
            let pending = ask(query::outbox_pending(&self.memory, ShardId(target), 10_000));
            if let Some(last) = pending.last() {
                commands.push(Command::ConfirmOutbox {
                    target: ShardId(target),
                    upto: last.id,
                });
            }
        }
        let proposal = steps::ProposalStep {
            node: 9,
            sequence_error: 0,
            restarts: false,
            commands,
        };
        self.apply(&tick(0, vec![proposal]));
        for _ in 0..200 {
            let applied = self.apply(&tick(60, Vec::new()));
            if applied.next_due.is_none() {
                break;
            }
        }
        self.check(0);
        assert_eq!(self.replica.digest(), self.memory.digest());
        let stats = ask(query::shard_stats(&self.memory));
        assert_eq!((stats.graves, stats.live_bytes, stats.leases), (0, 0, 0));
        let is_left = |key: &str| {
            // What a sender, a node and an outbox did must be remembered; all else must be gone.
            !["Meta", "Origin", "Node", "SessionNodes", "Outbox("]
                .iter()
                .any(|kept| key.starts_with(kept))
        };
        let keys = self.memory.iter().map(|(key, _)| format!("{key:?}"));
        assert_eq!(
            keys.filter(|key| is_left(key)).collect::<Vec<_>>(),
            Vec::<String>::new()
        );
    }
}

fn tick(time_buckets: i64, proposals: Vec<steps::ProposalStep>) -> Step {
    Step {
        time_buckets,
        wall_step: 1,
        proposals,
        seed: 1,
    }
}

/// Enough to find each mistake that was tried; more with `PROPTEST_CASES`.
fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig {
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    config
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn a_shard_does_what_the_naive_model_does(
        defaults in steps::defaults(),
        entries in proptest::collection::vec(steps::step(), 1..60),
    ) {
        let mut shards = Shards::new();
        let set_defaults = steps::ProposalStep {
            node: 9,
            sequence_error: 0,
            restarts: false,
            commands: vec![Command::SetDefaults { defaults }],
        };
        shards.apply(&tick(0, vec![set_defaults]));
        for step in &entries {
            shards.apply(step);
            shards.check(step.seed);
        }
        shards.tear_down();
    }
}
