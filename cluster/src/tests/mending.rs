//! What is promised of damaged replicas: they are found, nothing damaged is served while another node has
//! it whole, they are made anew, and what they have lost counts for nothing meanwhile.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use flotilla_storage::CheckpointBatch;

use super::fleet::Fleet;
use super::*;
use crate::checkpoint::checkpoint_now;
use crate::mending::fetch;
use crate::{Finding, ReplicaFinding, Verification};

pub(super) const SHARD: ShardId = ShardId(1);

pub(super) fn fleet() -> Fleet {
    Fleet::of_three(|config| {
        config.shards = 1;
        // Messages are soon read from the disk only.
        config.log.tail_cache_bytes = 1 << 10;
    })
}

pub(super) fn topic() -> Name {
    Name::topic("t").unwrap()
}

pub(super) fn fill(node: &Node, messages: std::ops::Range<u32>) -> Vec<String> {
    let payloads: Vec<String> = messages
        .map(|number| format!("payload {number:05}"))
        .collect();
    for payload in &payloads {
        node.append(&topic(), &[payload]);
    }
    payloads
}

pub(super) fn payloads(contents: Vec<(Offset, String)>) -> Vec<String> {
    contents.into_iter().map(|(_, payload)| payload).collect()
}

pub(super) fn segments(fleet: &Fleet, place: usize) -> Vec<PathBuf> {
    let dir = fleet.berths[place].dir.path().join("log");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "data"))
        .collect();
    paths.sort();
    paths
}

/// Flips a bit of every copy of some bytes in a node's log.
pub(super) fn flip(fleet: &Fleet, place: usize, marker: &str) {
    let mut flipped = 0;
    for path in segments(fleet, place) {
        let bytes = std::fs::read(&path).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let found: Vec<usize> = bytes
            .windows(marker.len())
            .enumerate()
            .filter(|(_, part)| *part == marker.as_bytes())
            .map(|(place, _)| place)
            .collect();
        for place in &found {
            file.write_all_at(&[bytes[*place] ^ 1], *place as u64)
                .unwrap();
        }
        flipped += found.len();
    }
    assert!(flipped > 0, "{marker:?} is not in the log");
}

pub(super) fn verify(node: &Node) -> Verification {
    let run = node.cluster.verify();
    verified(node, run)
}

fn verified(node: &Node, run: u64) -> Verification {
    node.wait_for("the comparison", |node| {
        node.cluster
            .verification()
            .is_some_and(|found| found.run == run && !found.is_running)
    });
    node.cluster.verification().unwrap()
}

fn checkpoint(node: &Node) {
    node.runtime.block_on(node.cluster.checkpoint()).unwrap();
}

#[test]
fn replicas_are_identical_at_one_entry_while_others_are_written() {
    let fleet = fleet();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = fleet
            .nodes()
            .map(|node| {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        node.append(&topic(), &["x"]);
                    }
                })
            })
            .collect();
        // Often: which replica is at the entry when another one has passed it is a matter of luck.
        for node in std::iter::repeat_with(|| fleet.nodes()).take(5).flatten() {
            let found = verify(node);
            assert!(found.is_fine(), "{found:?}");
            let shard = &found.groups[1];
            assert_eq!(shard.replicas.len(), 3);
            let first = &shard.replicas[0];
            let same = |replica: &crate::ReplicaVerification| {
                (replica.messages, replica.records) == (first.messages, first.records)
            };
            assert!(shard.replicas.iter().all(same), "{shard:?}");
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
    });
    let pause = |node: &Node| {
        let metrics = node.cluster.metrics().unwrap();
        metrics
            .groups
            .iter()
            .map(|group| group.apply_pause_max_us)
            .max()
    };
    let longest = fleet.nodes().filter_map(pause).max();
    eprintln!("apply was held up for {longest:?} us at most");
}

#[test]
fn comparisons_that_all_nodes_begin_at_once_do_not_stop_each_other() {
    let fleet = fleet();
    fill(fleet.node(fleet.leader(SHARD)), 0..100);
    for round in 0..5 {
        let runs: Vec<_> = fleet
            .nodes()
            .map(|node| (node, node.cluster.verify()))
            .collect();
        for (node, run) in runs {
            let found = verified(node, run);
            assert!(found.is_fine(), "round {round}: {found:?}");
        }
    }
}

