//! What the floors above see of leaders, sessions and silence.

use std::time::Instant;

use flotilla_model::ids::{NodeId, ShardId};
use tokio::sync::broadcast;

use crate::cluster::Cluster;
use crate::handover;
use crate::presence::LostShards;

impl Cluster {
    /// The node that leads a shard, if that is known.
    pub fn leader_of(&self, shard: ShardId) -> Option<NodeId> {
        self.shard(shard)?.leader()
    }

    /// What the ids of new sessions carry as their incarnation. Raised when this node could not renew
    /// its sessions with some shard's leader: ask for every session, and see [`Self::lost_shards`].
    pub fn session_generation(&self) -> u64 {
        self.inner.board.session_generation()
    }

    /// Tells when sessions are over because some leaders did not acknowledge this node for longer
    /// than a failover takes (3.5 s with the default election timeout): those of the generation named, or an
    /// older one, that hold something on the shards named. The leaders release what they held later. Who misses a report must end all sessions of older generations
    /// than the present one. A session whose generation was asked for before and registered after a
    /// report compares it with the present one.
    pub fn lost_shards(&self) -> broadcast::Receiver<LostShards> {
        self.inner.board.lost_shards()
    }

    /// Whether a node was heard within the last 2 s.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.inner.board.is_up(node)
    }

    /// Makes other nodes the leaders of whatever this one leads, as far as there are any that keep up,
    /// and stands for no election any more. The first step of a shutdown: nothing is refused meanwhile.
    pub async fn hand_over(&self, deadline: Instant) {
        handover::hand_over(&self.inner.groups, &self.inner.board, deadline).await;
    }
}
