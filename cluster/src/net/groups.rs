//! Answers other nodes' Rafts for the groups of this node.
//!
//! Each stream of entries is its own task: a group that stands still holds up no other. What is taken
//! from the links and not yet stored is bounded per stream and per node, because Raft itself would
//! queue many requests, each with a batch.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_storage::GroupId;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, Streaming};

use super::append;
use super::links::Links;
use super::snapshot_receiver::Receiving;
use super::wire::proto::{AppendAnswer, AppendRequest, RaftAnswer, RaftQuestion, RaftRequest};
use super::withheld;
use crate::codec;
use crate::replica::Replica;
use crate::types::Groups;
use flotilla_raft::Raft;

/// Entry bytes received and not yet answered, of one stream and of all: what is accepted must reach
/// the disk well within a leader's lease.
const STREAM_BYTES_MAX: usize = 4 << 20;
pub(super) const NODE_BYTES_MAX: usize = 64 << 20;
/// Questions of one node that are answered at a time.
const QUESTIONS_MAX: usize = 1_024;
/// Longer than any asker waits: a group that is stuck must not collect questions until no other group of
/// that node is answered.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);

/// A group that runs on this node.
#[derive(Clone)]
pub(super) struct AttachedGroup {
    pub raft: Raft,
    pub replica: Arc<Replica>,
    pub receiving: Arc<Receiving>,
}

impl Links {
    /// Lets peers reach a group's Raft. In place of one that was there before.
    pub fn attach_group(&self, group: GroupId, raft: Raft, replica: Arc<Replica>) {
        let attached = AttachedGroup {
            raft,
            replica,
            receiving: Arc::default(),
        };
        self.inner.groups.write().insert(group, attached);
    }

    /// Peers find the group no more.
    pub fn detach_group(&self, group: GroupId) {
        self.inner.groups.write().remove(&group);
    }

    pub(super) fn group(&self, number: u32) -> Result<AttachedGroup, Status> {
        let attached = self.inner.groups.read().get(&GroupId(number)).cloned();
        attached.ok_or_else(|| Status::unavailable(format!("group {number} does not run here")))
    }

    /// Votes, heartbeats and leadership transfers, from the first request on.
    pub(super) fn answer_raft(
        &self,
        first: RaftRequest,
        rest: Streaming<RaftRequest>,
    ) -> BoxStream<'static, Result<RaftAnswer, Status>> {
        let links = self.clone();
        stream::iter([Ok(first)])
            .chain(rest)
            .map(move |request| {
                let links = links.clone();
                async move {
                    let request = request?;
                    let number = request.number;
                    let answered = links.answer_question(request);
                    let answered = tokio::time::timeout(ANSWER_WAIT_MAX, answered).await;
                    let late = |_| Err(Status::deadline_exceeded("the group does not answer"));
                    Ok(match answered.unwrap_or_else(late) {
                        Ok(body) => RaftAnswer {
                            number,
                            body,
                            failure: None,
                        },
                        Err(status) => RaftAnswer {
                            number,
                            failure: Some(status.message().to_owned()),
                            ..RaftAnswer::default()
                        },
                    })
                }
            })
            .buffer_unordered(QUESTIONS_MAX)
            .boxed()
    }

    async fn answer_question(&self, request: RaftRequest) -> Result<Bytes, Status> {
        let raft = self.group(request.group)?.raft;
        let question = request.question();
        let body = request.body;
        match question {
            RaftQuestion::Heartbeat => {
                let heartbeat = append::decode_heartbeat(body).map_err(malformed)?;
                answer(raft.append_entries(heartbeat).await)
            }
            RaftQuestion::Vote => {
                let vote = codec::decode("vote request", &body).map_err(malformed)?;
                answer(raft.vote(vote).await)
            }
            RaftQuestion::PreVote => {
                let vote = codec::decode("vote request", &body).map_err(malformed)?;
                answer(raft.pre_vote(vote).await)
            }
            RaftQuestion::TransferLeader => {
                let transfer = codec::decode("leadership transfer", &body).map_err(malformed)?;
                answer(raft.handle_transfer_leader(transfer).await)
            }
            RaftQuestion::Unspecified => Err(Status::invalid_argument(
                "a question that this node does not know",
            )),
        }
    }

    /// Entries, from the first request on.
    pub(super) fn answer_append(
        &self,
        first: AppendRequest,
        rest: Streaming<AppendRequest>,
    ) -> Result<BoxStream<'static, Result<AppendAnswer, Status>>, Status> {
        let AttachedGroup { raft, replica, .. } = self.group(first.group)?;
        let intake = Intake {
            replica,
            stream_room: Arc::new(Semaphore::new(STREAM_BYTES_MAX)),
            node_room: self.inner.entry_room.clone(),
            held: Arc::default(),
            failure: Arc::default(),
        };
        let requests = stream::iter([Ok(first)]).chain(rest);
        let answers = raft.stream_append(intake.clone().requests(requests));
        let outlet = Outlet(intake);
        let failure = outlet.0.failure.clone();
        let answers = answers.map(move |answered| {
            outlet.0.release_one();
            let result = answered.map_err(|fatal| stopped(&fatal))?;
            let body = codec::encode(&result).map_err(internal)?;
            Ok(AppendAnswer { body })
        });
        // After the answers to what was understood comes why the rest was not.
        let complaint = stream::once(async move { failure.lock().take() })
            .filter_map(|failure| std::future::ready(failure.map(Err)));
        Ok(answers.chain(complaint).boxed())
    }
}

