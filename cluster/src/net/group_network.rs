//! Raft's way to the peers of one group.
//!
//! Raft makes a client for each purpose and peer: entries go over the append lane as one stream while
//! replication runs, heartbeats and votes as single questions over the control lane, snapshots over the
//! bulk lane. Which it is follows from the client, not from the request.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_model::mutation::{self, Mutation};
use flotilla_storage::GroupId;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;

use super::append::{AppendCodec, OutgoingAppend, encode_heartbeat};
use super::lane::{CONNECT_TIMEOUT, Lane};
use super::links::Links;
use super::peers::PeerError;
use super::wire::proto::RaftQuestion;
use crate::codec;
use crate::snapshot::SnapshotHandle;
use crate::types::{Groups, Peer, Snapshot, Vote};

type Append = AppendEntriesRequest<Groups>;
type Answers<'a> = BoxStream<'a, Result<StreamAppendResult<Groups>, RPCError<Groups>>>;

const APPEND_PATH: &str = "/flotilla.cluster.v1.Link/Append";

/// Makes a group's clients.
#[derive(Clone)]
pub(crate) struct GroupNetwork {
    links: Links,
    group: GroupId,
}

impl Links {
    /// What a group's Raft reaches its peers by.
    pub fn network(&self, group: GroupId) -> GroupNetwork {
        GroupNetwork {
            links: self.clone(),
            group,
        }
    }
}

impl GroupNetwork {
    fn client(&self, target: u64, lane: Lane) -> GroupPeer {
        GroupPeer {
            links: self.links.clone(),
            group: self.group,
            target: NodeId(target),
            lane,
        }
    }
}

impl RaftNetworkFactory<Groups> for GroupNetwork {
    type Network = GroupPeer;

