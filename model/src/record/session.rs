//! Sessions and the nodes they are on, see [`crate::session`].

use bincode::{Decode, Encode};

use super::BagHead;

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
pub struct NodeState {
    /// Its sessions that hold something.
    pub sessions: BagHead,
    /// Sessions of lives below this one are over.
    pub incarnation_first: u64,
}
