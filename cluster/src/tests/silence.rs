//! Time and sessions over several nodes: wall clocks that go wrong, nodes that fall silent.

use std::sync::atomic::Ordering;

use flotilla_model::ids::NodeId;

use super::fleet::Fleet;
use super::*;

const SHARD: ShardId = ShardId(1);
const DAY_MS: i64 = 86_400_000;

fn fleet() -> Fleet {
    Fleet::of_three(|config| config.shards = 1)
}

fn delayed(delay_ms: u64) -> QueuePolicy {
    QueuePolicy {
        delay_ms,
        ..QueuePolicy::default()
    }
}

/// When a queue of the shard has something to deliver, seen at its leader.
fn wait_for_delivery(fleet: &Fleet, queue: &Name, not: usize) -> Instant {
    fleet.wait_for("the message", |fleet| {
        let leader = fleet.node(fleet.leader_but(SHARD, not));
        !leader.queue_contents(queue).is_empty()
    });
    Instant::now()
}

const NOBODY: usize = usize::MAX;

#[test]
fn wall_clocks_moved_by_a_day_neither_hold_up_timers_nor_hurry_them() {
    let fleet = fleet();
    let queue = Name::queue("later").unwrap();
    for shift_ms in [DAY_MS, -DAY_MS, 3_600_000] {
        let leader = fleet.leader(SHARD);
        let begin = Instant::now();
        fleet.node(leader).enqueue(&queue, &["x"], delayed(3_000));
        // It stays wrong: the node gives up leading, and the next leader goes on.
        fleet.berths[leader].time.shift_ms(shift_ms);
        let came = wait_for_delivery(&fleet, &queue, NOBODY) - begin;
        assert!(came >= Duration::from_millis(2_990), "{came:?}");
        assert!(came < Duration::from_millis(4_000), "{came:?}");
        fleet.wait_for("another leader", |fleet| fleet.leader(SHARD) != leader);
        fleet.berths[leader].time.shift_ms(0);
        let purge = Command::Purge {
            queue: queue.clone(),
        };
        fleet.node(leader).propose(&queue, purge, Vec::new());
        fleet.wait_for("the clocks to agree", |fleet| {
            fleet.nodes().all(|node| {
                let group = &node.cluster.inner.groups[1];
                let offset_us = group.replica.clock_offset_us.load(Ordering::Relaxed);
                offset_us.abs() < 100_000
            })
        });
    }
}

#[test]
fn a_new_leader_counts_the_time_that_the_dead_one_saw() {
    let mut fleet = fleet();
    let queue = Name::queue("later").unwrap();
    let leader = fleet.leader(SHARD);
    // Its successors' wall clocks know nothing of the time: they are of another year.
    for berth in &fleet.berths {
        berth.time.shift_ms(-300 * DAY_MS);
    }
    let begin = Instant::now();
    fleet.node(leader).enqueue(&queue, &["x"], delayed(6_000));
    // Nothing is written meanwhile.
    std::thread::sleep(Duration::from_secs(2));
    fleet.kill(leader);
    let came = wait_for_delivery(&fleet, &queue, NOBODY) - begin;
    assert!(came >= Duration::from_millis(5_990), "{came:?}");
    assert!(came < Duration::from_millis(7_000), "{came:?}");
}