#[test]
fn a_comparison_finds_flipped_bytes_and_has_them_mended() {
    let mut fleet = fleet();
    let victim = fleet.follower(SHARD);
    let other = fleet.leader(SHARD);
    let written = fill(fleet.node(other), 0..100);
    for node in fleet.nodes() {
        checkpoint(node);
    }
    fleet.kill(victim);
    flip(&fleet, victim, &written[42]);
    fleet.restart(victim);
    let id = fleet.node(victim).cluster.node().id;
    let found = verify(fleet.node(other));
    assert!(found.is_fine(), "{found:?}");
    let replicas = &found.groups[1].replicas;
    let replica = replicas.iter().find(|replica| replica.node == id).unwrap();
    let Some(ReplicaFinding::Damaged { messages: 1, .. }) = &replica.mended else {
        panic!("{replica:?}");
    };
    assert!(fleet.node(victim).cluster.health().damage.is_empty());
    // And it is what its disk says.
    fleet.kill(victim);
    fleet.restart(victim);
    assert!(fleet.node(victim).cluster.health().damage.is_empty());
    assert!(verify(fleet.node(victim)).is_fine());
    fleet.make_leader(SHARD, victim);
    assert_eq!(
        payloads(fleet.node(victim).topic_contents(&topic())),
        written
    );
    assert_eq!(fleet.node(victim).cluster.mending().read_elsewhere, 0);
}

/// What waits for its turn while a replica is made anew must not write what is left of the old state.
#[test]
fn a_checkpoint_that_was_due_leaves_a_replica_that_was_made_anew_as_it_is() {
    let fleet = fleet();
    let victim = fleet.node(fleet.follower(SHARD));
    let leader = fleet.node(fleet.leader(SHARD));
    fill(leader, 0..20);
    let inner = &victim.cluster.inner;
    let group = &inner.groups[SHARD.0 as usize];
    let applied = || group.replica.applied_index();
    let leads_at = || {
        leader.cluster.inner.groups[SHARD.0 as usize]
            .replica
            .applied_index()
    };
    victim.wait_for("the first messages", |_| applied() == leads_at());
    // No checkpoint covers these yet, and none can be made.
    let held = victim.runtime.block_on(group.replica.checkpointing.lock());
    fill(leader, 20..30);
    victim.wait_for("the next messages", |_| applied() == leads_at());
    victim.runtime.block_on(group.stop_raft());
    fill(leader, 30..40);
    victim.runtime.block_on(async {
        let links = &inner.links;
        let fetched = fetch(links, leader.cluster.node().id, group, false).await;
        // The first in the queue, and the checkpoint that became due meanwhile the next.
        let mut rebuilt = std::pin::pin!(group.rebuild(fetched.unwrap(), None));
        assert!(futures::poll!(rebuilt.as_mut()).is_pending());
        let mut due = std::pin::pin!(checkpoint_now(group.replica.clone()));
        assert!(futures::poll!(due.as_mut()).is_pending());
        drop(held);
        let (rebuilt, due) = tokio::join!(rebuilt, due);
        rebuilt.unwrap();
        due.unwrap();
    });
    let found = verify(leader);
    assert!(found.is_fine(), "{found:?}");
    let replicas = &found.groups[SHARD.0 as usize].replicas;
    assert!(
        replicas.iter().all(|replica| replica.mended.is_none()),
        "{replicas:?}"
    );
}

/// Cuts, loses or spoils files of a node, and sees it come back whole, without a word of an operator.
fn comes_back_from(spoil: impl Fn(&Fleet, usize)) {
    let mut fleet = fleet();
    let places = fleet.settle_lead(SHARD);
    let (other, victim) = (places[0], places[1]);
    let mut written = fill(fleet.node(other), 0..60);
    for node in fleet.nodes() {
        checkpoint(node);
    }
    written.extend(fill(fleet.node(other), 60..90));
    // A start begins a new segment.
    fleet.kill(victim);
    fleet.restart(victim);
    written.extend(fill(fleet.node(other), 90..91));
    fleet.wait_for("all to be applied", |fleet| {
        fleet.holds(victim, &topic(), 91)
    });
    fleet.kill(victim);
    spoil(&fleet, victim);
    written.extend(fill(fleet.node(other), 91..120));
    fleet.start_these(&[victim]);
    fleet.wait_for("the replicas to be mended", |fleet| {
        let node = fleet.node(victim);
        let suspects = node.cluster.inner.groups.iter().filter(|group| {
            let state = group.replica.log.group_state(group.replica.group);
            state.is_ok_and(|state| state.suspect)
        });
        suspects.count() == 0
    });
    fleet.wait_until_ready();
    let found = verify(fleet.node(other));
    assert!(found.is_fine(), "{found:?}");
    fleet.wait_for("nothing to be reported any more", |fleet| {
        fleet.node(victim).cluster.mending().damaged == 0
    });
    assert!(fleet.node(victim).cluster.mending().mended > 0);
    fleet.make_leader(SHARD, victim);
    written.extend(fill(fleet.node(victim), 120..130));
    assert_eq!(
        payloads(fleet.node(victim).topic_contents(&topic())),
        written
    );
    // It also comes back from this a second time.
    fleet.kill(victim);
    fleet.restart(victim);
    assert!(verify(fleet.node(victim)).is_fine());
}

