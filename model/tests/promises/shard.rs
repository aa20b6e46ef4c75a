//! What a shard promises beside its queues.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::key::Key;
use flotilla_model::machine::EntryRun;
use flotilla_model::name::Name;
use flotilla_model::outcome::*;
use flotilla_model::query;
use flotilla_model::record::Record;
use flotilla_model::records::*;
use flotilla_model::settings::*;

use crate::harness::*;

#[test]
fn a_large_deletion_goes_on_in_later_entries_and_releases_every_byte() {
    let mut shard = Shard::new();
    for _ in 0..2_000 {
        shard.run(append(1));
    }
    shard.run(plain(4_000));
    shard.lease(&jobs(), 500);
    shard.run(enqueue(
        &jobs(),
        500,
        QueuePolicy {
            delay_ms: 1_000_000,
            ..QueuePolicy::default()
        },
    ));
    for name in [log(), jobs()] {
        assert_eq!(
            shard.run(Command::Delete { name: name.clone() }),
            Outcome::Done
        );
        assert!(matches!(
            shard.run(Command::Delete { name }),
            Outcome::Refused(_)
        ));
    }
    assert!(shard.stats().live_bytes > 0);
    assert!(shard.settle_down() > 1);
    let stats = shard.stats();
    assert_eq!((stats.live_bytes, stats.leases, stats.graves), (0, 0, 0));
    shard.now += 2_000_000;
    shard.tick();
    assert_eq!(shard.stats().queues, 0);
}

#[test]
fn a_new_topic_of_a_deleted_name_begins_anew() {
    let mut shard = Shard::new();
    shard.run(append(5));
    let before = query::topic_info(&shard.state, &log()).unwrap().unwrap();
    shard.run(Command::Delete { name: log() });
    assert_eq!(
        query::topic_locate(&shard.state, before.object, Offset(1), 9),
        Ok(Vec::new())
    );
    shard.run(append(1));
    let after = query::topic_info(&shard.state, &log()).unwrap().unwrap();
    assert!(after.object > before.object);
    assert_eq!(after.next, Offset(2));
}

#[test]
fn retention_by_bytes_catches_up_over_entries() {
    let mut shard = Shard::new();
    for _ in 0..1_000 {
        shard.run(append(2));
    }
    let settings = TopicSettings {
        retention_bytes: Some(200),
        ..TopicSettings::default()
    };
    shard.run(Command::ConfigureTopic {
        topic: log(),
        settings,
    });
    shard.settle_down();
    let topic = query::topic_info(&shard.state, &log()).unwrap().unwrap();
    assert_eq!(
        (topic.bytes, topic.messages(), topic.next),
        (200, 20, Offset(2_001))
    );
}

#[test]
fn an_id_that_comes_again_after_its_window_is_remembered_anew() {
    let mut shard = Shard::new();
    let settings = TopicSettings {
        dedup_window_ms: 130,
        ..TopicSettings::default()
    };
    shard.run(Command::ConfigureTopic {
        topic: log(),
        settings,
    });
    let with_id = || Command::Append {
        topic: log(),
        count: 1,
        dedup: vec![(0, DedupId::of(b"id"))],
    };
    let offset = |outcome: Outcome| outcome.offset_at(0).unwrap().0;
    assert_eq!(offset(shard.run(with_id())), 1);
    shard.now += 129;
    assert_eq!(offset(shard.run(with_id())), 1);
    // The window is over, but the timer that forgets the first one is not due before +150.
    shard.now += 1;
    assert_eq!(offset(shard.run(with_id())), 2);
    shard.now += 25;
    assert_eq!(offset(shard.run(with_id())), 2);
    shard.now += 200;
    shard.tick();
    assert_eq!(offset(shard.run(with_id())), 3);
}

