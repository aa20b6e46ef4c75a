//! The cluster as operators see and change it.

use std::collections::BTreeMap;

use flotilla_cluster::GroupHealth;
use flotilla_model::ids::{NodeId, ShardId};
use flotilla_model::metadata::NodeState;
use flotilla_model::query::{self, MetadataView};

use crate::api::cluster::{ClusterDetail, NodeDetail, ShardDetail};
use crate::api::error::BrokerError;
use crate::facade::Broker;

impl Broker {
    /// The cluster as this node knows it. A node that is cut off knows what was true before.
    pub async fn cluster_detail(&self) -> Result<ClusterDetail, BrokerError> {
        let cluster = &self.inner.core.cluster;
        let view = cluster.metadata().read(query::metadata).await?;
        let shards = shards(&view, &cluster.health().groups, cluster.node().id);
        Ok(ClusterDetail {
            cluster: cluster.node().cluster.to_string(),
            node: cluster.node().id,
            incarnation: cluster.node().incarnation,
            nodes: self.nodes_of(&view, &shards),
            shards,
        })
    }

    /// The nodes of the cluster, by id; nodes that left are not among them.
    pub async fn nodes(&self) -> Result<Vec<NodeDetail>, BrokerError> {
        Ok(self.cluster_detail().await?.nodes)
    }

    fn nodes_of(&self, view: &MetadataView, shards: &[ShardDetail]) -> Vec<NodeDetail> {
        let me = self.inner.core.cluster.node();
        let mut leads: BTreeMap<NodeId, Vec<ShardId>> = BTreeMap::new();
        for shard in shards.iter().filter(|shard| shard.shard.0 != 0) {
            if let Some(leader) = shard.leader {
                leads.entry(leader).or_default().push(shard.shard);
            }
        }
        let mut nodes: Vec<NodeDetail> = view
            .nodes
            .iter()
            .filter(|node| node.state != NodeState::Removed)
            .map(|node| NodeDetail {
                id: node.id,
                name: node.name.clone(),
                address: node.address.clone(),
                zone: node.zone.clone(),
                state: node.state,
                is_up: node.id == me.id || self.inner.core.cluster.is_up(node.id),
                silent_ms: (node.id == me.id).then_some(0),
                is_self: node.id == me.id,
                leads: leads.remove(&node.id).unwrap_or_default(),
            })
            .collect();
        // The first moments of a cluster: its nodes are not recorded yet.
        if !nodes.iter().any(|node| node.is_self) {
            nodes.push(NodeDetail {
                id: me.id,
                name: me.name.clone(),
                address: String::new(),
                zone: String::new(),
                state: NodeState::Up,
                is_up: true,
                silent_ms: Some(0),
                is_self: true,
                leads: leads.remove(&me.id).unwrap_or_default(),
            });
        }
        nodes.sort_by_key(|node| node.id);
        nodes
    }
}

/// The groups with their places; a group without a recorded place is where it is led.
fn shards(view: &MetadataView, groups: &[GroupHealth], me: NodeId) -> Vec<ShardDetail> {
    let placed: BTreeMap<ShardId, &Vec<NodeId>> = view
        .placements
        .iter()
        .map(|placement| (placement.shard, &placement.replicas))
        .collect();
    groups
        .iter()
        .map(|group| {
            let shard = ShardId(group.group);
            let replicas = placed.get(&shard).map(|replicas| replicas.to_vec());
            ShardDetail {
                shard,
                leader: group.leader,
                term: group.term,
                replicas: replicas.unwrap_or_else(|| vec![group.leader.unwrap_or(me)]),
            }
        })
        .collect()
}
