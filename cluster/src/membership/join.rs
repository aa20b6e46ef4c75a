//! How a node that is a member takes others in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::metadata::NodeState;
use flotilla_model::outcome::Outcome;
use futures::future::BoxFuture;

use super::roster::{Roster, registration};
use crate::error::{ClusterError, chain};
use crate::forming::{Candidate, Joined, NotTaken, PlannedNode, Registrar};
use crate::identity::ClusterId;
use crate::start::check_level;

/// For the record of a new node.
const RECORD_DEADLINE: Duration = Duration::from_secs(5);

/// Takes nodes in by having them recorded, wherever that is done.
pub(crate) struct Gate {
    pub cluster: ClusterId,
    pub roster: Arc<Roster>,
}

impl Registrar for Gate {
    fn join(&self, candidate: Candidate) -> BoxFuture<'static, Result<Joined, NotTaken>> {
        let (cluster, roster) = (self.cluster, self.roster.clone());
        Box::pin(async move { take_in(cluster, &roster, candidate).await })
    }

    fn objection(&self, node: &PlannedNode) -> Option<String> {
        let view = self.roster.view();
        let level = view.cluster.feature_level;
        if let Err(error) = check_level("the cluster", level, node.feature_level_max) {
            return Some(error.to_string());
        }
        let known = view.nodes.iter().find(|known| known.disk == node.disk)?;
        (known.state == NodeState::Removed).then(|| {
            format!(
                "node {} was removed from the cluster, for ever: empty its data directory to join as a new one",
                known.id
            )
        })
    }
}

async fn take_in(
    cluster: ClusterId,
    roster: &Roster,
    candidate: Candidate,
) -> Result<Joined, NotTaken> {
    // The nodes that it is formed of come first: their ids are planned.
    if !roster.is_complete() {
        return Err(NotTaken::NotYet(
            "the cluster is still being formed".to_owned(),
        ));
    }
    if candidate.node.address.is_empty() {
        return Err(NotTaken::Refused("it says no address".to_owned()));
    }
    let command = registration(&candidate.node, None);
    let outcome = roster
        .command(command, Instant::now() + RECORD_DEADLINE)
        .await
        .map_err(|error| match error {
            ClusterError::Refused { reason } => NotTaken::Refused(reason),
            error => NotTaken::NotYet(chain(&error)),
        })?;
    let Outcome::NodeRegistered { node } = outcome else {
        return Err(NotTaken::NotYet(format!("its record gave {outcome:?}")));
    };
    let view = roster.view();
    let present = view
        .nodes
        .iter()
        .filter(|member| member.state != NodeState::Removed);
    Ok(Joined {
        cluster,
        node,
        shards: roster.shard_count() as u32,
        addresses: present
            .map(|member| (member.id, member.address.clone()))
            .collect(),
    })
}
