//! The first records of a cluster: the nodes that it was formed of, and where shards are.

use std::time::{Duration, Instant};

use flotilla_model::command::Command;
use flotilla_model::ids::{NodeId, ShardId};

use super::roster::{Roster, registration};
use crate::error::ClusterError;
use crate::forming::Plan;

/// For one record.
const RECORD_DEADLINE: Duration = Duration::from_secs(5);

/// Records what is missing. Nodes come before placements, so that once all shards are placed nothing of
/// the plan is missing.
pub(super) async fn record(
    roster: &Roster,
    plan: Option<&Plan>,
    replicas: u32,
) -> Result<(), ClusterError> {
    let deadline = Instant::now() + RECORD_DEADLINE;
    let view = roster.view();
    match plan {
        Some(plan) => {
            for (node, planned) in plan.numbered() {
                // One that is known has told of itself since.
                if !view.nodes.iter().any(|known| known.disk == planned.disk) {
                    let command = registration(planned, Some(node));
                    roster.command(command, deadline).await?;
                }
            }
        }
        // A cluster from before nodes were recorded is this node alone.
        None => {
            let command = registration(&roster.me, Some(roster.board.node));
            roster.command(command, deadline).await?;
        }
    }
    if let (Some(plan), true) = (plan, view.placements.is_empty()) {
        raise_level(roster, plan, deadline).await?;
    }
    let replicas = plan.map_or(replicas, |plan| plan.replicas);
    if view.cluster.replicas != replicas && view.placements.is_empty() {
        let command = Command::SetReplicas { replicas };
        roster.command(command, deadline).await?;
    }
    let placements: Vec<Vec<NodeId>> = match plan {
        Some(plan) => plan.placements(),
        None => vec![vec![roster.board.node]; roster.shard_count()],
    };
    for (shard, replicas) in (1..).map(ShardId).zip(placements) {
        if roster.replicas(shard).is_none() {
            let command = Command::SetPlacement {
                shard,
                replicas,
                expected_version: 0,
            };
            roster.command(command, deadline).await?;
        }
    }
    Ok(())
}

/// A cluster begins with all that the nodes know that it is formed of: nothing is stored yet that one of an
/// older build could have to read.
async fn raise_level(roster: &Roster, plan: &Plan, deadline: Instant) -> Result<(), ClusterError> {
    roster.refresh().await?;
    let view = roster.view();
    // By now a node may have told more of itself than the plan.
    let planned = plan.nodes.iter().map(|node| node.feature_level_max);
    let known = view.nodes.iter().map(|node| node.feature_level_max);
    match planned.chain(known).min() {
        Some(to) if to > view.cluster.feature_level => {
            let command = Command::RaiseFeatureLevel { to };
            roster.command(command, deadline).await.map(drop)
        }
        _ => Ok(()),
    }
}
