//! What the floors above use of the links: questions to other nodes and conversations with them.

use std::time::Duration;

use bytes::Bytes;
use flotilla_model::ids::NodeId;
use futures::future::BoxFuture;

use super::lane::Lane;
use super::links::Links;
use super::talk::Talk;

/// A part of a node that others may talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u8);

impl ServiceId {
    /// Nodes that look for a cluster, or ask to join one. The only one for nodes without an id.
    pub const FORMING: Self = Self(1);
    /// Who is alive, and how late it is there.
    pub const PRESENCE: Self = Self(2);
    /// Batches for a shard that another node leads.
    pub const PROPOSALS: Self = Self(3);
    /// Questions about the cluster's metadata.
    pub const METADATA: Self = Self(4);
    /// Replicas of the same group, to compare and to mend each other.
    pub const REPLICAS: Self = Self(5);
    /// The broker.
    pub const BROKER: Self = Self(16);
}

/// The node at the other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// Its id; 0 for a node that is in no cluster yet, or in another one.
    pub node: NodeId,
    /// Its start counter.
    pub incarnation: u64,
}

/// Answers other nodes. What it is asked was decoded by nobody yet.
pub trait PeerService: Send + Sync + 'static {
    /// A question; an error is the text of a refusal. It is run to its end even if nobody waits any
    /// longer.
    fn call(&self, from: PeerIdentity, request: Bytes)
    -> BoxFuture<'static, Result<Bytes, String>>;

    /// A conversation, which ends when `talk` is dropped, by either side.
    fn talk(&self, from: PeerIdentity, talk: Talk) -> BoxFuture<'static, ()>;
}

/// Why a peer gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The link could not be made or broke, or the peer does not have what was asked for. Whether the
    /// peer did what it was asked is not known.
    #[error("the node is not reachable: {reason}")]
    Unreachable {
        /// What is in the way.
        reason: String,
    },
    /// The peer's own answer: no.
    #[error("the node refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// No answer in time. Whether the peer did what it was asked is not known.
    #[error("the node did not answer in time")]
    Timeout,
}

impl PeerError {
    pub(crate) fn unreachable(reason: impl Into<String>) -> Self {
        Self::Unreachable {
            reason: reason.into(),
        }
    }
}

/// The links of a node to its peers. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    pub(super) links: Links,
}

impl Peers {
    /// Asks a node, and waits for its answer; `timeout` bounds all of it. At most 16 MiB each way.
    pub async fn call(
        &self,
        to: NodeId,
        lane: Lane,
        service: ServiceId,
        request: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        self.links.call(to, lane, service, request, timeout).await
    }

    /// Opens a conversation. Frames arrive in order; one side that does not read makes the other wait.
    pub async fn talk(
        &self,
        to: NodeId,
        lane: Lane,
        service: ServiceId,
    ) -> Result<Talk, PeerError> {
        self.links.talk(to, lane, service).await
    }
}
