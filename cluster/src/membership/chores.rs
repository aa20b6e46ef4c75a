//! What the leader of a group has to tell it: the cluster's feature level, and who is gone for good.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::command::Command;
use flotilla_model::ids::{NodeId, ShardId};
use flotilla_model::metadata::NodeState;
use flotilla_model::outcome::Outcome;
use flotilla_model::query::{self, MetadataView};
use parking_lot::Mutex;

use crate::error::{ClusterError, chain};
use crate::group::Group;

/// For one entry.
const CHORE_DEADLINE: Duration = Duration::from_secs(5);

/// Remembers for the groups that this node leads what they were told.
#[derive(Default)]
pub(super) struct Chores {
    /// Removed nodes of which a group is known to hold nothing.
    forgotten: Arc<Mutex<BTreeSet<(u32, NodeId)>>>,
}

/// One thing to tell a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chore {
    Raise(u16),
    Forget(NodeId),
}

impl Chores {
    /// A group that this node does not lead (any more) may be told something else meanwhile.
    pub fn drop_group(&self, group: u32) {
        self.forgotten.lock().retain(|(of, _)| *of != group);
    }

    /// What a group that this node leads is to be told next.
    pub fn next(&self, view: &MetadataView, group: &Group) -> Option<Chore> {
        let replica = &group.replica;
        let level = replica.feature_level();
        // Group 0 was told first: it is where the level comes from.
        if replica.shard != ShardId::METADATA && level < view.cluster.feature_level {
            return Some(Chore::Raise(view.cluster.feature_level));
        }
        let forgotten = self.forgotten.lock();
        let mut removed = view
            .nodes
            .iter()
            .filter(|node| node.state == NodeState::Removed)
            .map(|node| node.id);
        let next = removed.find(|node| !forgotten.contains(&(replica.group.0, *node)))?;
        let forget = Command::ForgetNode { node: next };
        (forget.feature_level() <= level).then_some(Chore::Forget(next))
    }

    /// Tells it.
    pub fn tell(&self, group: Arc<Group>, chore: Chore) -> impl Future<Output = ()> + use<> {
        let forgotten = self.forgotten.clone();
        async move {
            let id = group.replica.group.0;
            match tell(&group, &chore).await {
                Ok(true) => tracing::info!(group = id, ?chore, "told the group"),
                Ok(false) => {}
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(group = id, ?chore, error, "the group could not be told yet");
                    return;
                }
            }
            if let Chore::Forget(node) = chore {
                forgotten.lock().insert((id, node));
            }
        }
    }
}

/// Gives whether there was something to tell.
async fn tell(group: &Group, chore: &Chore) -> Result<bool, ClusterError> {
    let command = match chore {
        Chore::Raise(to) => Command::RaiseFeatureLevel { to: *to },
        Chore::Forget(node) => {
            let node = *node;
            let remembers = |records: &dyn flotilla_model::records::Records| {
                query::remembers_node(records, node)
            };
            if !group.replica.read(remembers).await? {
                return Ok(false);
            }
            Command::ForgetNode { node }
        }
    };
    let deadline = Instant::now() + CHORE_DEADLINE;
    let outcomes = group.shard.propose(vec![command], Vec::new(), deadline);
    match outcomes.await?.first() {
        Some(Outcome::Refused(refusal)) => Err(ClusterError::Refused {
            reason: refusal.to_string(),
        }),
        _ => Ok(true),
    }
}