#[test]
fn only_after_all_nodes_were_down_does_time_jump_to_the_wall_clock() {
    let mut fleet = fleet();
    let queue = Name::queue("later").unwrap();
    fleet.node(0).enqueue(&queue, &["x"], delayed(3_600_000));
    (0..3).for_each(|place| fleet.kill(place));
    for berth in &fleet.berths {
        berth.time.shift_ms(3_601_000);
    }
    fleet.start_all();
    let begin = Instant::now();
    wait_for_delivery(&fleet, &queue, NOBODY);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_node_that_falls_silent_loses_what_its_sessions_held_after_five_seconds() {
    let fleet = fleet();
    let queue = Name::queue("held").unwrap();
    let silent = fleet.follower(SHARD);
    let node = fleet.node(silent);
    let mut lost = node.cluster.lost_shards();
    node.enqueue(&queue, &["a", "b"], QueuePolicy::default());
    let session = node.session(1);
    let (_, held) = node.lease(&queue, session, 10);
    assert_eq!(held.len(), 2);
    // As long as it is heard it keeps them, however long it does nothing.
    std::thread::sleep(Duration::from_secs(6));
    let leader = fleet.node(fleet.leader(SHARD));
    assert!(leader.queue_contents(&queue).is_empty());

    let begin = Instant::now();
    fleet.isolate(silent, true);
    let report = node
        .runtime
        .block_on(async { tokio::time::timeout(PATIENCE, lost.recv()).await })
        .unwrap()
        .unwrap();
    let noticed = begin.elapsed();
    assert_eq!(report.shards, [SHARD]);
    assert!(report.generation >= session.incarnation);
    assert!(node.cluster.session_generation() > session.incarnation);
    assert!(noticed < PATIENCE, "{noticed:?}");
    let came = wait_for_delivery(&fleet, &queue, silent) - begin;
    assert!(came >= Duration::from_millis(4_400), "{came:?}");
    // A leader that is elected meanwhile grants the five seconds once more.
    assert!(came < PATIENCE, "{came:?}");

    // Back again, its new sessions are as good as any.
    fleet.isolate(silent, false);
    fleet.wait_until_ready();
    let (_, held) = node.lease(&queue, node.session(2), 10);
    assert_eq!(held.len(), 2);
}

#[test]
fn what_consumers_hold_outlives_the_death_of_the_leader() {
    let mut fleet = fleet();
    let queue = Name::queue("held").unwrap();
    let leader = fleet.leader(SHARD);
    let holder = fleet.follower(SHARD);
    let node = fleet.node(holder);
    let mut lost = node.cluster.lost_shards();
    node.enqueue(&queue, &["a"], QueuePolicy::default());
    let session = node.session(1);
    let (lease, held) = node.lease(&queue, session, 10);
    assert_eq!(held.len(), 1);
    fleet.kill(leader);
    fleet.leader(SHARD);
    // Long enough to hear the next leader, or to give up.
    std::thread::sleep(Duration::from_secs(3));
    let node = fleet.node(holder);
    let settled = node.settle(&queue, session, lease, Settlement::Ack);
    assert!(
        matches!(settled, Outcome::Settled { count: 1, .. }),
        "{settled:?}"
    );
    assert!(lost.try_recv().is_err(), "the failover ended sessions");
}

#[test]
fn a_restarted_node_has_no_part_in_what_its_earlier_life_held() {
    let mut fleet = fleet();
    let queue = Name::queue("held").unwrap();
    let place = fleet.follower(SHARD);
    let node = fleet.node(place);
    node.enqueue(&queue, &["a"], QueuePolicy::default());
    node.lease(&queue, node.session(1), 10);
    fleet.kill(place);
    fleet.restart(place);
    let begin = Instant::now();
    wait_for_delivery(&fleet, &queue, NOBODY);
    // The leader heard of the new life; it did not wait for the silence of the old one to be long.
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_leader_without_a_majority_confirms_nothing() {
    let fleet = fleet();
    let leader = fleet.leader(SHARD);
    let node = fleet.node(leader);
    let shard = node.cluster.shard(SHARD).unwrap();
    node.runtime.block_on(shard.confirm_leadership()).unwrap();
    fleet.isolate(leader, true);
    fleet.wait_for("the lease to end", |_| {
        let confirmed = node.runtime.block_on(shard.confirm_leadership());
        matches!(confirmed, Err(ClusterError::NotLeader { .. }))
    });
    let next = fleet.node(fleet.leader_but(SHARD, leader));
    let shard = next.cluster.shard(SHARD).unwrap();
    next.runtime.block_on(shard.confirm_leadership()).unwrap();
    assert_ne!(shard.leader(), Some(NodeId(0)));
}
