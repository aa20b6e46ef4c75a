//! Replicas that moved to another node: what they held is given up, and got anew should they be wanted again.
//!
//! ```text
//!   Raft stops --> the leader, confirmed by its voters, says: no member --> state and log are given up
//!       |                       |                                                   |
//!       |                       +--> still one: Raft goes on                        v
//!       +<------------- rebuilt from a confirmed leader, once placed here again   vacant
//! ```
//!
//! What is forgotten here must never count again. So Raft does not run in a vacant group: neither votes nor
//! acknowledgements leave it. The vote stays on disk, and what the replica begins with later covers all that
//! a leader had which was confirmed after that.

use std::sync::Arc;

use openraft::storage::RaftLogStorage;

use crate::blocking::blocking;
use crate::codec;
use crate::error::ClusterError;
use crate::group::{Group, unavailable};
use crate::log_store::ShardLog;
use crate::observer::Role;

impl Group {
    /// Whether nothing is held here of a group that was held once.
    pub(crate) fn is_vacant(&self) -> Result<bool, ClusterError> {
        let replica = &self.replica;
        Ok(replica.log.is_vacated(replica.group)?.is_some())
    }

    /// Whether anything is held here.
    pub(crate) fn is_filled(&self) -> Result<bool, ClusterError> {
        let replica = &self.replica;
        Ok(!self.is_vacant()? && replica.log.group_state(replica.group)?.last.is_some())
    }

    /// Gives up what is held here, if it is confirmed that no one counts on it.
    pub(crate) async fn vacate(
        self: &Arc<Self>,
        confirmed: impl Future<Output = Result<(), ClusterError>>,
    ) -> Result<(), ClusterError> {
        // First: what is acknowledged after the leader was asked would be given up unseen.
        let stopped = self.stop().await;
        let given_up = async {
            confirmed.await?;
            // It goes on though nobody waits for it any more: a checkpoint in the middle of it would write what
            // is left of the old state.
            let group = self.clone();
            let giving_up = async move { group.give_up().await };
            let ended = self.node.runtime.spawn(giving_up).await;
            ended.map_err(|error| unavailable(&error))?
        };
        let outcome = given_up.await;
        if outcome.is_err() {
            let between = self.halt().await;
            self.begin_anew(stopped, between).await?;
        }
        outcome
    }

    async fn give_up(&self) -> Result<(), ClusterError> {
        let replica = &self.replica;
        // In this order everywhere: no checkpoint, then no entry.
        let mut unfinished = replica.checkpointing.lock().await;
        let _between_entries = replica.entry_gate.lock().await;
        let applied = replica.progress.lock().applied.log_id;
        let Some(applied) = applied else {
            return Err(ClusterError::Unavailable {
                reason: "nothing of its log is applied yet".to_owned(),
            });
        };
        let (log, group) = (replica.log.clone(), replica.group);
        blocking("giving up a replica", move || {
            Ok(log.vacate(group, applied.index)?)
        })
        .await?;
        *unfinished = None;
        replica.reset()?;
        replica.set_role(Role::Follower);
        replica.set_next_due(None);
        self.finish_vacating().await
    }

    /// Lets go of the log of a group that was given up. It may have been broken off before.
    pub(crate) async fn finish_vacating(&self) -> Result<(), ClusterError> {
        let replica = &self.replica;
        let state = replica.log.group_state(replica.group)?;
        let Some(upto) = replica.log.is_vacated(replica.group)? else {
            return Ok(());
        };
        if state.purged.is_some_and(|purged| purged.index >= upto) {
            return Ok(());
        }
        let point = replica.log.point(replica.group, upto)?;
        let log_id = codec::log_id(point.index, point.term, point.leader);
        let mut log = ShardLog::new(replica.log.clone(), replica.group);
        log.purge(log_id)
            .await
            .map_err(|error| unavailable(&error))?;
        // Nobody waits for it: the next look at segments comes by itself, too.
        let _ = self.node.retention.try_send(());
        Ok(())
    }
}