/// Takes requests from a stream, as many as there is room for.
#[derive(Clone)]
struct Intake {
    replica: Arc<Replica>,
    stream_room: Arc<Semaphore>,
    node_room: Arc<Semaphore>,
    /// Room of the requests that have no answer yet, in their order.
    held: Arc<Mutex<VecDeque<[OwnedSemaphorePermit; 2]>>>,
    /// Why no more is taken, if it is not the end.
    failure: Arc<Mutex<Option<Status>>>,
}

impl Intake {
    fn requests(
        self,
        messages: impl Stream<Item = Result<AppendRequest, Status>> + Send + 'static,
    ) -> impl Stream<Item = AppendEntriesRequest<Groups>> + Send + 'static {
        let state = (messages.boxed(), self);
        stream::unfold(state, |(mut messages, intake)| async move {
            let message = messages.next().await?;
            match intake.admit(message).await {
                Ok(request) => Some((request, (messages, intake))),
                Err(status) => {
                    *intake.failure.lock() = Some(status);
                    None
                }
            }
        })
    }

    async fn admit(
        &self,
        message: Result<AppendRequest, Status>,
    ) -> Result<AppendEntriesRequest<Groups>, Status> {
        let message = message?;
        let bytes: usize = message.bodies.iter().map(Bytes::len).sum();
        let request = append::decode(message).map_err(malformed)?;
        withheld::check(&request, &self.replica).await?;
        let gone = |_| Status::cancelled("nobody waits for the answers");
        let stream = self.stream_room.clone();
        let stream = stream
            .acquire_many_owned(bytes.min(STREAM_BYTES_MAX) as u32)
            .await
            .map_err(gone)?;
        let node = self.node_room.clone();
        let node = node
            .acquire_many_owned(bytes.min(NODE_BYTES_MAX) as u32)
            .await
            .map_err(gone)?;
        self.held.lock().push_back([stream, node]);
        Ok(request)
    }

    fn release_one(&self) {
        self.held.lock().pop_front();
    }
}

/// The side of the answers. When it goes, because the peer did, those who wait for room must wake up.
struct Outlet(Intake);

impl Drop for Outlet {
    fn drop(&mut self) {
        self.0.stream_room.close();
        self.0.held.lock().clear();
    }
}

/// Encodes what Raft says; a Raft that has stopped is as good as not there.
pub(super) fn answer<T: Serialize, E: fmt::Display>(
    outcome: Result<T, E>,
) -> Result<Bytes, Status> {
    let answer = outcome.map_err(|error| stopped(&error))?;
    codec::encode(&answer).map_err(internal)
}

fn stopped(error: &impl fmt::Display) -> Status {
    Status::unavailable(format!("the group has stopped: {error}"))
}

pub(super) fn malformed(error: io::Error) -> Status {
    Status::invalid_argument(crate::error::chain(&error))
}

fn internal(error: io::Error) -> Status {
    Status::internal(error.to_string())
}
