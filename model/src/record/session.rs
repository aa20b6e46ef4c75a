//! Sessions and the nodes they are on, see [`crate::session`].

use bincode::{Decode, Encode};

use super::BagHead;
use crate::ids::NodeId;

/// A session that holds something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SessionState {
    /// Its leases.
    pub leases: BagHead,
    /// Its place in the node's list.
    pub place: u64,
}

/// A node that has, or had, sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct NodeSessions {
    /// Its sessions that hold something.
    pub sessions: BagHead,
    /// Sessions of lives below this one are over.
    pub incarnation_first: u64,
}

/// Nodes that have, or had, sessions: (node, the highest incarnation that opened one), by node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SessionNodes(pub Vec<(NodeId, u64)>);

impl SessionNodes {
    pub(super) fn weight(&self) -> usize {
        self.0.capacity() * size_of::<(NodeId, u64)>()
    }
}
