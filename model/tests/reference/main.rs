//! Random entries, applied by the state machine and by a naive model of it: every outcome and all
//! that can be seen must be the same, on a replica in memory and on one that has to load and to
//! restart all the time.

mod naive;
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
            replica: Replica::default(),
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
        let head = decode_head(&encode_head(&head)).unwrap();
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
        if step.seed % 5 == 0 {
            self.replica.restart();
        }
        let again = self
            .replica
            .apply(self.index, head, slots.clone(), step.seed);
        assert_eq!(format!("{again:?}"), format!("{applied:?}"));
        assert_eq!(self.replica.digest(), self.memory.digest());

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
        let peek = |name: &_| ask(query::queue_peek(&self.memory, name, usize::MAX));
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

    /// Compares all that can be seen.
    fn check(&self, seed: u64) {
        let stats = ask(query::shard_stats(&self.memory));
        assert_eq!(stats.time.0, self.naive.time);
        assert_eq!(stats.topics, self.naive.topics.len() as u64);
        assert_eq!(stats.queues, self.naive.queues.len() as u64);
        for name in steps::topics() {
            self.check_topic(&name, seed);
        }
        for name in steps::queues() {
            self.check_queue(&name);
        }
        for target in [ShardId(1), ShardId(2)] {
            let pending = ask(query::outbox_pending(&self.memory, target, 1_000));
            let expected = self.naive.outbox.get(&target).into_iter().flatten();
            let expected: Vec<_> = expected
                .map(|(id, entry)| query::OutboxItem {
                    id: *id,
                    queue: entry.queue.clone(),
                    at: entry.at,
                    policy: entry.policy.clone(),
                    moved: entry.moved.clone(),
                })
                .collect();
            assert_eq!(pending, expected);
        }
        let mut objects: Vec<ObjectId> = self.naive.topics.values().map(|t| t.object).collect();
        objects.extend(self.naive.queues.values().map(|q| q.object));
        objects.sort_unstable();
        let mut listed = Vec::new();
        while let page = ask(query::objects(&self.memory, listed.last().copied(), 2))
            && !page.is_empty()
        {
            listed.extend(page.into_iter().map(|info| info.object));
        }
        assert_eq!(listed, objects);
        self.check_live(stats.graves == 0, stats.live_bytes);
    }

    fn check_live(&self, graves_are_empty: bool, live_bytes: u64) {
        let mut live = BTreeSet::new();
        for (index, slots) in &self.slot_bytes {
            for run in ask(query::live_runs(&self.memory, *index)) {
                for slot in run.first..run.first + run.count {
                    assert!(ask(query::is_live(&self.memory, *index, slot)));
                    let bytes = slots[slot as usize];
                    live.insert(MessageRef {
                        index: *index,
                        slot,
                        bytes,
                    });
                }
            }
            // Each slot is live or released, never both.
            for slot in 0..slots.len() as u32 {
                let bytes = slots[slot as usize];
                let is_live = live.contains(&MessageRef {
                    index: *index,
                    slot,
                    bytes,
                });
                assert_ne!(is_live, self.released.contains(&(*index, slot)));
            }
        }
        assert_eq!(
            live_bytes,
            live.iter().map(|at| u64::from(at.bytes)).sum::<u64>()
        );
        let expected = self.naive.live();
        if graves_are_empty {
            assert_eq!(live, expected);
        } else {
            assert!(live.is_superset(&expected));
        }
    }

    fn check_topic(&self, name: &flotilla_model::name::Name, seed: u64) {
        let info = ask(query::topic_info(&self.memory, name));
        assert_eq!(
            self.replica
                .query(|records| query::topic_info(records, name)),
            info
        );
        let Some(expected) = self.naive.topics.get(name) else {
            assert_eq!(info, None);
            return;
        };
        let info = info.expect("the topic exists");
        let object = info.object;
        assert_eq!(object, expected.object);
        assert_eq!((info.first.0, info.next.0), (expected.first, expected.next));
        assert_eq!(info.bytes, expected.bytes());
        assert_eq!(*info.settings, expected.settings);
        let from = Offset(seed % (expected.next + 2));
        let located = self
            .replica
            .query(|r| query::topic_locate(r, object, from, 1_000));
        let mut messages = Vec::new();
        for record in &located {
            for n in 0..record.count {
                let offset = record.first.0 + u64::from(n);
                messages.push((offset, record.index, record.first_slot + n, record.wall.0));
            }
        }
        let kept = expected
            .messages()
            .filter(|(offset, _, _)| *offset >= from.0);
        let kept: Vec<_> = kept
            .map(|(offset, at, wall)| (offset, at.index, at.slot, wall))
            .collect();
        assert_eq!(messages, kept);
        let few = ask(query::topic_locate(&self.memory, object, from, 2));
        assert_eq!(few, located[..located.len().min(2)]);
        let wall = self.wall - seed % 30_000_000;
        let later = expected.messages().find(|(_, _, at)| *at >= wall);
        assert_eq!(
            ask(query::topic_offset_at_wall(
                &self.memory,
                object,
                WallTime(wall)
            )),
            Some(Offset(later.map_or(expected.next, |(offset, _, _)| offset)))
        );
        let mut cursors = Vec::new();
        while let page = ask(query::cursors(
            &self.memory,
            name,
            cursors
                .last()
                .map(|cursor: &query::CursorInfo| cursor.place),
            1,
        )) && !page.is_empty()
        {
            cursors.extend(page);
        }
        assert_eq!(cursors.len(), expected.cursors.len());
        for cursor in cursors {
            let expected = &expected.cursors[&*cursor.name];
            assert_eq!(cursor.low_water.0, expected.low_water);
            assert_eq!(cursor.settled, expected.settled);
            assert_eq!(cursor.moved_at.0, expected.moved_at);
            let found = ask(query::cursor_get(&self.memory, name, &cursor.name));
            assert_eq!(found, Some(cursor));
        }
    }

    fn check_queue(&self, name: &flotilla_model::name::Name) {
        let info = ask(query::queue_info(&self.memory, name));
        let Some(expected) = self.naive.queues.get(name) else {
            assert_eq!(info, None);
            return;
        };
        let info = info.expect("the queue exists");
        assert_eq!(info.object, expected.object);
        assert_eq!(info.next_sequence.0, expected.next);
        assert_eq!(info.available, expected.available().count() as u64);
        assert_eq!(info.leased, expected.messages.len() as u64 - info.available);
        assert_eq!(
            info.delayed,
            expected.delayed.values().map(Vec::len).sum::<usize>() as u64
        );
        assert_eq!(info.bytes, expected.bytes());
        assert_eq!(*info.settings, expected.settings);
        let totals = naive::queue::Totals {
            enqueued: info.enqueued_total,
            delivered: info.delivered_total,
            acked: info.acked_total,
            returned: info.returned_total,
            expired: info.expired_total,
            dead_lettered: info.dead_lettered_total,
            purged: info.purged_total,
        };
        assert_eq!(totals, expected.totals);
        let now = self.naive.time;
        let shown: Vec<LeasedMessage> = expected
            .available()
            .filter(|(_, message)| !message.is_expired(now))
            .map(|(sequence, message)| expected.shown(sequence, message))
            .collect();
        assert_eq!(
            self.replica
                .query(|r| query::queue_peek(r, name, usize::MAX)),
            shown
        );
        for lease in 1..30 {
            let found = ask(query::lease_get(&self.memory, name, LeaseId(lease)));
            let Some(expected) = expected.leases.get(&lease) else {
                assert_eq!(found, None);
                continue;
            };
            let found = found.expect("the lease exists");
            assert_eq!(found.session, expected.session);
            assert_eq!(found.deadline.map(|at| at.0), expected.deadline);
            let held: BTreeSet<u64> = found.sequences.iter().map(|s| s.0).collect();
            assert_eq!(held, expected.held);
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
        let stats = ask(query::shard_stats(&self.memory));
        assert_eq!((stats.graves, stats.live_bytes, stats.leases), (0, 0, 0));
        let is_left = |key: &str| {
            // What a sender, a node and an outbox did must be remembered; all else must be gone.
            !["Meta", "Origin", "Node", "Outbox("]
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

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
