//! The shapes of the cluster and its nodes.

use flotilla_broker::{ClusterDetail, NodeDetail, ShardDetail};
use flotilla_model::ids::NodeId;
use flotilla_model::metadata::NodeState;
use serde::Serialize;

/// The cluster as one node knows it.
#[derive(Debug, Serialize)]
pub struct ClusterView {
    cluster: String,
    /// The node that was asked.
    node: u64,
    incarnation: u64,
    ready: bool,
    feature_level: u16,
    replicas: u32,
    nodes: Vec<NodeView>,
    metadata: PlaceView,
    shards: Vec<ShardView>,
}

impl ClusterView {
    /// `is_ready` is what `/readyz` says of the same node.
    pub fn of(detail: ClusterDetail, is_ready: bool) -> Self {
        let mut metadata = PlaceView::default();
        let mut shards = Vec::with_capacity(detail.shards.len());
        for shard in detail.shards {
            match shard.shard.0 {
                0 => metadata = shard.into(),
                id => shards.push(ShardView {
                    id,
                    place: shard.into(),
                }),
            }
        }
        Self {
            cluster: detail.cluster,
            node: detail.node.0,
            incarnation: detail.incarnation,
            ready: is_ready,
            feature_level: detail.feature_level,
            replicas: detail.replicas,
            nodes: detail.nodes.into_iter().map(NodeView::from).collect(),
            metadata,
            shards,
        }
    }
}

/// A shard and its place.
#[derive(Debug, Serialize)]
struct ShardView {
    id: u32,
    #[serde(flatten)]
    place: PlaceView,
}

/// Where a group is.
#[derive(Debug, Default, Serialize)]
struct PlaceView {
    leader: Option<u64>,
    term: u64,
    replicas: Vec<u64>,
    voters: Vec<u64>,
    feature_level: Option<u16>,
}

impl From<ShardDetail> for PlaceView {
    fn from(shard: ShardDetail) -> Self {
        let number = |node: NodeId| node.0;
        Self {
            leader: shard.leader.map(number),
            term: shard.term,
            replicas: shard.replicas.into_iter().map(number).collect(),
            voters: shard.voters.into_iter().map(number).collect(),
            feature_level: shard.feature_level,
        }
    }
}

/// A node.
#[derive(Debug, Serialize)]
pub struct NodeView {
    id: u64,
    name: String,
    address: String,
    zone: String,
    feature_level_max: u16,
    state: &'static str,
    up: bool,
    silent_ms: Option<u64>,
    #[serde(rename = "self")]
    is_self: bool,
    leads_shards: Vec<u32>,
}

impl From<NodeDetail> for NodeView {
    fn from(node: NodeDetail) -> Self {
        Self {
            id: node.id.0,
            name: node.name,
            address: node.address,
            zone: node.zone,
            feature_level_max: node.feature_level_max,
            state: match node.state {
                NodeState::Up => "up",
                NodeState::Draining => "draining",
                NodeState::Gone => "gone",
                NodeState::Removed => "removed",
            },
            up: node.is_up,
            silent_ms: node.silent_ms,
            is_self: node.is_self,
            leads_shards: node.leads.into_iter().map(|shard| shard.0).collect(),
        }
    }
}
