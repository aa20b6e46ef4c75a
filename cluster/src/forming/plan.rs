//! What a cluster is to be formed of.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use flotilla_model::ids::{DiskId, NodeId};
use flotilla_storage::GroupId;

use crate::config::EXPECT_MAX;
use crate::identity::{ClusterId, SHARDS_MAX, Standing};
use crate::membership::placement::{self, Spot};
use crate::membership::voters;
use crate::types::Peer;

/// A node of a plan. Its id is its place in the plan, from 1.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PlannedNode {
    pub disk: DiskId,
    pub name: String,
    pub address: String,
    pub zone: String,
    pub feature_level_max: u16,
}

/// A cluster to be. Its id is also the plan's.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Plan {
    pub cluster: ClusterId,
    /// Who made it and decides whether it takes effect.
    pub coordinator: DiskId,
    pub shards: u32,
    pub replicas: u32,
    pub nodes: Vec<PlannedNode>,
}

impl Plan {
    /// A cluster of one node.
    pub fn alone(cluster: ClusterId, node: PlannedNode, shards: u32, replicas: u32) -> Self {
        Self {
            cluster,
            coordinator: node.disk,
            shards,
            replicas,
            nodes: vec![node],
        }
    }

    /// What a node refuses to promise itself to.
    pub fn check(&self) -> Result<(), String> {
        if self.nodes.is_empty() || self.nodes.len() > EXPECT_MAX as usize {
            return Err(format!("{} nodes make no plan", self.nodes.len()));
        }
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return Err(format!("{} shards make no plan", self.shards));
        }
        if self.replicas == 0 {
            return Err("a plan without replicas".to_owned());
        }
        Ok(())
    }

    /// The id that the plan gives to a disk.
    pub fn node_of(&self, disk: DiskId) -> Option<NodeId> {
        let place = self.nodes.iter().position(|node| node.disk == disk)?;
        Some(NodeId(place as u64 + 1))
    }

    /// What it makes of a disk once it took effect.
    pub fn membership(&self, disk: DiskId) -> Option<Standing> {
        Some(Standing::Member {
            cluster: self.cluster,
            node: self.node_of(disk)?,
            shards: self.shards,
            plan: Some(self.clone()),
        })
    }

    pub fn numbered(&self) -> impl Iterator<Item = (NodeId, &PlannedNode)> {
        (1..).map(NodeId).zip(&self.nodes)
    }

    /// Where the nodes are reached.
    pub fn addresses(&self) -> BTreeMap<NodeId, String> {
        self.numbered()
            .map(|(node, planned)| (node, planned.address.clone()))
            .collect()
    }

    /// The nodes that hold each shard, the preferred leader first.
    pub fn placements(&self) -> Vec<Vec<NodeId>> {
        let spots: Vec<Spot> = self
            .numbered()
            .map(|(node, planned)| Spot {
                node,
                zone: planned.zone.clone(),
            })
            .collect();
        placement::initial(&spots, self.shards, self.replicas)
    }

    /// Who votes in a group from the start.
    pub fn voters(&self, group: GroupId) -> BTreeMap<u64, Peer> {
        let nodes: Vec<NodeId> = match group.0.checked_sub(1) {
            None => {
                let all: Vec<NodeId> = self.numbered().map(|(node, _)| node).collect();
                let count = voters::metadata_voters(all.len());
                all.into_iter().take(count).collect()
            }
            Some(shard) => self
                .placements()
                .into_iter()
                .nth(shard as usize)
                .unwrap_or_default(),
        };
        self.numbered()
            .filter(|(node, _)| nodes.contains(node))
            .map(|(node, planned)| (node.0, planned.peer()))
            .collect()
    }
}

impl PlannedNode {
    pub fn peer(&self) -> Peer {
        Peer {
            name: self.name.clone(),
            address: self.address.clone(),
        }
    }
}
