//! Raft's own tests of a log store and a state machine, on ours.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::replay::{open_log, open_replica};
use crate::log_store::ShardLog;
use crate::state_machine::ShardStateMachine;
use crate::types::Groups;
use flotilla_storage::GroupId;

struct Builder;

impl StoreBuilder<Groups, ShardLog, ShardStateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, ShardLog, ShardStateMachine), StorageError<Groups>> {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        let replica = open_replica(&log, GroupId(1), 1 << 20);
        Ok((
            dir,
            ShardLog::new(log, GroupId(1)),
            ShardStateMachine::new(replica),
        ))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_keeps_what_raft_demands_of_it() {
    Suite::test_all(Builder).await.unwrap();
}
