//! Metadata as one would write it down: no pages, no indexes, no bounds on work.

use std::collections::BTreeMap;

use flotilla_model::command::Command;
use flotilla_model::ids::*;
use flotilla_model::metadata::NodeState;
use flotilla_model::outcome::{Outcome, Refusal};
use flotilla_model::query::{ClusterRecord, MetadataView, NodeRecord, PlacementRecord};

pub struct NaiveMetadata {
    pub view: MetadataView,
}

fn invalid() -> Refusal {
    Refusal::Invalid {
        what: String::new(),
    }
}

impl NaiveMetadata {
    pub fn new() -> Self {
        Self {
            view: MetadataView {
                cluster: ClusterRecord {
                    shard_count: 1,
                    replicas: 3,
                    feature_level: 1,
                    next_node_id: NodeId(1),
                    version: 0,
                },
                nodes: Vec::new(),
                placements: Vec::new(),
            },
        }
    }

    /// The outcome, without the texts of what is invalid.
    pub fn run(&mut self, command: &Command) -> Outcome {
        let before = self.view.clone();
        let outcome = self.decide(command).unwrap_or_else(Outcome::Refused);
        if self.view != before {
            self.view.cluster.version += 1;
        }
        outcome
    }

    pub fn node(&mut self, id: NodeId) -> Option<&mut NodeRecord> {
        self.view.nodes.iter_mut().find(|node| node.id == id)
    }

    pub fn placement(&mut self, shard: ShardId) -> Option<&mut PlacementRecord> {
        let placements = &mut self.view.placements;
        placements.iter_mut().find(|placed| placed.shard == shard)
    }

    fn decide(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        match command.clone() {
            Command::RegisterNode {
                disk,
                name,
                address,
                zone,
                feature_level_max,
                wanted,
            } => {
                let described = NodeRecord {
                    id: NodeId(0),
                    disk,
                    name,
                    address,
                    zone,
                    feature_level_max,
                    state: NodeState::Up,
                    version: 1,
                };
                let node = self.register(described, wanted)?;
                Ok(Outcome::NodeRegistered { node })
            }
            Command::SetNodeState {
                node: id,
                state,
                expected_version,
            } => {
                let what = format!("node {id}");
                let Some(node) = self.node(id) else {
                    return Err(Refusal::NotFound { what });
                };
                check_version(what, node.version, expected_version)?;
                if node.state == NodeState::Removed && state != NodeState::Removed {
                    return Err(Refusal::NodeRemoved { node: id });
                }
                if node.state != state {
                    node.state = state;
                    node.version += 1;
                }
                Ok(Outcome::Done)
            }
            Command::SetPlacement {
                shard,
                replicas,
                expected_version,
            } => {
                self.place(shard, replicas, expected_version)?;
                Ok(Outcome::Done)
            }
            Command::SetReplicas { replicas } => {
                if !(1..=9).contains(&replicas) {
                    return Err(invalid());
                }
                self.view.cluster.replicas = replicas;
                Ok(Outcome::Done)
            }
            Command::RaiseFeatureLevel { to } => {
                self.raise(to)?;
                Ok(Outcome::Done)
            }
            other => panic!("not a metadata command: {other:?}"),
        }
    }

    fn register(
        &mut self,
        described: NodeRecord,
        wanted: Option<NodeId>,
    ) -> Result<NodeId, Refusal> {
        let texts = [&described.name, &described.address, &described.zone];
        if texts.iter().any(|text| text.len() > 300) {
            return Err(invalid());
        }
        let level = self.view.cluster.feature_level;
        let nodes = &mut self.view.nodes;
        let known = nodes.iter_mut().find(|node| node.disk == described.disk);
        if described.feature_level_max < level {
            return Err(Refusal::FeatureLevel {
                node: known.map_or(NodeId(0), |node| node.id),
                known: described.feature_level_max,
                wanted: level,
            });
        }
        if let Some(node) = known {
            if wanted.is_some_and(|wanted| wanted != node.id) {
                return Err(invalid());
            }
            if node.state == NodeState::Removed {
                return Err(Refusal::NodeRemoved { node: node.id });
            }
            let mut updated = NodeRecord {
                id: node.id,
                state: node.state,
                version: node.version,
                ..described
            };
            if updated.state == NodeState::Gone {
                updated.state = NodeState::Up;
            }
            if updated != *node {
                updated.version += 1;
                *node = updated;
            }
            return Ok(node.id);
        }
        let id = wanted.unwrap_or(self.view.cluster.next_node_id);
        if wanted.is_some_and(|wanted| wanted.0 == 0 || wanted.0 > 1_024) {
            return Err(invalid());
        }
        if self.node(id).is_some() {
            return Err(Refusal::NodeIdTaken { node: id });
        }
        let next = &mut self.view.cluster.next_node_id;
        *next = NodeId(id.0 + 1).max(*next);
        self.view.nodes.push(NodeRecord { id, ..described });
        self.view.nodes.sort_by_key(|node| node.id);
        Ok(id)
    }

    fn place(
        &mut self,
        shard: ShardId,
        replicas: Vec<NodeId>,
        expected_version: u64,
    ) -> Result<(), Refusal> {
        let mut counts: BTreeMap<NodeId, u32> = BTreeMap::new();
        for node in &replicas {
            *counts.entry(*node).or_default() += 1;
        }
        let is_well_formed = (1..=9).contains(&replicas.len())
            && shard.0 <= 1_024
            && counts.values().all(|count| *count == 1);
        if !is_well_formed {
            return Err(invalid());
        }
        let version = self.placement(shard).map_or(0, |placed| placed.version);
        let what = format!("the placement of shard {shard}");
        check_version(what, version, expected_version)?;
        for id in &replicas {
            match self.node(*id).map(|node| node.state) {
                None => {
                    let what = format!("node {id}");
                    return Err(Refusal::NotFound { what });
                }
                Some(NodeState::Removed) => return Err(Refusal::NodeRemoved { node: *id }),
                Some(_) => {}
            }
        }
        match self.placement(shard) {
            Some(placed) if placed.replicas == replicas => {}
            Some(placed) => {
                placed.replicas = replicas;
                placed.version += 1;
            }
            None => {
                self.view.placements.push(PlacementRecord {
                    shard,
                    replicas,
                    version: 1,
                });
                self.view.placements.sort_by_key(|placed| placed.shard);
            }
        }
        Ok(())
    }

    fn raise(&mut self, to: u16) -> Result<(), Refusal> {
        let present = &mut self.view.cluster.feature_level;
        if to < *present {
            return Err(invalid());
        }
        if to == *present {
            return Ok(());
        }
        let nodes = self.view.nodes.iter();
        let mut staying = nodes.filter(|node| node.state != NodeState::Removed);
        if let Some(node) = staying.clone().find(|node| node.feature_level_max < to) {
            return Err(Refusal::FeatureLevel {
                node: node.id,
                known: node.feature_level_max,
                wanted: to,
            });
        }
        if staying.next().is_none() {
            return Err(invalid());
        }
        *present = to;
        Ok(())
    }
}

fn check_version(what: String, found: u64, expected: u64) -> Result<(), Refusal> {
    match found == expected {
        true => Ok(()),
        false => Err(Refusal::VersionConflict {
            what,
            found,
            expected,
        }),
    }
}
