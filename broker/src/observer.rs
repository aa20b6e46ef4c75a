//! Carries what shards changed to the actors of those names, if they have one.
//!
//! It runs on the shards' apply tasks: it looks up live names, leaves the news and rings, and never
//! waits for an actor.

use std::sync::Weak;

use flotilla_cluster::{Observer, Role};
use flotilla_model::ids::ShardId;
use flotilla_model::name::Kind;
use flotilla_model::outcome::Change;

use crate::core::Core;
use crate::wake::Wake;

/// The broker's ear at every shard.
pub(crate) struct ShardObserver {
    core: Weak<Core>,
}

impl ShardObserver {
    pub fn new(core: Weak<Core>) -> Self {
        Self { core }
    }
}

impl Observer for ShardObserver {
    fn applied(&self, shard: ShardId, changes: &[Change]) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        let is_led = core
            .cluster
            .shard(shard)
            .is_some_and(|shard| core.serves(shard));
        for change in changes {
            if let Change::Appended { name, .. } | Change::Available { name, .. } = change
                && is_led
            {
                core.metrics.used(name);
            }
            match change {
                Change::Appended { object, name, next } => {
                    core.topics
                        .with_wake(name, |wake| wake.appended(*object, *next));
                }
                Change::Available { name, .. } | Change::LeaseEnded { name, .. } => {
                    core.queues.with_wake(name, Wake::ring);
                }
                Change::Deleted { kind, name } => {
                    match kind {
                        Kind::Topic => core.topics.with_wake(name, Wake::deleted),
                        Kind::Queue => core.queues.with_wake(name, Wake::ring),
                        Kind::Signal | Kind::Request | Kind::Command => {}
                    }
                    core.metrics.forget(name);
                    core.name_limits.forget(name);
                }
                // The shards empty their outboxes themselves, and the cluster minds its metadata.
                Change::Outbox { .. } | Change::Metadata => {}
            }
        }
        core.metrics.changed();
    }

    fn role(&self, shard: ShardId, role: Role) {
        if let Some(core) = self.core.upgrade()
            && role != Role::Leader
            && let Some(led) = core.cluster.shard(shard)
            && !core.is_last_resort(led)
        {
            core.cease_to_lead(shard);
        }
        match role {
            Role::Leader => tracing::info!(%shard, "leads"),
            Role::Follower => tracing::info!(%shard, "follows"),
            Role::Failed => tracing::error!(%shard, "out of service"),
        }
    }
}
