//! Decides for the cluster, on the node that leads the metadata: who is gone, and what is to be where.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::command::Command;
use flotilla_model::ids::NodeId;
use flotilla_model::metadata::NodeState;

use super::level::LevelWatch;
use super::placement::{self, Holder, Placed, Spot};
use super::roster::Roster;
use super::{bootstrap, report};
use crate::error::{ClusterError, chain};
use crate::forming::Plan;

/// Between looks, if nothing changes.
const PERIOD: Duration = Duration::from_millis(500);
/// For one record.
const RECORD_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) struct Steward {
    pub roster: Arc<Roster>,
    /// What the cluster was formed by, if this node took part.
    pub plan: Option<Plan>,
    /// For a cluster that was formed before this was recorded.
    pub replicas: u32,
    pub repair_after: Duration,
    pub lead: LeadTime,
    pub level: LevelWatch,
}

/// For how long this node has led the metadata, as far as it was awake: it cannot tell of silence in the
/// time before, nor while it slept.
#[derive(Debug, Default)]
pub(crate) struct LeadTime {
    looked_at: Option<Instant>,
    awake: Duration,
}

impl LeadTime {
    fn pass(&mut self, now: Instant) {
        if let Some(before) = self.looked_at.replace(now) {
            self.awake += now.saturating_duration_since(before).min(PERIOD * 2);
        }
    }
}

impl Steward {
    /// To be aborted with the node.
    pub async fn run(mut self) {
        let mut view = self.roster.watch();
        loop {
            if let Err(error) = self.look().await {
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "the cluster's records could not be brought up to date yet"
                );
                tokio::time::sleep(PERIOD).await;
            }
            tokio::select! {
                _ = view.changed() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    async fn look(&mut self) -> Result<(), ClusterError> {
        if !self.roster.metadata().shard.is_leader() {
            self.lead = LeadTime::default();
            self.level = LevelWatch::default();
            return Ok(());
        }
        self.lead.pass(Instant::now());
        // What others decided before this node led is not to be decided again.
        self.roster.refresh().await?;
        if !self.roster.is_complete() {
            return bootstrap::record(&self.roster, self.plan.as_ref(), self.replicas).await;
        }
        self.mark_nodes().await?;
        self.raise_level().await?;
        self.place().await
    }

    /// What is new begins once no member could be left behind by it.
    async fn raise_level(&mut self) -> Result<(), ClusterError> {
        let view = self.roster.view();
        let board = &self.roster.board;
        let life = |node| match node == board.node {
            true => Some(board.first_generation()),
            false => board
                .heard(node)
                .filter(|_| board.is_up(node))
                .map(|heard| heard.generation),
        };
        let Some(to) = self.level.next(&view, life, Instant::now()) else {
            return Ok(());
        };
        tracing::info!(
            from = view.cluster.feature_level,
            to,
            "every node knows a higher feature level: there is no way back to older builds from here"
        );
        self.record(Command::RaiseFeatureLevel { to }).await
    }

    /// Nodes that are silent for too long are gone, until they are heard again.
    async fn mark_nodes(&self) -> Result<(), ClusterError> {
        let board = &self.roster.board;
        for node in &self.roster.view().nodes {
            let silence = match board.silence(node.id) {
                Some(silence) => silence.min(self.lead.awake),
                None => self.lead.awake,
            };
            let state = match node.state {
                NodeState::Up if node.id != board.node && silence >= self.repair_after => {
                    NodeState::Gone
                }
                NodeState::Gone if board.is_up(node.id) => NodeState::Up,
                _ => continue,
            };
            tracing::warn!(node = %node.id, ?state, "a node changes its part");
            let command = Command::SetNodeState {
                node: node.id,
                state,
                expected_version: node.version,
            };
            self.record(command).await?;
        }
        Ok(())
    }

    /// Decides the next moves, if what was decided before is done.
    async fn place(&self) -> Result<(), ClusterError> {
        let view = self.roster.view();
        let holders = holders(&self.roster);
        let as_if_settled: Vec<Placed> = view
            .placements
            .iter()
            .map(|place| Placed {
                replicas: place.replicas.clone(),
                is_moving: false,
            })
            .collect();
        let replicas = view.cluster.replicas;
        if placement::next(&holders, &as_if_settled, replicas).is_empty() {
            return Ok(());
        }
        let reports = report::collect(&self.roster).await;
        let placed: Vec<Placed> = view
            .placements
            .iter()
            .map(|place| {
                let wanted: BTreeSet<NodeId> = place.replicas.iter().copied().collect();
                let is_there = reports.get(&place.shard.0).is_some_and(|report| {
                    report.is_settled && wanted == report.voters.iter().copied().collect()
                });
                Placed {
                    replicas: place.replicas.clone(),
                    is_moving: !is_there,
                }
            })
            .collect();
        for (place, replicas) in placement::next(&holders, &placed, replicas) {
            let record = &view.placements[place];
            tracing::info!(shard = %record.shard, from = ?record.replicas, to = ?replicas, "a shard is placed anew");
            let command = Command::SetPlacement {
                shard: record.shard,
                replicas,
                expected_version: record.version,
            };
            self.record(command).await?;
        }
        Ok(())
    }

    async fn record(&self, command: Command) -> Result<(), ClusterError> {
        let deadline = Instant::now() + RECORD_DEADLINE;
        self.roster.command(command, deadline).await?;
        Ok(())
    }
}

/// The cluster's nodes as placement sees them from here.
pub(super) fn holders(roster: &Roster) -> Vec<Holder> {
    let view = roster.view();
    let present = view
        .nodes
        .iter()
        .filter(|node| node.state != NodeState::Removed);
    present
        .map(|node| Holder {
            spot: Spot {
                node: node.id,
                zone: node.zone.clone(),
            },
            is_up: roster.board.is_up(node.id),
            is_leaving: node.state != NodeState::Up,
            is_draining: node.state == NodeState::Draining,
        })
        .collect()
}
