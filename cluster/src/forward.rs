//! The way of a batch to a leader on another node.
//!
//! ```text
//!   proposer -- entry --> ForwardLink == one conversation per (leader, group) ==> intake --> Raft
//!            <- answer --                                                     <--
//! ```
//!
//! A batch travels as the entry that it would be in this node's own log, without a time: its origin and
//! number in the head, the messages' bytes as its slots. The leader answers in the order in which the
//! batches came, so that answers need no numbers. When the conversation breaks, what was sent may be in
//! the log or not.

use std::collections::VecDeque;
use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_model::outcome::Outcome;
use flotilla_storage::{EntryBody, GroupId};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::attempt::{Answer, NotWritten};
use crate::config::INFLIGHT_ENTRIES;
use crate::error::ClusterError;
use crate::net::{Lane, PeerError, Peers, ServiceId, Talk};

/// The first byte of each message but the entries, which have a version of their own.
const VERSION: u8 = 1;
/// Most memory that the lists of an answer may claim while it is decoded.
const ANSWER_MEMORY_MAX: usize = 64 << 20;
/// After the leader could not be reached, before it is tried again.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Opens a conversation: which group the entries are for.
#[derive(Debug, Encode, Decode)]
pub(crate) struct Hello {
    pub group: u32,
}

/// What the leader's side says to one batch.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Reply {
    /// Outcomes per proposal, per command.
    Applied(Vec<Vec<Outcome>>),
    /// Not logged; who leads in which term, as far as that node knows.
    NotLeader(Option<(u64, u64)>),
    /// It may be in the log.
    Unknown,
    /// Not logged: free bytes, and bytes held in reserve.
    Full(u64, u64),
    /// Not logged, since the group cannot write there now.
    Unavailable(String),
    /// Not logged: what is wrong with it.
    Invalid(String),
    /// Not logged: bytes, and bytes allowed.
    TooLarge(u64, u64),
}

pub(crate) fn encode<T: Encode>(message: &T) -> Bytes {
    let mut bytes = vec![VERSION];
    bincode::encode_into_std_write(message, &mut bytes, bincode::config::standard())
        .expect("writing to memory cannot fail and every message can be encoded");
    Bytes::from(bytes)
}

pub(crate) fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            let config = bincode::config::standard().with_limit::<ANSWER_MEMORY_MAX>();
            bincode::decode_from_slice(rest, config)
                .map(|(message, _)| message)
                .map_err(|error| error.to_string())
        }
        Some((version, _)) => Err(format!(
            "message version {version} is not known, this build knows {VERSION}"
        )),
        None => Err("it is empty".to_owned()),
    }
}

impl Reply {
    pub fn of(answer: Answer) -> Self {
        match answer {
            Ok(outcomes) => Self::Applied(outcomes.iter().map(|per| per.to_vec()).collect()),
            Err(NotWritten::NotLeader { leader }) => {
                Self::NotLeader(leader.map(|(term, node)| (term, node.0)))
            }
            Err(NotWritten::Unknown | NotWritten::Stopped { logged: true }) => Self::Unknown,
            Err(NotWritten::Stopped { logged: false }) => Self::NotLeader(None),
            Err(NotWritten::Unavailable { reason }) => Self::Unavailable(reason),
            Err(NotWritten::Refused(error)) => match error {
                ClusterError::Full { free, reserve } => Self::Full(free, reserve),
                ClusterError::TooLarge { bytes, bytes_max } => Self::TooLarge(bytes, bytes_max),
                ClusterError::Invalid { what } => Self::Invalid(what),
                other => Self::Unavailable(other.to_string()),
            },
        }
    }

    fn into_answer(self) -> Answer {
        Err(match self {
            Self::Applied(outcomes) => {
                return Ok(outcomes.into_iter().map(Into::into).collect());
            }
            Self::NotLeader(leader) => NotWritten::NotLeader {
                leader: leader.map(|(term, node)| (term, NodeId(node))),
            },
            Self::Unknown => NotWritten::Unknown,
            Self::Unavailable(reason) => NotWritten::Unavailable { reason },
            Self::Full(free, reserve) => NotWritten::Refused(ClusterError::Full { free, reserve }),
            Self::TooLarge(bytes, bytes_max) => {
                NotWritten::Refused(ClusterError::TooLarge { bytes, bytes_max })
            }
            Self::Invalid(what) => NotWritten::Refused(ClusterError::Invalid { what }),
        })
    }
}

