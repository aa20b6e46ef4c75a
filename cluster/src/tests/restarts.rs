//! What is promised of a group whose Raft is stopped and started again: it runs one at a time, and what is
//! left of an earlier one changes nothing.

use flotilla_storage::{GroupId, LiveSlots, NodeLog};
use openraft::EntryPayload;
use openraft::storage::RaftStateMachine;

use super::fleet::Fleet;
use super::replay::{open_log, open_replica};
use super::*;
use crate::checkpoint::checkpoint;
use crate::codec::{log_id, to_log_entry};
use crate::mending::fetch;
use crate::observer::Role;
use crate::replica::Replica;
use crate::retention::Checkpoints;
use crate::snapshot::SnapshotHandle;
use crate::state_machine::ShardStateMachine;
use crate::types::Entry;

const GROUP: GroupId = GroupId(1);

#[test]
fn a_group_that_two_start_again_at_once_runs_one_raft() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_with(dir.path(), |config| config.shards = 1);
    let topic = Name::topic("t").unwrap();
    node.append(&topic, &["before"]);
    let group = node.cluster.inner.groups[1].clone();
    node.runtime.block_on(async {
        group.stop_raft().await;
        // Both have found it stopped, and wait for the same.
        let held = group.replica.checkpointing.lock().await;
        let mut one = std::pin::pin!(group.restart());
        let mut other = std::pin::pin!(group.restart());
        assert!(futures::poll!(one.as_mut()).is_pending());
        assert!(futures::poll!(other.as_mut()).is_pending());
        drop(held);
        // A second Raft is refused with a panic.
        let (one, other) = tokio::join!(one, other);
        one.unwrap();
        other.unwrap();
    });
    node.append(&topic, &["after"]);
    let contents = node.topic_contents(&topic);
    let payloads: Vec<&str> = contents.iter().map(|(_, payload)| &payload[..]).collect();
    assert_eq!(payloads, ["before", "after"]);
}

/// Broken off in the middle, it would leave what is in memory to be written over what has taken its place.
#[test]
fn a_replica_is_rebuilt_to_the_end_though_nobody_waits_for_it_any_more() {
    let fleet = Fleet::of_three(|config| config.shards = 1);
    let topic = Name::topic("t").unwrap();
    let places = fleet.settle_lead(ShardId(1));
    let (leader, victim) = (fleet.node(places[0]), fleet.node(places[1]));
    leader.append(&topic, &["one"]);
    let inner = &victim.cluster.inner;
    let group = &inner.groups[1];
    victim.runtime.block_on(async {
        let run = group.stop().await.run;
        let from = leader.cluster.node().id;
        let fetched = fetch(&inner.links, from, group, true).await.unwrap();
        // It has begun, and gets no further.
        let between_entries = group.replica.entry_gate.lock().await;
        let mut rebuilding = Box::pin(group.rebuild(fetched, Some(run)));
        assert!(futures::poll!(rebuilding.as_mut()).is_pending());
        drop(rebuilding);
        drop(between_entries);
    });
    victim.wait_for("Raft on the state that was fetched", |_| {
        group.raft().is_some()
    });
    fleet.wait_for("the message", |fleet| fleet.holds(places[1], &topic, 1));
}

/// What this replica has acknowledged since, that leader may not have had.
#[test]
fn a_state_of_a_leader_that_was_confirmed_before_raft_ran_here_again_is_not_taken_over() {
    let fleet = Fleet::of_three(|config| config.shards = 1);
    let topic = Name::topic("t").unwrap();
    let places = fleet.settle_lead(ShardId(1));
    let place = places[1];
    let (leader, victim) = (fleet.node(places[0]), fleet.node(place));
    leader.append(&topic, &["one"]);
    let inner = &victim.cluster.inner;
    let group = &inner.groups[1];
    let fetched = victim.runtime.block_on(async {
        let run = group.stop().await.run;
        let from = leader.cluster.node().id;
        let fetched = fetch(&inner.links, from, group, true).await.unwrap();
        group.restart().await.unwrap();
        (fetched, run)
    });
    leader.append(&topic, &["two"]);
    let log = &group.replica.log;
    let last = |log: &NodeLog| log.group_state(GROUP).unwrap().last.map(|last| last.index);
    let acknowledged = last(&leader.cluster.inner.groups[1].replica.log);
    victim.wait_for("the second message", |_| last(log) >= acknowledged);
    let (fetched, run) = fetched;
    let taken = victim.runtime.block_on(group.rebuild(fetched, Some(run)));
    assert!(taken.is_err());
    assert!(last(log) >= acknowledged);
    fleet.wait_for("the messages", |fleet| fleet.holds(place, &topic, 2));
}

