//! What group 0 keeps about the cluster, see [`crate::metadata`].

use bincode::{Decode, Encode};

use crate::ids::{DiskId, NodeId};
use crate::metadata::{NodeState, REPLICAS_DEFAULT};

/// The cluster as a whole. Shard count and feature level are in the root record, as in every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClusterState {
    /// How many replicas shards are to have.
    pub replicas: u32,
    /// The lowest id above all that were given out.
    pub node_next: u64,
    /// How many nodes there are records of.
    pub members: u64,
    /// How many removed nodes have no record any more.
    pub forgotten: u64,
    /// Height of the trie of node ids.
    pub members_height: u8,
    /// Height of the trie of placed shards.
    pub placements_height: u8,
    /// Counts changes of anything in the metadata.
    pub version: u64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// What it is recognised by.
    pub disk: DiskId,
    /// For display.
    pub name: String,
    /// Where it is reached.
    pub address: String,
    /// Where it stands.
    pub zone: String,
    /// The highest feature level that its build can follow.
    pub feature_level_max: u16,
    /// What part it takes.
    pub state: NodeState,
    /// Counts changes of this record, from 1.
    pub version: u64,
}

/// The nodes that keep a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Placement {
    /// The first should lead.
    pub replicas: Vec<NodeId>,
    /// Counts changes of this record, from 1.
    pub version: u64,
}

impl Default for ClusterState {
    /// A cluster that nothing was recorded of.
    fn default() -> Self {
        Self {
            replicas: REPLICAS_DEFAULT,
            node_next: 1,
            members: 0,
            forgotten: 0,
            members_height: 0,
            placements_height: 0,
            version: 0,
        }
    }
}

impl Member {
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.address.len() + self.zone.len()
    }
}

impl Placement {
    pub(super) fn weight(&self) -> usize {
        self.replicas.capacity() * size_of::<NodeId>()
    }
}
