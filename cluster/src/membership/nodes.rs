//! The nodes of a cluster as the floors above and operators see and change them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::command::Command;
use flotilla_model::ids::{NodeId, ShardId};
use flotilla_model::metadata::NodeState;
use flotilla_model::query::{MetadataView, NodeRecord};
use tokio::sync::watch;

use super::roster::Roster;
use crate::cluster::Cluster;
use crate::config::REPLICAS_MAX;
use crate::error::ClusterError;
use crate::net::{PeerService, Peers, ServiceId};

/// How often a node that leaves is looked after.
const LEAVE_PERIOD: Duration = Duration::from_millis(200);

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Given once, never reused.
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// Where other nodes reach it.
    pub address: String,
    /// What fails together with others of the same zone.
    pub zone: String,
    /// The highest feature level that it follows.
    pub feature_level_max: u16,
    /// What part it takes.
    pub state: NodeState,
    /// It was heard within the last 2 s; this node always is.
    pub is_up: bool,
    /// It is this node.
    pub is_self: bool,
    /// The shards that it leads, as far as this node knows.
    pub leader_of: Vec<ShardId>,
    /// The shards that it is to hold.
    pub holds: Vec<ShardId>,
}

pub(super) fn describe(roster: &Roster) -> Vec<ClusterNode> {
    let view = roster.view();
    let present = view
        .nodes
        .iter()
        .filter(|node| node.state != NodeState::Removed);
    present
        .map(|node| ClusterNode {
            id: node.id,
            name: node.name.clone(),
            address: node.address.clone(),
            zone: node.zone.clone(),
            feature_level_max: node.feature_level_max,
            state: node.state,
            is_up: roster.board.is_up(node.id),
            is_self: node.disk == roster.me.disk,
            leader_of: roster.groups[1..]
                .iter()
                .filter(|group| *group.replica.leader.borrow() == Some(node.id))
                .map(|group| group.replica.shard)
                .collect(),
            holds: holds(&view, node.id).collect(),
        })
        .collect()
}

fn holds(view: &MetadataView, node: NodeId) -> impl Iterator<Item = ShardId> {
    view.placements
        .iter()
        .filter(move |place| place.replicas.contains(&node))
        .map(|place| place.shard)
}

impl Cluster {
    /// The nodes of the cluster by id, without those that left. Empty in the first moments of a cluster.
    pub fn nodes(&self) -> Arc<[ClusterNode]> {
        self.inner.roster.nodes().borrow().clone()
    }

    /// Whether this node left the cluster, as far as it has heard. A new one is not recorded for a moment,
    /// which is another thing.
    pub fn was_removed(&self) -> bool {
        let roster = &self.inner.roster;
        let view = roster.view();
        let mut removed = view
            .nodes
            .iter()
            .filter(|node| node.state == NodeState::Removed);
        removed.any(|node| node.disk == roster.me.disk)
    }

    /// The same as [`Self::nodes`], from now on.
    pub fn watch_nodes(&self) -> watch::Receiver<Arc<[ClusterNode]>> {
        self.inner.roster.nodes()
    }

    /// When a node was last heard; `None` for this node, and for one that was never heard since the start.
    pub fn last_heard(&self, node: NodeId) -> Option<Instant> {
        self.inner.board.heard(node).map(|heard| heard.at)
    }

    /// The links to the other nodes.
    pub fn peers(&self) -> Peers {
        self.inner.links.peers()
    }

    /// What answers other nodes' brokers here.
    pub fn serve_broker(&self, answers: Arc<dyn PeerService>) {
        self.inner.links.register(ServiceId::BROKER, answers);
    }

    /// Moves everything that a node holds to others. It goes on serving clients, and takes no new
    /// replicas. Refused if the others are too few to hold what it has.
    pub async fn drain(&self, node: NodeId, deadline: Instant) -> Result<(), ClusterError> {
        let roster = &self.inner.roster;
        let record = find(roster, node)?;
        if record.state == NodeState::Draining {
            return Ok(());
        }
        check_room(roster, node)?;
        set_state(roster, &record, NodeState::Draining, deadline).await
    }

