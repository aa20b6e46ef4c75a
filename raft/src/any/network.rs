//! Any network: the clients that reach the peers of a group.

use std::future::Future;

use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::AnySnapshot;
use crate::types::{Groups, Peer, Snapshot, Vote};

type Append = AppendEntriesRequest<Groups>;
type Answer<T> = Result<T, RPCError<Groups>>;
type Answers<'a> = BoxStream<'a, Answer<StreamAppendResult<Groups>>>;
type Installed = Result<SnapshotResponse<Groups>, StreamingError<Groups>>;

trait Client: Send + Sync {
    fn append_entries(
        &mut self,
        request: Append,
        option: RPCOption,
    ) -> BoxFuture<'_, Answer<AppendEntriesResponse<Groups>>>;
    fn stream_append(
        &mut self,
        requests: BoxStream<'static, Append>,
        option: RPCOption,
    ) -> BoxFuture<'_, Answer<Answers<'_>>>;
    fn vote(
        &mut self,
        request: VoteRequest<Groups>,
        option: RPCOption,
    ) -> BoxFuture<'_, Answer<VoteResponse<Groups>>>;
    fn pre_vote(
        &mut self,
        request: VoteRequest<Groups>,
        option: RPCOption,
    ) -> BoxFuture<'_, Answer<VoteResponse<Groups>>>;
    fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<AnySnapshot>,
        cancel: BoxFuture<'static, ReplicationClosed>,
        option: RPCOption,
    ) -> BoxFuture<'_, Installed>;
    fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Groups>,
        option: RPCOption,
    ) -> BoxFuture<'_, Answer<TransferLeaderResponse<Groups>>>;
    fn backoff(&self) -> Option<Backoff>;
}

impl<P: RaftNetworkV2<Groups>> Client for P {
    fn append_entries(
        &mut self,
        request: Append,
        option: RPCOption,
    ) -> BoxFuture<'_, Answer<AppendEntriesResponse<Groups>>> {
        Box::pin(RaftNetworkV2::append_entries(self, request, option))
    }

    fn stream_append(
        &mut self,
        requests: BoxStream<'static, Append>,
        option: RPCOption,
    ) -> BoxFuture<'_, Answer<Answers<'_>>> {
        RaftNetworkV2::stream_append(self, requests, option)
    }

    fn vote(
        &mut self,
        request: VoteRequest<Groups>,
        option: RPCOption,
    ) -> BoxFuture<'_, Answer<VoteResponse<Groups>>> {
        Box::pin(RaftNetworkV2::vote(self, request, option))
    }

    fn pre_vote(
        &mut self,
        request: VoteRequest<Groups>,
        option: RPCOption,
    ) -> BoxFuture<'_, Answer<VoteResponse<Groups>>> {
        Box::pin(RaftNetworkV2::pre_vote(self, request, option))
    }

    fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<AnySnapshot>,
        cancel: BoxFuture<'static, ReplicationClosed>,
        option: RPCOption,
    ) -> BoxFuture<'_, Installed> {
        let snapshot = Snapshot {
            meta: snapshot.meta,
            snapshot: snapshot.snapshot.take(),
        };
        Box::pin(RaftNetworkV2::full_snapshot(
            self, vote, snapshot, cancel, option,
        ))
    }

    fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Groups>,
        option: RPCOption,
    ) -> BoxFuture<'_, Answer<TransferLeaderResponse<Groups>>> {
        Box::pin(RaftNetworkV2::transfer_leader(self, request, option))
    }

    fn backoff(&self) -> Option<Backoff> {
        RaftNetworkV2::backoff(self)
    }
}

/// One peer of a group, however it is reached.
pub struct AnyClient(Box<dyn Client>);

impl RaftNetworkV2<Groups> for AnyClient {
    type SnapshotData = AnySnapshot;

    async fn append_entries(
        &mut self,
        request: Append,
        option: RPCOption,
    ) -> Answer<AppendEntriesResponse<Groups>> {
        self.0.append_entries(request, option).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Answer<Answers<'s>>>
    where
        S: Stream<Item = Append> + Send + Unpin + 'static,
    {
        self.0.stream_append(Box::pin(requests), option)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Groups>,
        option: RPCOption,
    ) -> Answer<VoteResponse<Groups>> {
        self.0.vote(request, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Groups>,
        option: RPCOption,
    ) -> Answer<VoteResponse<Groups>> {
        self.0.pre_vote(request, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<AnySnapshot>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Installed {
        let cancel = Box::pin(cancel);
        self.0.full_snapshot(vote, snapshot, cancel, option).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Groups>,
        option: RPCOption,
    ) -> Answer<TransferLeaderResponse<Groups>> {
        self.0.transfer_leader(request, option).await
    }

    fn backoff(&self) -> Option<Backoff> {
        self.0.backoff()
    }
}

trait Network: Send + Sync {
    fn new_client<'a>(&'a mut self, target: u64, node: &'a Peer) -> BoxFuture<'a, AnyClient>;
    fn new_heartbeat_client<'a>(
        &'a mut self,
        target: u64,
        node: &'a Peer,
    ) -> BoxFuture<'a, AnyClient>;
    fn new_snapshot_client<'a>(
        &'a mut self,
        target: u64,
        node: &'a Peer,
    ) -> BoxFuture<'a, AnyClient>;
}

impl<N> Network for N
where
    N: RaftNetworkFactory<Groups>,
    N::Network: RaftNetworkV2<Groups>,
{
    fn new_client<'a>(&'a mut self, target: u64, node: &'a Peer) -> BoxFuture<'a, AnyClient> {
        Box::pin(async move {
            AnyClient(Box::new(
                RaftNetworkFactory::new_client(self, target, node).await,
            ))
        })
    }

    fn new_heartbeat_client<'a>(
        &'a mut self,
        target: u64,
        node: &'a Peer,
    ) -> BoxFuture<'a, AnyClient> {
        Box::pin(async move {
            AnyClient(Box::new(
                RaftNetworkFactory::new_heartbeat_client(self, target, node).await,
            ))
        })
    }

    fn new_snapshot_client<'a>(
        &'a mut self,
        target: u64,
        node: &'a Peer,
    ) -> BoxFuture<'a, AnyClient> {
        Box::pin(async move {
            AnyClient(Box::new(
                RaftNetworkFactory::new_snapshot_client(self, target, node).await,
            ))
        })
    }
}

/// Whatever reaches the peers of a group.
pub struct AnyNetwork(Box<dyn Network>);

impl AnyNetwork {
    pub fn new<N>(network: N) -> Self
    where
        N: RaftNetworkFactory<Groups>,
        N::Network: RaftNetworkV2<Groups>,
    {
        Self(Box::new(network))
    }
}

impl RaftNetworkFactory<Groups> for AnyNetwork {
    type Network = AnyClient;

    async fn new_client(&mut self, target: u64, node: &Peer) -> AnyClient {
        self.0.new_client(target, node).await
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Peer) -> AnyClient {
        self.0.new_heartbeat_client(target, node).await
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Peer) -> AnyClient {
        self.0.new_snapshot_client(target, node).await
    }
}