#[test]
fn a_batch_is_applied_once_however_often_it_arrives() {
    let mut shard = Shard::new();
    for sequence in 1..=70 {
        shard.apply(node(1), sequence, vec![append(1)]);
    }
    for sequence in 7..=70 {
        let again = shard.apply(node(1), sequence, vec![append(1)]);
        assert_eq!(again.outcomes[0][0].offset_at(0), Some(Offset(sequence)));
        assert_eq!(
            again.released[0].count, 1,
            "the repeat's bytes are not needed"
        );
    }
    let gap = |shard: &mut Shard, origin, sequence| {
        let applied = shard.apply(origin, sequence, vec![append(1)]);
        match &applied.outcomes[0][0] {
            Outcome::Refused(Refusal::OriginGap { last, .. }) => Some(*last),
            _ => None,
        }
    };
    assert_eq!(
        gap(&mut shard, node(1), 6),
        Some(70),
        "its outcome is forgotten"
    );
    assert_eq!(gap(&mut shard, node(1), 72), Some(70));
    assert_eq!(
        gap(&mut shard, node(2), 2),
        Some(0),
        "a new life begins at 1"
    );
    assert_eq!(gap(&mut shard, node(2), 1), None);
    assert_eq!(
        gap(&mut shard, node(1), 71),
        Some(1),
        "the old life is over"
    );
    let topic = query::topic_info(&shard.state, &log()).unwrap().unwrap();
    assert_eq!(topic.next, Offset(72));
}

#[test]
fn a_refused_command_changes_nothing() {
    let mut shard = Shard::new();
    let mut defaults = (*shard.stats().defaults).clone();
    defaults.queue.messages_max = Some(5);
    shard.run(Command::SetDefaults { defaults });
    let full = shard.run(plain(6));
    assert!(matches!(
        full,
        Outcome::Refused(Refusal::QueueFull {
            stored: 0,
            allowed: 5,
            ..
        })
    ));
    assert_eq!(query::queue_info(&shard.state, &jobs()), Ok(None));
    assert_eq!((shard.stats().queues, shard.stats().live_bytes), (0, 0));
    shard.run(plain(5));
    assert_eq!(shard.queue(&jobs()).object, ObjectId(1));
}

#[test]
fn a_proposal_cannot_take_the_slots_of_another() {
    let mut shard = Shard::new();
    let proposal = |sequence, first_slot, count| Proposal {
        origin: node(1),
        sequence,
        first_slot,
        commands: vec![append(count)],
    };
    let applied = shard.entry(
        vec![proposal(1, 0, 3), proposal(2, 2, 1), proposal(3, 3, 2)],
        4,
    );
    let is_refused = |n: usize| matches!(applied.outcomes[n][0], Outcome::Refused(_));
    assert_eq!(
        [is_refused(0), is_refused(1), is_refused(2)],
        [false, true, true]
    );
    assert_eq!(
        applied.released.iter().map(|dead| dead.count).sum::<u32>(),
        1
    );
}

/// State of which nothing is in memory until it is asked for.
#[derive(Default)]
struct Cold {
    store: MemoryRecords,
    loaded: RefCell<BTreeSet<Key>>,
}

impl Records for Cold {
    fn get(&self, key: &Key) -> Lookup {
        match self.loaded.borrow().contains(key) {
            true => self.store.get(key),
            false => Lookup::Missing,
        }
    }
}

impl RecordsMut for Cold {
    fn put(&mut self, key: Key, record: Option<Arc<Record>>) {
        self.loaded.borrow_mut().insert(key);
        self.store.put(key, record);
    }
}

/// Applies commands to a state of which nothing is in memory; returns the rounds of loading it took.
fn rounds_when_cold(mut shard: Shard, commands: Vec<Command>) -> u32 {
    let mut cold = Cold {
        store: std::mem::take(&mut shard.state),
        ..Cold::default()
    };
    rounds(&mut shard, &mut cold, commands)
}

