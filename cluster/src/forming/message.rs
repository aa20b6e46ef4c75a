//! What nodes say to each other before they are of one cluster.
//!
//! The first byte is the version of all of it. A build that cannot read it says so in words, since
//! words are what a refusal is.

use bincode::{Decode, Encode};
use bytes::Bytes;
use flotilla_model::ids::{DiskId, NodeId};

use super::plan::{Plan, PlannedNode};
use crate::identity::ClusterId;
use crate::packing;

/// What nodes must agree on to form a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Terms {
    pub expect: u32,
    pub shards: u32,
    pub replicas: u32,
}

/// A node's standing, as others need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Claim {
    Fresh,
    /// Promised to the plan for this cluster.
    Planned {
        cluster: ClusterId,
    },
    Member {
        cluster: ClusterId,
        node: NodeId,
    },
}

/// A node that another one has reached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Seen {
    pub disk: DiskId,
    pub address: String,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Greeting {
    pub node: PlannedNode,
    pub terms: Terms,
    pub claim: Claim,
    /// Fresh nodes that it has reached lately.
    pub sees: Vec<Seen>,
}

/// A node that asks to be taken in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Candidate {
    pub node: PlannedNode,
}

/// A node that was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Joined {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub shards: u32,
    /// Where the members are reached.
    pub addresses: Vec<(NodeId, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Question {
    Greet(Greeting),
    /// Promise yourself to this plan.
    Prepare(Plan),
    Join(Candidate),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Answer {
    Greeting(Greeting),
    Prepared,
    Joined(Joined),
    /// No, for good: asking again with the same changes nothing.
    Refused(String),
    /// Not now.
    NotYet(String),
}

pub(crate) fn encode<T: Encode>(message: &T) -> Result<Bytes, String> {
    packing::pack(message).map_err(|error| error.to_string())
}

pub(crate) fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, String> {
    packing::unpack("a message about forming", bytes).map_err(|error| error.to_string())
}
