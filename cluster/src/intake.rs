//! The leader's side of forwarded batches: stamps them with shard time and writes them to Raft, those of
//! one conversation in the order in which they came.
//!
//! What is in flight here counts against a budget of its own. The node's own batches have another one:
//! they may be waiting for other nodes, and these for this one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_model::format::{decode_head, encode_head};
use flotilla_model::ids::{NodeId, Origin};
use flotilla_storage::{EntryBody, GroupId, StorageError};
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::attempt::{self, Answer, NotWritten};
use crate::error::ClusterError;
use crate::forward::{Hello, Reply, decode, encode};
use crate::leadership::Lead;
use crate::net::{PeerIdentity, PeerService, Talk};
use crate::replica::{Counters, Replica};

/// Batches of one conversation between arrival and answer. The sender has fewer.
const UNANSWERED_MAX: usize = 16;
/// A batch counts against the budget no longer than this, unless the disk is behind. Where a leader has lost the
/// majority it is in the log by then, and batches for other groups must not wait for that one.
const COUNTED_MAX: Duration = Duration::from_secs(2);
/// The disk is behind when more waits for it than one part in so many of what may.
const BEHIND_PART: u64 = 4;

/// A group, as those who bring it entries need it.
pub(crate) struct Entrance {
    pub replica: Arc<Replica>,
    pub lead: watch::Receiver<Option<Lead>>,
}

/// Answers other nodes' forwarded batches.
pub(crate) struct Intake {
    runtime: Handle,
    /// Group 0 first.
    entrances: Vec<Entrance>,
    budget: Arc<Semaphore>,
    budget_bytes: u64,
}

impl Intake {
    pub fn new(runtime: Handle, entrances: Vec<Entrance>, budget_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            entrances,
            budget: Arc::new(Semaphore::new(
                usize::try_from(budget_bytes).unwrap_or(usize::MAX),
            )),
            budget_bytes,
        })
    }

    fn entrance(&self, group: GroupId) -> Option<&Entrance> {
        self.entrances.get(group.0 as usize)
    }

    async fn converse(self: Arc<Self>, from: NodeId, talk: Talk) {
        let Talk {
            sender,
            mut receiver,
        } = talk;
        let Some(Ok(hello)) = receiver.recv().await else {
            return;
        };
        let group = match decode::<Hello>(&hello) {
            Ok(hello) => GroupId(hello.group),
            Err(what) => {
                tracing::warn!(%from, what, "batches from another node are refused");
                return;
            }
        };
        let Some(entrance) = self.entrance(group) else {
            tracing::warn!(%from, group = group.0, "batches for a group that is not here are refused");
            return;
        };
        let (taken, mut to_answer) = mpsc::channel::<JoinHandle<Answer>>(UNANSWERED_MAX);
        let take = async {
            while let Some(Ok(frame)) = receiver.recv().await {
                let attempt = self.take(entrance, from, frame).await;
                if taken.send(attempt).await.is_err() {
                    break;
                }
            }
        };
        let answer = async {
            let mut attempts = FuturesOrdered::new();
            loop {
                let reply = tokio::select! {
                    Some(answer) = attempts.next() => {
                        // The task is not aborted; a panic leaves open how far it came.
                        let answer: Result<Answer, _> = answer;
                        Reply::of(answer.unwrap_or(Err(NotWritten::Unknown)))
                    }
                    Some(attempt) = to_answer.recv(), if attempts.len() < UNANSWERED_MAX => {
                        attempts.push_back(attempt);
                        continue;
                    }
                    else => return,
                };
                if sender.send(encode(&reply)).await.is_err() {
                    return;
                }
            }
        };
        // Either end of the conversation ends it: what is in Raft's hands goes on.
        tokio::select! {
            () = take => {}
            () = answer => {}
        }
    }

    /// Puts a batch into the log.
    async fn take(&self, entrance: &Entrance, from: NodeId, frame: Bytes) -> JoinHandle<Answer> {
        let bytes = (frame.len() as u64).clamp(1, self.budget_bytes);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // The semaphore is closed only with the node.
        let permit = self.budget.clone().acquire_many_owned(bytes).await;
        let answer = match stamp(entrance, from, frame) {
            Ok((lead, body)) => attempt::write(&lead, body).await,
            Err(refusal) => Box::pin(std::future::ready(Err(refusal))),
        };
        Counters::add(&entrance.replica.counters.forwarded_here, 1);
        // On a task of its own: the budget must not wait until the other side has read its answer.
        let log = entrance.replica.log.clone();
        self.runtime.spawn(async move {
            let mut answer = answer;
            loop {
                if let Ok(answer) = tokio::time::timeout(COUNTED_MAX, &mut answer).await {
                    return answer;
                }
                if log.queued_bytes() < log.config().queue_bytes_max / BEHIND_PART {
                    break;
                }
            }
            drop(permit);
            answer.await
        })
    }
}

