//! What the broker learns from the cluster while it runs: the other nodes, and sessions that are lost.

use std::sync::{Arc, Weak};
use std::time::Duration;

use flotilla_cluster::LostShards;
use flotilla_model::ids::ShardId;
use tokio::sync::broadcast;

use crate::core::Core;
use crate::peers::service::BrokerService;
use crate::queue::session::end_in_background;

/// How often it is looked which other nodes there are.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// Begins to answer other nodes, and to follow what the cluster tells.
pub(crate) fn join(core: &Arc<Core>) {
    look_around(core);
    let service = BrokerService::new(Arc::downgrade(core));
    core.cluster.serve_broker(Arc::new(service));
    core.runtime.spawn(follow_nodes(Arc::downgrade(core)));
    let lost = core.cluster.lost_shards();
    core.runtime
        .spawn(follow_losses(Arc::downgrade(core), lost));
}

fn look_around(core: &Arc<Core>) {
    let others = core.cluster.neighbours();
    core.set_has_peers(!others.is_empty());
    core.hubs.set_nodes(core, &others);
    core.requests.links.set_nodes(core, &others);
}

async fn follow_nodes(core: Weak<Core>) {
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        match core.upgrade() {
            Some(core) if !core.is_closing() => look_around(&core),
            _ => return,
        }
    }
}

async fn follow_losses(core: Weak<Core>, mut losses: broadcast::Receiver<LostShards>) {
    loop {
        let lost = losses.recv().await;
        let Some(core) = core.upgrade() else {
            return;
        };
        match lost {
            Ok(lost) => lose(&core, lost.generation, &lost.shards),
            Err(broadcast::error::RecvError::Closed) => return,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                // What was missed is not known: every older session that holds anything is over.
                let shards = core.cluster.shards().iter();
                let shards: Vec<_> = shards.map(flotilla_cluster::Shard::id).collect();
                let generation = core.cluster.session_generation().saturating_sub(1);
                lose(&core, generation, &shards);
            }
        }
    }
}

/// Ends the sessions that are lost. They are released at once, wherever they hold something: whoever
/// used them is told that they are over.
fn lose(core: &Arc<Core>, generation: u64, shards: &[ShardId]) {
    let over = core.sessions.lose(generation, shards);
    if !over.is_empty() {
        tracing::warn!(
            generation,
            ?shards,
            sessions = over.len(),
            "sessions are lost"
        );
    }
    for session in over {
        end_in_background(core, &session);
    }
}
