//! What is promised of a node: what it acknowledged stays, in order and once.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::*;
use crate::retention::Retention;
use crate::{Observer, Role};
use flotilla_model::ids::LogIndex;
use flotilla_model::outcome::Change;
use flotilla_storage::{EntryBody, LogEntry};

#[test]
fn what_was_acknowledged_is_there_after_a_kill_and_after_a_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let topics: Vec<Name> = (0..8)
        .map(|number| Name::topic(&format!("topic-{number}")).unwrap())
        .collect();
    let queue = Name::queue("jobs").unwrap();
    let mut sent = 0;
    for round in 0..6 {
        let node = Node::start(dir.path());
        for topic in &topics {
            let contents = node.topic_contents(topic);
            let expected: Vec<_> = (0..sent)
                .map(|number| (Offset(number + 1), format!("{topic} {number}")))
                .collect();
            assert_eq!(contents, expected, "round {round}");
        }
        let expected: Vec<_> = (0..sent).map(|number| format!("job {number}")).collect();
        assert_eq!(node.queue_contents(&queue), expected, "round {round}");
        for number in sent..sent + 20 {
            for topic in &topics {
                let outcome = node.append(topic, &[&format!("{topic} {number}")]);
                assert_eq!(outcome.offset_at(0), Some(Offset(number + 1)));
            }
            node.enqueue(&queue, &[&format!("job {number}")], QueuePolicy::default());
        }
        sent += 20;
        if round == 2 {
            node.runtime.block_on(node.cluster.checkpoint()).unwrap();
        }
        if round % 2 == 0 {
            node.kill();
        } else {
            node.shut_down();
        }
    }
}

#[test]
fn batches_of_one_caller_are_applied_in_the_order_of_its_calls() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let topic = Name::topic("ordered").unwrap();
    let shard = node.shard(&topic);
    let deadline = Instant::now() + PATIENCE;
    for _ in 0..20 {
        let batches = (0..16).map(|_| {
            let payload = slots(&["x"]);
            shard.propose(vec![append_command(&topic, 1)], payload, deadline)
        });
        let outcomes = node
            .runtime
            .block_on(futures::future::try_join_all(batches))
            .unwrap();
        let offsets: Vec<_> = outcomes
            .iter()
            .map(|outcomes| outcomes[0].offset_at(0).unwrap())
            .collect();
        assert!(offsets.is_sorted(), "{offsets:?}");
    }
}

#[test]
fn a_dropped_call_is_applied_or_not_and_never_blocks_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let topic = Name::topic("dropped").unwrap();
    let shard = node.shard(&topic);
    node.runtime.block_on(async {
        for _ in 0..50 {
            let deadline = Instant::now() + PATIENCE;
            let call = shard.propose(vec![append_command(&topic, 1)], slots(&["x"]), deadline);
            // Polled once or a little longer, then dropped.
            let _ = tokio::time::timeout(Duration::from_micros(50), call).await;
        }
    });
    let outcome = node.append(&topic, &["last"]);
    let last = outcome.offset_at(0).unwrap();
    assert!(last.0 <= 51);
    assert_eq!(node.topic_contents(&topic).len() as u64, last.0);
}

#[test]
fn a_batch_whose_slots_do_not_fit_its_commands_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let topic = Name::topic("misfit").unwrap();
    let shard = node.shard(&topic);
    let deadline = Instant::now() + PATIENCE;
    let misfit = shard.propose(vec![append_command(&topic, 2)], slots(&["one"]), deadline);
    let refused = node.runtime.block_on(misfit);
    assert!(
        matches!(refused, Err(ClusterError::Invalid { .. })),
        "{refused:?}"
    );
    assert_eq!(node.append(&topic, &["one"]).offset_at(0), Some(Offset(1)));
}

