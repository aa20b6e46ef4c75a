//! Comparing all that can be seen of a shard with the naive model.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_model::ids::*;
use flotilla_model::name::Name;
use flotilla_model::outcome::*;
use flotilla_model::query;

use crate::{Shards, ask, naive, steps};

impl Shards {
    /// Every node with a session that holds something is listed, and after a while no other.
    fn check_sessions(&self, graves: u64) {
        let mut expected: BTreeMap<NodeId, u64> = BTreeMap::new();
        for session in self.naive.sessions.keys() {
            let incarnation = expected.entry(session.node).or_default();
            *incarnation = session.incarnation.max(*incarnation);
        }
        let listed = ask(query::session_nodes(&self.memory));
        assert!(listed.is_sorted());
        let listed: BTreeMap<_, _> = listed.into_iter().collect();
        for (node, incarnation) in &expected {
            assert!(listed.get(node) >= Some(incarnation), "{node}: {listed:?}");
        }
        if graves == 0 {
            assert!(listed.keys().eq(expected.keys()));
        }
    }

    /// Compares all that can be seen.
    pub fn check(&self, seed: u64) {
        let stats = ask(query::shard_stats(&self.memory));
        assert_eq!(stats.time.0, self.naive.time);
        assert_eq!(stats.topics, self.naive.topics.len() as u64);
        assert_eq!(stats.queues, self.naive.queues.len() as u64);
        self.check_sessions(stats.graves);
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

    fn check_topic(&self, name: &Name, seed: u64) {
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

    fn check_queue(&self, name: &Name) {
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
                .query(|r| query::queue_peek(r, name, ShardTime(0), usize::MAX)),
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
}
