//! The cluster as operators see and change it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flotilla_cluster::{ClusterError, ClusterNode, GroupHealth, Verification};
use flotilla_model::ids::{NodeId, ShardId};
use flotilla_model::query::{self, MetadataView};

use crate::api::cluster::{ClusterDetail, NodeDetail, ShardDetail};
use crate::api::error::BrokerError;
use crate::facade::Broker;

/// A change of the cluster's records is committed by then, or the call fails.
const CHANGE_WAIT: Duration = Duration::from_secs(10);
/// A node that leaves may take longer than this to give away what it keeps: then the call is repeated.
const LEAVE_WAIT: Duration = Duration::from_secs(20);

impl Broker {
    /// The cluster as this node knows it. A node that is cut off knows what was true before.
    pub async fn cluster_detail(&self) -> Result<ClusterDetail, BrokerError> {
        let cluster = &self.inner.core.cluster;
        let view = cluster.metadata().read(query::metadata).await?;
        Ok(ClusterDetail {
            cluster: cluster.node().cluster.to_string(),
            node: cluster.node().id,
            incarnation: cluster.node().incarnation,
            feature_level: view.cluster.feature_level,
            replicas: view.cluster.replicas,
            nodes: self.nodes(),
            shards: shards(&view, cluster.health().groups),
        })
    }

    /// The nodes of the cluster, by id; nodes that left are not among them.
    pub fn nodes(&self) -> Vec<NodeDetail> {
        let nodes = self.inner.core.cluster.nodes();
        nodes.iter().map(|node| self.node_detail(node)).collect()
    }

    /// Begins to move what a node keeps to other nodes.
    pub async fn drain_node(&self, node: NodeId) -> Result<(), BrokerError> {
        self.check_node(node)?;
        let deadline = Instant::now() + CHANGE_WAIT;
        Ok(self.inner.core.cluster.drain(node, deadline).await?)
    }

    /// Lets a node that drains, or has done so, keep replicas again.
    pub async fn undrain_node(&self, node: NodeId) -> Result<(), BrokerError> {
        self.check_node(node)?;
        let deadline = Instant::now() + CHANGE_WAIT;
        Ok(self.inner.core.cluster.undrain(node, deadline).await?)
    }

    /// Drains a node and takes it out of the cluster, for ever. To be repeated while it fails as
    /// unavailable: the node then still keeps something.
    pub async fn remove_node(&self, node: NodeId) -> Result<(), BrokerError> {
        self.check_node(node)?;
        let deadline = Instant::now() + LEAVE_WAIT;
        Ok(self.inner.core.cluster.leave(node, deadline).await?)
    }

    /// Changes how many nodes keep each shard.
    pub async fn set_replicas(&self, replicas: u32) -> Result<(), BrokerError> {
        self.inner.core.check_open()?;
        let deadline = Instant::now() + CHANGE_WAIT;
        match self
            .inner
            .core
            .cluster
            .set_replicas(replicas, deadline)
            .await
        {
            Err(ClusterError::Invalid { what }) => Err(BrokerError::InvalidRequest { what }),
            changed => Ok(changed?),
        }
    }

    /// Begins to compare the replicas of all shards with each other, unless that is under way, and has
    /// damaged ones made anew. Tells which comparison of this node it is.
    pub fn verify_replicas(&self) -> Result<u64, BrokerError> {
        self.inner.core.check_open()?;
        Ok(self.inner.core.cluster.verify())
    }

    /// What the last comparison found that this node was asked for.
    pub fn verification(&self) -> Result<Verification, BrokerError> {
        let found = self.inner.core.cluster.verification();
        found.ok_or_else(|| BrokerError::NotFound {
            what: "a comparison of replicas that this node was asked for".to_owned(),
        })
    }

    fn check_node(&self, node: NodeId) -> Result<(), BrokerError> {
        self.inner.core.check_open()?;
        let nodes = self.inner.core.cluster.nodes();
        if nodes.iter().any(|known| known.id == node) {
            return Ok(());
        }
        Err(BrokerError::NotFound {
            what: format!("node {node}"),
        })
    }

    fn node_detail(&self, node: &ClusterNode) -> NodeDetail {
        let heard = self.inner.core.cluster.last_heard(node.id);
        let silence = match node.is_self {
            true => Some(Duration::ZERO),
            false => heard.map(|heard| heard.elapsed()),
        };
        NodeDetail {
            id: node.id,
            name: node.name.clone(),
            address: node.address.clone(),
            zone: node.zone.clone(),
            feature_level_max: node.feature_level_max,
            state: node.state,
            is_up: node.is_up,
            silent_ms: silence.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            is_self: node.is_self,
            leads: node.leader_of.clone(),
        }
    }
}

/// The groups with the places that the metadata gives them; without one, with the voters that they have.
fn shards(view: &MetadataView, groups: Vec<GroupHealth>) -> Vec<ShardDetail> {
    let placed: BTreeMap<ShardId, &Vec<NodeId>> = view
        .placements
        .iter()
        .map(|placement| (placement.shard, &placement.replicas))
        .collect();
    let detail = |group: GroupHealth| {
        let shard = ShardId(group.group);
        ShardDetail {
            shard,
            leader: group.leader,
            term: group.term,
            replicas: placed
                .get(&shard)
                .map_or_else(|| group.voters.clone(), |replicas| replicas.to_vec()),
            voters: group.voters,
            feature_level: group.feature_level,
        }
    };
    groups.into_iter().map(detail).collect()
}
