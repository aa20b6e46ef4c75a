//! Peers that have lost entries which they acknowledged.
//!
//! A node may come back without the end of its log: it syncs in intervals and its power was cut, or its last
//! bytes are gone. Raft's leader counts those entries as stored there and knows no way back from that: it
//! would stop, or never send them again. So it does not hear of it. The peer is told to make its replica
//! anew, from a state that covers all that it may have acknowledged.

use std::collections::BTreeSet;

use flotilla_model::ids::NodeId;
use flotilla_model::mutation::{self, Mutation};
use flotilla_storage::GroupId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::RPCError;

use super::group_network::unreachable;
use super::links::Links;
use super::peers::PeerError;
use crate::types::Groups;

impl Links {
    /// What Raft is told in place of a peer's word that it lacks an entry, if the leader here knows that the
    /// peer had it.
    pub(super) fn refute_conflict(
        &self,
        group: GroupId,
        peer: NodeId,
        lacks: u64,
    ) -> Result<(), RPCError<Groups>> {
        let had = self.acknowledged_upto(group, peer);
        // A build that does not count its quorum takes entries for stored that never were.
        if had.is_none_or(|had| had < lacks) || mutation::is_chosen(Mutation::Quorum) {
            return Ok(());
        }
        let is_new = self.inner.forgetful.lock().insert((group, peer));
        if is_new {
            tracing::error!(group = group.0, %peer, entry = lacks, "a replica has lost what it acknowledged");
        }
        let reason = format!("it has lost entry {lacks}, which it had acknowledged");
        Err(unreachable(PeerError::unreachable(reason)))
    }

    /// Up to which entry a peer has acknowledged all, to the leader on this node.
    fn acknowledged_upto(&self, group: GroupId, peer: NodeId) -> Option<u64> {
        let raft = self.inner.groups.read().get(&group)?.raft.clone();
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let acknowledged = metrics.replication.as_ref()?.get(&peer.0)?.as_ref()?;
        Some(acknowledged.index)
    }

    /// The replicas that have lost entries, each once for each time that it said so.
    pub fn take_forgetful(&self) -> BTreeSet<(GroupId, NodeId)> {
        std::mem::take(&mut self.inner.forgetful.lock())
    }
}