#[test]
fn bytes_of_an_entry_that_is_not_committed_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let topic = Name::topic("committed").unwrap();
    node.append(&topic, &["x"]);
    let shard = node.shard(&topic);
    let replica = shard.replica();
    let last = replica
        .log
        .group_state(replica.group)
        .unwrap()
        .last
        .unwrap();
    // What a leader wrote that was deposed before anybody else had it.
    let index = last.index + 1;
    let body = EntryBody::builder().slots(slots(&["never committed"]));
    let entry = LogEntry {
        index,
        term: last.term,
        leader: last.leader,
        kind: 1,
        body: body.build().unwrap(),
    };
    replica
        .log
        .append(replica.group, vec![entry], Box::new(|_| ()));
    assert!(replica.log.read_slots(replica.group, index, 0..1).is_ok());
    let read = shard.read_slots(LogIndex(index), 0..1);
    let read = node.runtime.block_on(read);
    assert!(
        matches!(&read, Err(ClusterError::Unavailable { reason }) if reason.contains("has not come")),
        "{read:?}"
    );
}

#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<String>>,
}

impl Observer for Recorder {
    fn applied(&self, _shard: ShardId, changes: &[Change]) {
        let mut seen = self.seen.lock().unwrap();
        for change in changes {
            if let Change::Appended { name, next, .. } = change {
                seen.push(format!("{name} {next}"));
            }
        }
    }

    fn role(&self, _shard: ShardId, role: Role) {
        self.seen.lock().unwrap().push(format!("{role:?}"));
    }
}

#[test]
fn observers_hear_of_the_role_and_then_of_every_append() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let topic = Name::topic("watched").unwrap();
    let recorder = arc_of(Recorder::default());
    node.shard(&topic).watch(recorder.clone());
    node.append(&topic, &["a", "b"]);
    let seen = recorder.seen.lock().unwrap().clone();
    assert_eq!(seen, ["Leader".to_owned(), format!("{topic} 3")]);
}

#[test]
fn a_node_with_nothing_to_do_proposes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let health = node.cluster.health();
    assert!(health.ready(), "{health:?}");
    let written = |node: &Node| -> Vec<_> {
        let groups = node.cluster.health().groups;
        groups.iter().map(|group| group.last_log).collect()
    };
    // A new node records itself first.
    node.wait_for("half a second in which nothing is written", |node| {
        let before = written(node);
        std::thread::sleep(Duration::from_millis(500));
        before == written(node)
    });
}

#[test]
fn a_second_node_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    assert!(Node::try_start(dir.path(), |_| ()).is_err());
    let topic = Name::topic("still here").unwrap();
    assert_eq!(node.append(&topic, &["x"]).offset_at(0), Some(Offset(1)));
}

#[test]
fn sessions_of_an_earlier_life_give_back_what_they_held() {
    let dir = tempfile::tempdir().unwrap();
    let queue = Name::queue("held").unwrap();
    let node = Node::start(dir.path());
    node.enqueue(&queue, &["a", "b"], QueuePolicy::default());
    let (_, held) = node.lease(&queue, node.session(1), 10);
    assert_eq!(held.len(), 2);
    assert!(node.queue_contents(&queue).is_empty());
    node.kill();
    let node = Node::start(dir.path());
    assert_eq!(node.queue_contents(&queue), ["a", "b"]);
}