/// A replica whose state covers one entry.
async fn with_a_checkpoint(log: &NodeLog) -> Arc<Replica> {
    let replica = open_replica(log, GROUP, 1 << 20);
    let entry = Entry {
        log_id: log_id(1, 1, 1),
        payload: EntryPayload::Blank,
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    let stored = Box::new(move |outcome: Result<_, _>| sender.send(outcome.is_ok()).unwrap());
    log.append(GROUP, vec![to_log_entry(entry.clone()).unwrap()], stored);
    assert!(receiver.recv().unwrap());
    let mut machine = ShardStateMachine::new(replica.clone());
    let entries = futures::stream::iter([Ok((entry, None))]);
    machine.apply(entries).await.unwrap();
    checkpoint(&replica).await.unwrap();
    replica
}

/// An older one may have taken its place, and what is in memory not be that yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_live_goes_by_the_state_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    let replica = with_a_checkpoint(&log).await;
    replica
        .durable
        .send_modify(|mark| mark.log_id = Some(log_id(50, 1, 1)));
    let replicas = [replica];
    let checkpoints = Checkpoints::new(&log, &replicas);
    assert_eq!(checkpoints.live_slots(GROUP, 1), LiveSlots::None);
    assert_eq!(checkpoints.live_slots(GROUP, 2), LiveSlots::All);
    assert_eq!(checkpoints.live_slots(GroupId(7), 1), LiveSlots::All);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_comes_to_an_earlier_raft_is_refused_and_stops_nothing() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = with_a_checkpoint(&open_log(dir.path())).await;
    let replica = open_replica(&open_log(other_dir.path()), GROUP, 1 << 20);
    let mut earlier = ShardStateMachine::new(replica.clone());
    replica.reset().unwrap();
    let mut present = ShardStateMachine::new(replica.clone());
    let snapshot = || SnapshotHandle::current(&source).unwrap();
    let meta = snapshot().meta;
    let installed = earlier.install_snapshot(&meta, snapshot().snapshot).await;
    assert!(installed.is_err());
    assert_eq!((replica.failure(), replica.applied_index()), (None, 0));
    // The same is fine for the Raft that runs, also after another one.
    for _ in 0..2 {
        let installed = present.install_snapshot(&meta, snapshot().snapshot).await;
        installed.unwrap();
        assert_eq!((replica.failure(), replica.applied_index()), (None, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_on_a_state_that_was_replaced_does_not_stop_the_one_that_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open_replica(&open_log(dir.path()), GROUP, 1 << 20);
    let before = replica.epoch();
    replica.reset().unwrap();
    replica.fail_in(before, "the disk of before");
    assert_eq!(replica.failure(), None);
    replica.fail_in(replica.epoch(), "the disk");
    assert_eq!(replica.failure().as_deref(), Some("the disk"));
}

/// It answers nobody any more: whoever asks is to hear of it, and another node leads.
#[test]
fn a_group_whose_raft_panics_is_out_of_service_with_that_reason() {
    let fleet = Fleet::of_three(|config| config.shards = 1);
    let topic = Name::topic("t").unwrap();
    let shard = ShardId(1);
    let place = fleet.leader(shard);
    let victim = fleet.node(place);
    victim.append(&topic, &["before"]);
    let group = &victim.cluster.inner.groups[1];
    victim.runtime.block_on(async {
        let raft = group.raft().unwrap();
        // It is over before it could say that it has done so.
        let _ = raft.external_request(|_| panic!("for a test")).await;
    });
    victim.wait_for("the group to be out of service", |_| {
        let failure = group.replica.failure();
        failure.is_some_and(|reason| reason.contains("panicked"))
    });
    fleet.wait_for("another leader", |fleet| {
        fleet.berths.iter().enumerate().any(|(other, berth)| {
            let node = berth.node.as_ref().unwrap();
            let role = *node.cluster.inner.groups[1].replica.role.borrow();
            other != place && role == Role::Leader
        })
    });
    // While it has not heard of that one it says that nothing can be done, and nothing is.
    victim.wait_for("a message to be taken through that leader", |victim| {
        let deadline = Instant::now() + PATIENCE;
        let after = vec![append_command(&topic, 1)];
        let shard = victim.shard(&topic);
        let proposing = shard.propose(after, slots(&["after"]), deadline);
        match victim.runtime.block_on(proposing) {
            Err(ClusterError::Unavailable { .. }) => false,
            taken => taken.is_ok(),
        }
    });
}