    /// Takes a drain back: the node gets its part again.
    pub async fn undrain(&self, node: NodeId, deadline: Instant) -> Result<(), ClusterError> {
        let roster = &self.inner.roster;
        let record = find(roster, node)?;
        match record.state {
            NodeState::Draining => set_state(roster, &record, NodeState::Up, deadline).await,
            NodeState::Up => Ok(()),
            state => Err(refused(format!("node {node} is {state:?}, not draining"))),
        }
    }

    /// Drains a node, then removes it from the cluster, for ever: its data directory is worth nothing
    /// from then on. At the deadline the node may still hold something; it goes on draining, and the
    /// call can be repeated.
    pub async fn leave(&self, node: NodeId, deadline: Instant) -> Result<(), ClusterError> {
        let roster = &self.inner.roster;
        let record = find(roster, node)?;
        // One that is gone may come back; one that drains does not vote any more once others can.
        if record.state != NodeState::Draining {
            self.drain(node, deadline).await?;
        }
        loop {
            let Some(record) = roster.node(node) else {
                return Ok(());
            };
            let left = self.held_by(node).await;
            match left {
                Ok(left) if left.is_empty() => {
                    return set_state(roster, &record, NodeState::Removed, deadline).await;
                }
                left if Instant::now() >= deadline => {
                    return Err(ClusterError::Unavailable {
                        reason: match left {
                            Ok(left) => format!(
                                "node {node} is draining and still holds {} groups, ask again later",
                                left.len()
                            ),
                            Err(reason) => reason,
                        },
                    });
                }
                _ => tokio::time::sleep(LEAVE_PERIOD).await,
            }
        }
    }

    /// Changes how many nodes are to hold each shard. Replicas are added and taken away one after
    /// another; where there are too few nodes, the rest follows as more join.
    pub async fn set_replicas(&self, replicas: u32, deadline: Instant) -> Result<(), ClusterError> {
        if replicas == 0 || replicas > REPLICAS_MAX {
            return Err(ClusterError::Invalid {
                what: format!("a shard has 1 to {REPLICAS_MAX} replicas, not {replicas}"),
            });
        }
        let command = Command::SetReplicas { replicas };
        self.inner.roster.command(command, deadline).await?;
        Ok(())
    }

    /// The groups that a node is to hold or still votes in.
    async fn held_by(&self, node: NodeId) -> Result<Vec<u32>, String> {
        let roster = &self.inner.roster;
        let view = roster.view();
        let mut groups: Vec<u32> = holds(&view, node).map(|shard| shard.0).collect();
        let reports = super::report::collect(roster).await;
        for group in &roster.groups {
            let id = group.replica.group.0;
            let report = reports
                .get(&id)
                .ok_or_else(|| format!("the leader of group {id} does not answer"))?;
            if report.voters.contains(&node) && !groups.contains(&id) {
                groups.push(id);
            }
        }
        Ok(groups)
    }
}

fn find(roster: &Roster, node: NodeId) -> Result<NodeRecord, ClusterError> {
    roster
        .node(node)
        .ok_or_else(|| refused(format!("there is no node {node}")))
}

fn refused(reason: String) -> ClusterError {
    ClusterError::Refused { reason }
}

/// Refuses to take away a node that others cannot stand in for.
fn check_room(roster: &Roster, node: NodeId) -> Result<(), ClusterError> {
    let view = roster.view();
    let others = view
        .nodes
        .iter()
        .filter(|other| other.id != node && other.state == NodeState::Up)
        .count();
    let needed = view
        .placements
        .iter()
        .filter(|place| place.replicas.contains(&node))
        .map(|place| place.replicas.len())
        .max()
        .unwrap_or(1);
    if others < needed {
        return Err(refused(format!(
            "node {node} holds shards with {needed} replicas, and {others} other nodes cannot hold as many: \
             add a node, or ask for fewer replicas"
        )));
    }
    Ok(())
}

async fn set_state(
    roster: &Roster,
    record: &NodeRecord,
    state: NodeState,
    deadline: Instant,
) -> Result<(), ClusterError> {
    let command = Command::SetNodeState {
        node: record.id,
        state,
        expected_version: record.version,
    };
    roster.command(command, deadline).await?;
    Ok(())
}
