//! Who is told what a shard does: the actors of the floor above.

use flotilla_model::ids::ShardId;
use flotilla_model::outcome::Change;

/// What this node is to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes commands.
    Leader,
    /// Another node does, or an election is running.
    Follower,
    /// The shard is out of service on this node; health says why.
    Failed,
}

/// Is told about a shard. Called on the shard's own tasks: it must be quick and must not block.
pub trait Observer: Send + Sync {
    /// After each applied entry that changed something.
    fn applied(&self, shard: ShardId, changes: &[Change]);
    /// The role of this node changed. Also called once when the observer begins to watch.
    fn role(&self, shard: ShardId, role: Role);
}