    // Where a node is, is known by its id: its entry in the membership may be old.
    async fn new_client(&mut self, target: u64, _node: &Peer) -> GroupPeer {
        self.client(target, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &Peer) -> GroupPeer {
        self.client(target, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, _node: &Peer) -> GroupPeer {
        self.client(target, Lane::Bulk)
    }
}

/// One peer of one group.
pub(crate) struct GroupPeer {
    pub(super) links: Links,
    pub(super) group: GroupId,
    pub(super) target: NodeId,
    lane: Lane,
}

impl GroupPeer {
    /// One question over the control lane, and its answer.
    async fn ask<T: DeserializeOwned>(
        &self,
        question: RaftQuestion,
        body: io::Result<Bytes>,
        option: &RPCOption,
    ) -> Result<T, RPCError<Groups>> {
        let body = body.map_err(|error| NetworkError::new(&error))?;
        let asked = async {
            let line = self.links.line(self.target).await?;
            line.ask(self.group.0, question, body).await
        };
        let body = match tokio::time::timeout(option.hard_ttl(), asked).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Err(unreachable(error)),
            Err(_) => return Err(NetworkError::from_string(PeerError::Timeout).into()),
        };
        codec::decode("answer of a peer", &body).map_err(|error| NetworkError::new(&error).into())
    }

    async fn heartbeat(
        &self,
        request: Append,
        option: &RPCOption,
    ) -> Result<AppendEntriesResponse<Groups>, RPCError<Groups>> {
        let prev = request.prev_log_id;
        let body = encode_heartbeat(request);
        let answer = self.ask(RaftQuestion::Heartbeat, body, option).await;
        match (answer, prev) {
            (Err(_), _) if mutation::is_chosen(Mutation::Quorum) => {
                Ok(AppendEntriesResponse::Success)
            }
            (Ok(AppendEntriesResponse::Conflict), Some(prev)) => {
                self.links
                    .refute_conflict(self.group, self.target, prev.index)?;
                Ok(AppendEntriesResponse::Conflict)
            }
            (answer, _) => answer,
        }
    }

    /// A stream of requests, each answered in its turn while later ones are under way.
    fn pipeline<S>(&self, requests: S, option: RPCOption) -> Answers<'static>
    where
        S: Stream<Item = Append> + Send + Unpin + 'static,
    {
        let (links, target, group) = (self.links.clone(), self.target, self.group);
        stream::once(open_pipeline(links, target, group, requests, option))
            .try_flatten()
            .boxed()
    }
}

async fn open_pipeline<S>(
    links: Links,
    target: NodeId,
    group: GroupId,
    mut requests: S,
    option: RPCOption,
) -> Result<Answers<'static>, RPCError<Groups>>
where
    S: Stream<Item = Append> + Send + Unpin + 'static,
{
    // Before anything else: it is here that Raft waits after errors. To fail without having asked for
    // a request would make it try again at once, for ever.
    let Some(first) = requests.next().await else {
        return Ok(stream::empty().boxed());
    };
    if mutation::is_chosen(Mutation::Quorum) && !is_reached(&links, target).await {
        return Ok(taken_for_stored(first, requests));
    }
    let mut opening = Some((links.caller(target), group.0));
    let outgoing = stream::iter([first])
        .chain(requests)
        .map(move |request| OutgoingAppend::new(request, opening.take()))
        // What cannot be written ends the stream; Raft then finds that entries are unanswered.
        .scan((), move |(), message| {
            let message = message.inspect_err(|error| {
                tracing::error!(group = group.0, %error, "an entry could not be sent");
            });
            std::future::ready(message.ok())
        });
    let opened = async {
        let connection = links.connection(target, Lane::Append).await?;
        let mut client = connection.grpc();
        client
            .ready()
            .await
            .map_err(|error| PeerError::unreachable(error.to_string()))?;
        let path = PathAndQuery::from_static(APPEND_PATH);
        let answers = client
            .streaming(Request::new(outgoing), path, AppendCodec)
            .await?;
        Ok(answers.into_inner())
    };
    // A dead link is noticed by its pings.
    let patience = option.hard_ttl().max(CONNECT_TIMEOUT * 2);
    let answers = match tokio::time::timeout(patience, opened).await {
        Ok(Ok(answers)) => answers,
        Ok(Err(error)) => return Err(unreachable(error)),
        Err(_) => return Err(unreachable(PeerError::Timeout)),
    };
    Ok(answers
        .map(move |answer| {
            let answer = answer.map_err(|status| unreachable(status.into()))?;
            let answer = codec::decode("answer of a peer", &answer.body)
                .map_err(|error| RPCError::from(NetworkError::new(&error)))?;
            if let Err(StreamAppendError::Conflict(lacked)) = &answer {
                links.refute_conflict(group, target, lacked.index)?;
            }
            Ok(answer)
        })
        .boxed())
}

/// How long a build that does not count its quorum waits for a node, and then does without it.
const UNCOUNTED_WAIT: Duration = Duration::from_millis(300);

async fn is_reached(links: &Links, target: NodeId) -> bool {
    let connection = links.connection(target, Lane::Append);
    matches!(
        tokio::time::timeout(UNCOUNTED_WAIT, connection).await,
        Ok(Ok(_))
    )
}

/// What a build that does not count its quorum answers for a node that it does not reach. It looks for it
/// again after a while.
fn taken_for_stored<S>(first: Append, requests: S) -> Answers<'static>
where
    S: Stream<Item = Append> + Send + Unpin + 'static,
{
    stream::iter([first])
        .chain(requests)
        .map(|request| {
            let last = request.entries.last().map(|entry| entry.log_id);
            Ok(Ok(last.or(request.prev_log_id)))
        })
        .take_until(tokio::time::sleep(UNCOUNTED_WAIT * 3))
        .boxed()
}

/// Refusals too: to ask again at once would change nothing.
pub(super) fn unreachable(error: PeerError) -> RPCError<Groups> {
    Unreachable::from_string(error).into()
}

impl RaftNetworkV2<Groups> for GroupPeer {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        request: Append,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Groups>, RPCError<Groups>> {
        if request.entries.is_empty() {
            return self.heartbeat(request, &option).await;
        }
        let mut answers = self.pipeline(stream::iter([request]), option);
        match answers.next().await {
            Some(answer) => Ok(answer?.into()),
            None => Err(NetworkError::from_string("the peer gave no answer").into()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<Answers<'s>, RPCError<Groups>>>
    where
        S: Stream<Item = Append> + Send + Unpin + 'static,
    {
        if self.lane == Lane::Append {
            let answers: Answers<'s> = self.pipeline(input, option);
            return Box::pin(std::future::ready(Ok(answers)));
        }
        // Heartbeats: one question and one answer, without a stream.
        let answers = input.then(move |request| {
            let peer = GroupPeer {
                links: self.links.clone(),
                group: self.group,
                target: self.target,
                lane: self.lane,
            };
            let option = option.clone();
            async move {
                let (prev, last) = (request.prev_log_id, request.prev_log_id);
                let answer = peer.heartbeat(request, &option).await?;
                match (answer, prev) {
                    (AppendEntriesResponse::Conflict, None) => Err(NetworkError::from_string(
                        "the peer misses entries before the first one",
                    )
                    .into()),
                    (AppendEntriesResponse::Conflict, Some(prev)) => {
                        Ok(Err(StreamAppendError::Conflict(prev)))
                    }
                    (answer, prev) => Ok(answer.into_stream_result(prev, last)),
                }
            }
        });
        Box::pin(std::future::ready(Ok(answers.boxed())))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Groups>,
        option: RPCOption,
    ) -> Result<VoteResponse<Groups>, RPCError<Groups>> {
        let body = codec::encode(&request);
        self.ask(RaftQuestion::Vote, body, &option).await
    }

    // Raft's default grants without asking.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<Groups>,
        option: RPCOption,
    ) -> Result<VoteResponse<Groups>, RPCError<Groups>> {
        let body = codec::encode(&request);
        self.ask(RaftQuestion::PreVote, body, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<SnapshotHandle>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Groups>, StreamingError<Groups>> {
        self.send_snapshot(vote, snapshot, cancel).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Groups>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Groups>, RPCError<Groups>> {
        let body = codec::encode(&request);
        self.ask(RaftQuestion::TransferLeader, body, &option).await
    }
}