struct Job {
    body: EntryBody,
    answer: oneshot::Sender<Answer>,
}

/// The conversation with one leader about one group, made when it is first needed. Dropping it gives up
/// what has no answer yet.
pub(crate) struct ForwardLink {
    pub leader: NodeId,
    jobs: mpsc::Sender<Job>,
    task: JoinHandle<()>,
}

impl ForwardLink {
    /// To be called on the node's runtime.
    pub fn new(peers: Peers, leader: NodeId, group: GroupId) -> Self {
        let (jobs, queue) = mpsc::channel(INFLIGHT_ENTRIES);
        let task = tokio::spawn(run(peers, leader, group, queue));
        Self { leader, jobs, task }
    }

    /// Sends an entry after those before it. Gives it back when the queue is full or the link ended.
    pub fn send(&self, body: EntryBody) -> BoxFuture<'static, Answer> {
        let (answer, answered) = oneshot::channel();
        let queued = self.jobs.try_send(Job { body, answer });
        Box::pin(async move {
            if queued.is_err() {
                return Err(NotWritten::NotLeader { leader: None });
            }
            answered.await.unwrap_or(Err(NotWritten::Unknown))
        })
    }
}

impl Drop for ForwardLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Waiting = Mutex<VecDeque<oneshot::Sender<Answer>>>;

async fn run(peers: Peers, leader: NodeId, group: GroupId, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.recv().await {
        let talk = match open(&peers, leader, group).await {
            Ok(talk) => talk,
            Err(error) => {
                // Nothing was sent.
                tracing::debug!(group = group.0, %leader, %error, "the leader is not reached");
                let reason = format!("its leader, node {leader}, is not reached: {error}");
                let answer = Err(NotWritten::Unavailable { reason });
                let _ = first.answer.send(answer);
                tokio::time::sleep(CONNECT_PAUSE).await;
                continue;
            }
        };
        let waiting = Waiting::default();
        let Talk {
            sender,
            mut receiver,
        } = talk;
        let send = async {
            let mut next = Some(first);
            while let Some(job) = next {
                // Before it is sent: its answer may be quick.
                waiting.lock().push_back(job.answer);
                if sender.send(job.body.to_bytes()).await.is_err() {
                    return false;
                }
                next = jobs.recv().await;
            }
            true
        };
        let receive = async {
            while let Some(Ok(frame)) = receiver.recv().await {
                let answer = match decode::<Reply>(&frame) {
                    Ok(reply) => reply.into_answer(),
                    Err(what) => {
                        tracing::error!(%leader, what, "an answer of the leader is not readable");
                        Err(NotWritten::Unknown)
                    }
                };
                let Some(waiting) = waiting.lock().pop_front() else {
                    tracing::error!(%leader, "the leader answered what it was not asked");
                    return false;
                };
                // The proposer may have given it up.
                let _ = waiting.send(answer);
            }
            false
        };
        let ended = tokio::select! {
            ended = send => ended,
            ended = receive => ended,
        };
        for answer in waiting.into_inner() {
            let _ = answer.send(Err(NotWritten::Unknown));
        }
        if ended {
            return;
        }
    }
}

async fn open(peers: &Peers, leader: NodeId, group: GroupId) -> Result<Talk, PeerError> {
    let talk = peers.talk(leader, Lane::Bulk, ServiceId::PROPOSALS).await?;
    talk.sender.send(encode(&Hello { group: group.0 })).await?;
    Ok(talk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_crosses_nodes_as_it_was() {
        let outcomes = vec![std::sync::Arc::from([Outcome::Done, Outcome::Purged(3)])];
        let encoded = encode(&Reply::of(Ok(outcomes.clone())));
        let answer = decode::<Reply>(&encoded).unwrap().into_answer();
        assert_eq!(answer.unwrap(), outcomes);
        let full = Err(NotWritten::Refused(ClusterError::Full {
            free: 1,
            reserve: 2,
        }));
        let encoded = encode(&Reply::of(full));
        assert!(matches!(
            decode::<Reply>(&encoded).unwrap().into_answer(),
            Err(NotWritten::Refused(ClusterError::Full {
                free: 1,
                reserve: 2
            }))
        ));
        assert!(decode::<Reply>(&[9]).unwrap_err().contains("version 9"));
    }
}