impl PeerService for Arc<Intake> {
    fn call(
        &self,
        _from: PeerIdentity,
        _request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(std::future::ready(Err(
            "batches are taken in conversations only".to_owned(),
        )))
    }

    fn talk(&self, from: PeerIdentity, talk: Talk) -> BoxFuture<'static, ()> {
        Box::pin(self.clone().converse(from.node, talk))
    }
}

/// Gives an entry the time of this leader.
fn stamp(entrance: &Entrance, from: NodeId, frame: Bytes) -> Result<(Lead, EntryBody), NotWritten> {
    let replica = &entrance.replica;
    if let Some(reason) = replica.trouble() {
        return Err(NotWritten::Unavailable { reason });
    }
    let Some(lead) = entrance.lead.borrow().clone() else {
        return Err(NotWritten::NotLeader {
            leader: replica.leader_in_term(),
        });
    };
    let invalid = |what: String| NotWritten::Refused(ClusterError::Invalid { what });
    let batch = EntryBody::parse(frame).map_err(|error| invalid(error.to_string()))?;
    let mut head = decode_head(&batch.head(), replica.level_max)
        .map_err(|error| invalid(error.to_string()))?;
    if let Some(what) = impostor(&head, from) {
        return Err(invalid(what));
    }
    let commands = head.proposals.iter().flat_map(|batch| &batch.commands);
    replica
        .check_commands(commands)
        .map_err(NotWritten::Refused)?;
    if batch.slot_count() > 0 {
        // Settlements and the like go on when the disk is full: they make room.
        admit(replica, u64::from(batch.payload_len()))?;
    }
    let slots: Result<Vec<Bytes>, _> = (0..batch.slot_count())
        .map(|slot| batch.slot(slot))
        .collect();
    let slots = slots.map_err(|error| invalid(error.to_string()))?;
    head.now = replica.clock.now();
    head.wall = replica.clock.wall();
    let body = EntryBody::builder()
        .head(encode_head(&head))
        .slots(slots)
        .build()
        .map_err(|error| NotWritten::Refused(ClusterError::from(error)))?;
    Ok((lead, body))
}

/// A node numbers its own batches, and those of no other node.
fn impostor(head: &flotilla_model::command::EntryHead, from: NodeId) -> Option<String> {
    head.proposals
        .iter()
        .find_map(|proposal| match proposal.origin {
            Origin::Node { node, .. } if node != from => {
                Some(format!("node {from} sent a batch of node {node}"))
            }
            _ => None,
        })
}

fn admit(replica: &Replica, bytes: u64) -> Result<(), NotWritten> {
    match replica.log.admission(bytes) {
        Ok(()) => Ok(()),
        Err(StorageError::Failed { reason } | StorageError::FullWaiting { reason }) => {
            Err(NotWritten::Unavailable { reason })
        }
        Err(StorageError::Closed) => Err(NotWritten::Unavailable {
            reason: "the leader is shutting down".to_owned(),
        }),
        Err(error) => Err(NotWritten::Refused(ClusterError::from(error))),
    }
}