#[test]
fn settled_messages_free_their_segments() {
    let dir = tempfile::tempdir().unwrap();
    let queue = Name::queue("busy").unwrap();
    let node = Node::start_with(dir.path(), |config| {
        config.shards = 1;
        config.log.segment_bytes = 256 << 10;
    });
    let payload = "x".repeat(64 << 10);
    for _ in 0..32 {
        node.enqueue(&queue, &[&payload], QueuePolicy::default());
        let (lease, held) = node.lease(&queue, node.session(1), 1);
        assert_eq!(held.len(), 1);
        node.settle(&queue, node.session(1), lease, Settlement::Ack);
    }
    node.runtime.block_on(node.cluster.checkpoint()).unwrap();
    let replica = node.cluster.shards()[0].replica().clone();
    replica.checkpoint_wanted.notify_one();
    node.wait_for("segments to be dropped", |node| {
        // Anything written moves the checkpoint on, and with it the purge point.
        node.append(&Name::topic("tick").unwrap(), &["x"]);
        replica.checkpoint_wanted.notify_one();
        node.cluster.metrics().unwrap().log.segment_bytes < 1 << 20
    });
    assert!(replica.counters.checkpoints.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_segment_with_few_live_messages_is_rewritten_and_these_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, topic) = (Name::queue("busy").unwrap(), Name::topic("kept").unwrap());
    let node = Node::start_with(dir.path(), |config| {
        config.shards = 1;
        config.log.segment_bytes = 256 << 10;
        config.checkpoint.compact_bytes_per_second = 1 << 30;
    });
    let payload = "x".repeat(60 << 10);
    for number in 0..16 {
        // A little that stays among much that goes.
        node.append(&topic, &[&format!("kept {number}")]);
        node.enqueue(&queue, &[&payload], QueuePolicy::default());
    }
    let purge = Command::Purge {
        queue: queue.clone(),
    };
    node.propose(&queue, purge, Vec::new());
    let replica = node.cluster.shards()[0].replica().clone();
    node.wait_for("segments to be rewritten", |node| {
        node.append(&Name::topic("tick").unwrap(), &["x"]);
        replica.checkpoint_wanted.notify_one();
        node.cluster.metrics().unwrap().log.segments_compacted >= 3
    });
    let expected: Vec<_> = (0..16)
        .map(|number| (Offset(number + 1), format!("kept {number}")))
        .collect();
    assert_eq!(node.topic_contents(&topic), expected);
    drop(replica);
    node.kill();
    let node = Node::start_with(dir.path(), |config| config.shards = 1);
    assert_eq!(node.topic_contents(&topic), expected);
}

#[test]
fn a_segment_that_was_dropped_while_another_was_rewritten_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, topic) = (Name::queue("busy").unwrap(), Name::topic("kept").unwrap());
    let node = Node::start_with(dir.path(), |config| {
        config.shards = 1;
        config.log.segment_bytes = 256 << 10;
        // That is done by hand here.
        config.checkpoint.compact_below_percent = 0;
    });
    let payload = "x".repeat(60 << 10);
    for number in 0..16 {
        node.append(&topic, &[&format!("kept {number}")]);
        node.enqueue(&queue, &[&payload], QueuePolicy::default());
    }
    let purge = Command::Purge {
        queue: queue.clone(),
    };
    node.propose(&queue, purge, Vec::new());
    let replica = node.cluster.shards()[0].replica().clone();
    let log = replica.log.clone();
    let groups = &node.cluster.inner.groups;
    let mut retention = Retention {
        log: log.clone(),
        replicas: groups.iter().map(|group| group.replica.clone()).collect(),
        config: crate::CheckpointConfig::default(),
        wanted: tokio::sync::mpsc::channel(1).1,
        settled: std::collections::BTreeMap::new(),
    };
    let checkpoint = |node: &Node| {
        node.append(&Name::topic("tick").unwrap(), &["x"]);
        replica.checkpoint_wanted.notify_one();
    };
    let (mut there, mut rewritten) = (Vec::new(), None);
    node.wait_for("a segment to be rewritten", |node| {
        checkpoint(node);
        there = log.segments().unwrap();
        rewritten = node.runtime.block_on(retention.rewrite_next(None)).unwrap();
        rewritten.is_some()
    });
    let rewritten = rewritten.unwrap().id;
    let delete = Command::Delete {
        name: topic.clone(),
    };
    node.propose(&topic, delete, Vec::new());
    let mut dropped = Vec::new();
    node.wait_for("another one to be dropped", |node| {
        checkpoint(node);
        let now = log.segments().unwrap();
        dropped = there.iter().map(|segment| segment.id).collect();
        dropped.retain(|id| *id > rewritten && !now.iter().any(|segment| segment.id == *id));
        !dropped.is_empty()
    });
    retention.settled.clear();
    let next = retention.rewrite_next(Some(rewritten));
    node.runtime.block_on(next).unwrap();
    // Nothing was tried in vain.
    let settled = &retention.settled;
    assert!(
        !dropped.iter().any(|id| settled.contains_key(id)),
        "{settled:?}"
    );
}
