//! What is promised of a snapshot that another replica takes over.

use flotilla_model::format::FEATURE_LEVEL;
use flotilla_model::ids::{LogIndex, NodeId};
use flotilla_model::machine::apply_in_memory;
use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;

use super::replay::{
    GROUP, Step, Twin, open_log, open_replica, open_replica_up_to, records_of, runtime, topic_name,
};
use super::*;
use crate::snapshot::SnapshotHandle;
use crate::state_machine::ShardStateMachine;
use crate::types::Snapshot;

async fn snapshot_of(twin: &mut Twin) -> Snapshot<SnapshotHandle> {
    let builder = twin.machine.try_create_snapshot_builder(true).await;
    builder.unwrap().build_snapshot().await.unwrap()
}

#[test]
fn a_snapshot_brings_another_replica_all_records_and_live_messages_and_no_more() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (log, other_log) = (open_log(dir.path()), open_log(other_dir.path()));
    runtime().block_on(async {
        let mut twin = Twin::new(&log, 1 << 20);
        for number in 0..40u8 {
            let topic = number % 3;
            twin.run(&Step::Append { topic, count: 2 }, &log).await;
        }
        twin.run(&Step::Delete { topic: 1 }, &log).await;
        let snapshot = snapshot_of(&mut twin).await;
        let other = open_replica(&other_log, GROUP, 1 << 20);
        let mut machine = ShardStateMachine::new(other.clone());
        // The source goes on while its checkpoint is carried over.
        machine
            .install_snapshot(&snapshot.meta, snapshot.snapshot)
            .await
            .unwrap();
        assert_eq!(other.state.all_records(), records_of(&twin.memory));
        assert_eq!(
            machine.applied_state().await.unwrap().0,
            snapshot.meta.last_log_id
        );
        for index in 1..=40u64 {
            let live = other
                .read(|records| query::live_runs(records, LogIndex(index)))
                .await
                .unwrap();
            let expected = log.read_slots(GROUP, index, 0..2);
            let received = other_log.read_slots(GROUP, index, 0..2);
            if live.is_empty() {
                assert!(received.is_err(), "entry {index} was dead and came along");
            } else {
                assert_eq!(received.unwrap(), expected.unwrap(), "entry {index}");
            }
        }
        // The receiver goes on from there.
        twin.replica = other;
        twin.machine = machine;
        let begin = twin.entries.len();
        let (entry, head) = twin.entry(vec![append_command(&topic_name(2), 1)], 1);
        let slot_bytes = vec![format!("payload {} 0", begin + 1).len() as u32];
        let index = LogIndex(entry.log_id.index);
        apply_in_memory(ShardId(GROUP.0), index, head, slot_bytes, &mut twin.memory);
        twin.entries.push(entry);
        twin.apply_missing().await;
        assert_eq!(twin.replica.state.all_records(), records_of(&twin.memory));
    });
}

#[test]
fn a_snapshot_of_a_later_feature_level_stops_its_group_until_a_build_that_follows_it() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (log, other_log) = (open_log(dir.path()), open_log(other_dir.path()));
    runtime().block_on(async {
        let mut twin = Twin::new(&log, 1 << 20);
        twin.run(&Step::Append { topic: 1, count: 1 }, &log).await;
        twin.run(&Step::Raise { to: FEATURE_LEVEL }, &log).await;
        let snapshot = snapshot_of(&mut twin).await;
        let known = FEATURE_LEVEL - 1;
        let told = format!(
            "the state of group 1 is of feature level {FEATURE_LEVEL}, this node follows levels up to {known}"
        );
        let old = open_replica_up_to(&other_log, GROUP, 1 << 20, known);
        let mut machine = ShardStateMachine::new(old.clone());
        let outcome = machine
            .install_snapshot(&snapshot.meta, snapshot.snapshot)
            .await;
        assert!(outcome.is_err());
        let reason = old.failure().unwrap();
        assert!(reason.contains(&told), "{reason}");
        // It is refused at the next start, too.
        let again = open_replica_up_to(&other_log, GROUP, 1 << 20, known);
        let refused = again.check_level(again.feature_level()).unwrap_err();
        assert!(refused.to_string().contains(&told), "{refused}");
        // Nothing is lost by it: the build that it is for goes on with it.
        let new = open_replica(&other_log, GROUP, 1 << 20);
        assert_eq!(new.failure(), None);
        assert_eq!(new.feature_level(), FEATURE_LEVEL);
        assert_eq!(new.state.all_records(), records_of(&twin.memory));
    });
}

#[test]
fn a_snapshot_of_an_earlier_feature_level_brings_that_level() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (log, other_log) = (open_log(dir.path()), open_log(other_dir.path()));
    runtime().block_on(async {
        let mut twin = Twin::new(&log, 1 << 20);
        twin.run(&Step::Raise { to: 2 }, &log).await;
        let snapshot = snapshot_of(&mut twin).await;
        let new = open_replica(&other_log, GROUP, 1 << 20);
        ShardStateMachine::new(new.clone())
            .install_snapshot(&snapshot.meta, snapshot.snapshot)
            .await
            .unwrap();
        assert_eq!(new.feature_level(), 2);
        let known = Command::ForgetNode { node: NodeId(9) };
        assert!(new.check_commands([&known].into_iter()).is_ok());
        let session = SessionId {
            node: NodeId(1),
            incarnation: 1,
            number: 1,
        };
        let how = Settlement::Withdraw { pause_ms: 0 };
        let early = settle_command(&Name::queue("q").unwrap(), session, LeaseId(1), how);
        let refused = new.check_commands([&early].into_iter()).unwrap_err();
        assert!(
            matches!(refused, ClusterError::Invalid { .. }),
            "{refused:?}"
        );
    });
}
