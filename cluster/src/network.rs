//! Raft's way to other nodes. There is none yet: a node runs alone, as the one voter of its groups.
//!
//! A group with one voter never calls these. If a peer was named all the same, it is reported as
//! unreachable, which is what a member without links is; nothing is ever granted on its behalf.

use std::future::Future;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use crate::snapshot::SnapshotHandle;
use crate::types::{Groups, Peer, Vote};

/// Makes clients that reach nobody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoLinks;

/// A peer that cannot be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnreachablePeer(u64);

impl UnreachablePeer {
    fn unreachable(self) -> Unreachable<Groups> {
        Unreachable::from_string(format!("node {} has no link to this node", self.0))
    }
}

impl RaftNetworkFactory<Groups> for NoLinks {
    type Network = UnreachablePeer;

    async fn new_client(&mut self, target: u64, _node: &Peer) -> UnreachablePeer {
        UnreachablePeer(target)
    }
}

impl RaftNetworkV2<Groups> for UnreachablePeer {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Groups>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Groups>, RPCError<Groups>> {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<Groups>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Groups>, RPCError<Groups>> {
        Err(self.unreachable().into())
    }

    // Raft's default grants without asking.
    async fn pre_vote(
        &mut self,
        _request: VoteRequest<Groups>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Groups>, RPCError<Groups>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: openraft::alias::SnapshotOf<Groups, SnapshotHandle>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Groups>, StreamingError<Groups>> {
        Err(self.unreachable().into())
    }

    async fn transfer_leader(
        &mut self,
        _request: TransferLeaderRequest<Groups>,
        _option: RPCOption,
    ) -> Result<openraft::raft::TransferLeaderResponse<Groups>, RPCError<Groups>> {
        Err(self.unreachable().into())
    }
}
