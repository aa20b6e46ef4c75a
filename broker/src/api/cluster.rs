//! The cluster as operators see it: its nodes, and which of them have which shard.

use flotilla_model::ids::{NodeId, ShardId};
use flotilla_model::metadata::NodeState;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDetail {
    /// Given once.
    pub id: NodeId,
    /// As configured there.
    pub name: String,
    /// What other nodes dial.
    pub address: String,
    /// As configured there.
    pub zone: String,
    /// The highest feature level that it follows.
    pub feature_level_max: u16,
    /// What part it takes.
    pub state: NodeState,
    /// The node that was asked hears of it.
    pub is_up: bool,
    /// For how long it was not heard of; `None`: not since the node that was asked started.
    pub silent_ms: Option<u64>,
    /// It is the one that was asked.
    pub is_self: bool,
    /// The shards it leads, as far as the node that was asked knows.
    pub leads: Vec<ShardId>,
}

/// Where a shard is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardDetail {
    /// Which; 0 is the metadata group.
    pub shard: ShardId,
    /// Who leads it, if the node that was asked knows one.
    pub leader: Option<NodeId>,
    /// Counts elections, as far as the node that was asked took part.
    pub term: u64,
    /// The nodes that should keep it; the first should lead.
    pub replicas: Vec<NodeId>,
    /// The nodes that vote in it now; others than the replicas while they move.
    pub voters: Vec<NodeId>,
    /// Which features it uses by now; none where the node that was asked does not keep it.
    pub feature_level: Option<u16>,
}

/// The cluster as one of its nodes knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDetail {
    /// The cluster's id, in hexadecimal digits.
    pub cluster: String,
    /// The node that was asked.
    pub node: NodeId,
    /// How often that node was started.
    pub incarnation: u64,
    /// Which features it uses: those that all of its nodes have.
    pub feature_level: u16,
    /// How many nodes should keep each shard, if there are as many.
    pub replicas: u32,
    /// Its nodes, by id.
    pub nodes: Vec<NodeDetail>,
    /// The metadata group, then the shards, by id.
    pub shards: Vec<ShardDetail>,
}