/// Applies commands as the shard's next entry; returns the rounds of loading it took.
fn rounds(shard: &mut Shard, cold: &mut Cold, commands: Vec<Command>) -> u32 {
    let slots: u64 = commands.iter().map(Command::slot_count).sum();
    shard.index += 1;
    shard.sequence += 1;
    let index = LogIndex(shard.index);
    let head = EntryHead {
        now: ShardTime(shard.now),
        wall: WallTime(1),
        proposals: vec![Proposal {
            origin: node(1),
            sequence: shard.sequence,
            first_slot: 0,
            commands,
        }],
    };
    let mut run = EntryRun::new(SHARD, index, head, vec![SLOT_BYTES; slots as usize]);
    let mut rounds = 0;
    loop {
        match run.advance(cold) {
            Ok(Some(applied)) => {
                let outcomes = applied.outcomes[0].iter();
                assert!(
                    !outcomes
                        .into_iter()
                        .any(|o| matches!(o, Outcome::Refused(_)))
                );
                return rounds;
            }
            Ok(None) => {}
            Err(NeedsKeys(keys)) => {
                rounds += 1;
                cold.loaded.borrow_mut().extend(keys);
            }
        }
    }
}

#[test]
fn a_batch_for_many_cold_names_is_loaded_in_few_rounds() {
    let mut shard = Shard::new();
    let commands: Vec<Command> = (0..200)
        .map(|n| Name::queue(&format!("jobs-{n}")).unwrap())
        .map(|name| enqueue(&name, 1, QueuePolicy::default()))
        .collect();
    shard.sequence += 1;
    shard.apply(node(1), 1, commands.clone());
    let rounds = rounds_when_cold(shard, commands);
    assert!(rounds < 25, "{rounds} rounds of loading");
}

#[test]
fn a_cold_settlement_is_loaded_in_few_rounds() {
    let mut shard = Shard::new();
    for _ in 0..1_000 {
        shard.run(enqueue(&jobs(), 1, QueuePolicy::default()));
    }
    let (lease, _) = shard.lease(&jobs(), 1_000);
    let rounds = rounds_when_cold(shard, vec![settle(lease, Settlement::Ack)]);
    assert!(rounds < 25, "{rounds} rounds of loading");
}

#[test]
fn a_cold_batch_with_ids_is_loaded_in_few_rounds() {
    let command = |from: u32| Command::Append {
        topic: log(),
        count: 500,
        dedup: (0..500)
            .map(|place| (place, DedupId::of(&(from + place).to_le_bytes())))
            .collect(),
    };
    let mut shard = Shard::new();
    shard.run(command(0));
    // The ids of the first batch are forgotten while the second is applied.
    shard.now += TopicSettings::default().dedup_window_ms + 50;
    let rounds = rounds_when_cold(shard, vec![command(250)]);
    assert!(rounds < 60, "{rounds} rounds of loading");
}

#[test]
fn cold_retention_is_loaded_in_few_rounds() {
    let mut shard = Shard::new();
    for _ in 0..500 {
        shard.run(append(1));
    }
    let settings = TopicSettings {
        retention_messages: Some(400),
        ..TopicSettings::default()
    };
    let command = Command::ConfigureTopic {
        topic: log(),
        settings,
    };
    let rounds = rounds_when_cold(shard, vec![command]);
    assert!(rounds < 25, "{rounds} rounds of loading");
}

#[test]
fn a_busy_shard_that_is_warm_hardly_asks_the_store() {
    let mut shard = Shard::new();
    let mut cold = Cold::default();
    let mut later = 0;
    for round in 0..500 {
        shard.now += 10;
        let mut lease = lease(&jobs(), session(1), 20);
        if let Command::Lease { visibility_ms, .. } = &mut lease {
            *visibility_ms = Some(60_000);
        }
        let id = LeaseId(round + 1);
        let commands = vec![append(20), plain(20), lease, settle(id, Settlement::Ack)];
        let asked = rounds(&mut shard, &mut cold, commands);
        if round >= 10 {
            later += asked;
        }
    }
    // 10,000 messages in each: without care every new page would cost a look into the store.
    assert!(later < 15, "{later} rounds of loading");
}
