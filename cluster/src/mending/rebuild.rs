//! Puts the state of another replica in the place of a damaged one.

use std::sync::Arc;

use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::fetch::Fetched;
use super::message::broken;
use crate::blocking::blocking;
use crate::codec;
use crate::error::ClusterError;
use crate::group::Group;
use crate::log_store::ShardLog;
use crate::replica::AppliedMark;

impl Group {
    /// Takes over a fetched state and starts Raft on it. With `confirmed_after` it came from a leader that was
    /// confirmed after that run of Raft had ended here, and covers all that this leader had: only then may
    /// votes and entries of this replica be lost, or be thrown away.
    ///
    /// It goes on though nobody waits for it any more: what is written is written, and whoever may take its turn
    /// in the middle writes what is left of the old state over it.
    pub(crate) async fn rebuild(
        self: &Arc<Self>,
        fetched: Fetched,
        confirmed_after: Option<u64>,
    ) -> Result<(), ClusterError> {
        let group = self.clone();
        let rebuilding = async move { group.rebuild_now(fetched, confirmed_after).await };
        let ended = self.node.runtime.spawn(rebuilding).await;
        ended.map_err(broken)?
    }

    async fn rebuild_now(
        self: &Arc<Self>,
        fetched: Fetched,
        confirmed_after: Option<u64>,
    ) -> Result<(), ClusterError> {
        let stopped = self.stop().await;
        // Until what is in memory is that state too: a checkpoint in between would write what is left of
        // the old state over the new one.
        let between = self.halt().await;
        let taken = match confirmed_after {
            // What it has acknowledged since, the leader that was confirmed may not have had.
            Some(run) if run != stopped.run => Err(broken("Raft was started here meanwhile")),
            confirmed => self.take_over_state(fetched, confirmed.is_some()).await,
        };
        // Either way: what was not taken over is there as before.
        let started = self.begin_anew(stopped, between).await;
        taken.and(started)
    }

    /// No checkpoint is made and no entry applied meanwhile.
    async fn take_over_state(
        &self,
        fetched: Fetched,
        is_confirmed: bool,
    ) -> Result<(), ClusterError> {
        let replica = &self.replica;
        let Fetched { import, vote } = fetched;
        let upto = import.manifest().upto;
        let mark: AppliedMark =
            codec::decode("applied mark", &import.manifest().applied).map_err(broken)?;
        let Some(last) = mark
            .log_id
            .filter(|log_id| codec::log_point(log_id) == upto)
        else {
            return Err(broken("the parts of the snapshot contradict each other"));
        };
        let mut log = ShardLog::new(replica.log.clone(), replica.group);
        // Of a group whose state is lost nothing is known, and nothing is kept.
        let state = replica.log.group_state(replica.group).ok();
        let purged = state.as_ref().and_then(|state| state.purged);
        if purged.is_some_and(|purged| purged.index > upto.index) {
            return Err(broken("the snapshot is older than what is purged here"));
        }
        let has_more = state
            .as_ref()
            .and_then(|state| state.last)
            .is_some_and(|last| last.index > upto.index);
        let point = replica.log.point(replica.group, upto.index).ok();
        // What follows an entry that was never committed was not either.
        let is_fork = point.is_some_and(|point| point != upto);
        if has_more && point != Some(upto) && !is_fork && !is_confirmed {
            return Err(broken("the log behind the snapshot does not follow it"));
        }
        blocking("installing a snapshot", move || Ok(import.install()?)).await?;
        log.purge(last).await.map_err(broken)?;
        if has_more && (is_confirmed || is_fork) {
            log.truncate_after(Some(last)).await.map_err(broken)?;
        }
        if is_confirmed {
            let known = log.read_vote().await.map_err(broken)?;
            let term = vote.leader_id().term;
            if known.is_none_or(|known| known.leader_id().term <= term) {
                log.save_vote(&vote).await.map_err(broken)?;
            }
        }
        // Last: a start in between finds the replica damaged as before.
        log.healed().await.map_err(broken)
    }
}