#[test]
fn a_node_comes_back_from_a_segment_that_was_cut() {
    comes_back_from(|fleet, victim| {
        let path = segments(fleet, victim)
            .into_iter()
            .max_by_key(|path| {
                std::fs::read(path)
                    .unwrap()
                    .iter()
                    .filter(|b| **b != 0)
                    .count()
            })
            .unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let used = std::fs::read(&path)
            .unwrap()
            .iter()
            .rposition(|b| *b != 0)
            .unwrap();
        file.set_len(used as u64 / 2).unwrap();
    });
}

#[test]
fn a_node_comes_back_from_lost_segments() {
    comes_back_from(|fleet, victim| {
        let paths = segments(fleet, victim);
        assert!(paths.len() > 1);
        for path in &paths[..paths.len() - 1] {
            std::fs::remove_file(path).unwrap();
        }
    });
}

#[test]
fn a_node_comes_back_from_a_lost_index() {
    comes_back_from(|fleet, victim| {
        flip(fleet, victim, "payload 00070");
        flip(fleet, victim, "payload 00010");
        let dir = fleet.berths[victim].dir.path();
        std::fs::remove_dir_all(dir.join("index")).unwrap();
    });
}

#[test]
fn a_replica_whose_records_differ_from_the_majority_is_made_anew() {
    let fleet = fleet();
    let victim = fleet.leader(SHARD);
    fill(fleet.node(victim), 0..20);
    fleet.nodes().for_each(checkpoint);
    let group = &fleet.node(victim).cluster.inner.groups[1];
    let replica = &group.replica;
    let (key, mut record) = replica
        .store
        .scan(replica.group, b"")
        .unwrap()
        .nth(1)
        .unwrap()
        .map(|(key, record)| (key, record.to_vec()))
        .unwrap();
    record.push(0);
    let change = CheckpointBatch {
        changes: vec![(key, Some(record.into()))],
        applied: replica.store.applied(replica.group).unwrap().unwrap(),
        released: Vec::new(),
    };
    replica.store.commit(replica.group, change).unwrap();
    let found = verify(fleet.node(victim));
    assert!(found.is_fine(), "{found:?}");
    let id = fleet.node(victim).cluster.node().id;
    let replicas = &found.groups[1].replicas;
    let replica = replicas.iter().find(|replica| replica.node == id).unwrap();
    let Some(ReplicaFinding::Differs { places }) = &replica.mended else {
        panic!("{found:?}");
    };
    assert_eq!(places.len(), 1);
}

#[test]
fn a_node_alone_reports_damage_and_keeps_what_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        Node::start_with(dir.path(), |config| {
            config.shards = 1;
            config.log.tail_cache_bytes = 1 << 10;
        })
    };
    let node = start();
    let written = fill(&node, 0..20);
    node.shut_down();
    let path = std::fs::read_dir(dir.path().join("log")).unwrap().next();
    let path = path.unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    let marker = written[7].as_bytes();
    let at = bytes.windows(marker.len()).position(|part| part == marker);
    bytes[at.unwrap()] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let node = start();
    let found = verify(&node);
    assert!(!found.is_fine());
    assert_eq!(found.groups[0].finding, Finding::Identical);
    assert_eq!(found.groups[1].finding, Finding::Damaged, "{found:?}");
    let replica = &found.groups[1].replicas[0];
    assert_eq!((replica.messages, replica.mended.is_some()), (19, false));
    assert!(node.cluster.health().ready());
    assert_eq!(node.cluster.health().damage.len(), 1);
}
