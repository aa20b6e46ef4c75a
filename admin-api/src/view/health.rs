//! The shapes of what probes are answered.

use flotilla_broker::ShardHealth;
use serde::Serialize;

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
pub struct ReadyView {
    pub ready: bool,
    pub reasons: Vec<String>,
    pub shards: Vec<ShardHealthView>,
}

/// One shard in the answer of `/readyz`.
#[derive(Debug, Serialize)]
pub struct ShardHealthView {
    shard: u32,
    is_leader: bool,
    term: u64,
    applied: u64,
    failed: Option<String>,
}

impl From<ShardHealth> for ShardHealthView {
    fn from(shard: ShardHealth) -> Self {
        Self {
            shard: shard.shard.0,
            is_leader: shard.is_leader,
            term: shard.term,
            applied: shard.applied,
            failed: shard.failed,
        }
    }
}

/// The answer of `/healthz`.
#[derive(Debug, Serialize)]
pub struct AliveView {
    pub alive: bool,
}
