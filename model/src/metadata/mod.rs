//! What group 0 keeps for all: which nodes there are, and where shards are to be kept.
//!
//! ```text
//!   RegisterNode ──► Member(id) ◄── MemberDisk(disk)        SetPlacement ──► Placement(shard)
//!   SetNodeState ──►  up ⇄ draining ⇄ gone ──► removed      SetReplicas, RaiseFeatureLevel ──► Cluster
//! ```
//!
//! Group 0 is run by the same machine as shards are; only its own commands are known nowhere else.
//! Records are for deciding, not for finding out: who leads, who is reachable and which nodes vote
//! at the moment is Raft's to say.
//!
//! A decision that was based on a record names the record's version, so that of two decisions based
//! on the same one only the first is taken.

mod nodes;
mod placement;

use bincode::{Decode, Encode};

use crate::command::Command;
use crate::ids::ShardId;
use crate::key::Key;
use crate::outcome::{Change, Outcome, Refusal};
use crate::overlay::Work;
use crate::record::ClusterState;
use crate::records::NeedsKeys;

/// Most nodes that are remembered; beyond it the oldest removed one is forgotten.
pub const NODES_MAX: u64 = 1_024;
/// The highest number of a shard that can be placed.
pub const SHARDS_MAX: u32 = 1_024;
/// Most replicas of a shard.
pub const REPLICAS_MAX: usize = 9;
/// How many replicas shards are to have, as long as nobody said.
pub const REPLICAS_DEFAULT: u32 = 3;
/// Most bytes of a node's name, address and zone, each.
pub const NODE_TEXT_BYTES_MAX: usize = 300;

/// What part a node takes. The variants' order is the stored format: only ever append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum NodeState {
    /// It keeps replicas.
    Up,
    /// It is to keep none any more, and gives away those that it has.
    Draining,
    /// It was not heard of for so long that its replicas were given to others. It is up again when
    /// it registers again.
    Gone,
    /// It left, for ever.
    Removed,
}

/// Runs a command that only group 0 knows.
pub(crate) fn run(work: &mut Work<'_>, command: &Command) -> Result<Outcome, NeedsKeys> {
    if work.shard != ShardId::METADATA {
        return Ok(Outcome::Refused(Refusal::NotMetadata { shard: work.shard }));
    }
    match command {
        Command::RegisterNode {
            disk,
            name,
            address,
            zone,
            feature_level_max,
            wanted,
        } => {
            let described = nodes::Described {
                disk: *disk,
                name,
                address,
                zone,
                feature_level_max: *feature_level_max,
            };
            nodes::register(work, &described, *wanted)
        }
        Command::SetNodeState {
            node,
            state,
            expected_version,
        } => nodes::set_state(work, *node, *state, *expected_version),
        Command::SetPlacement {
            shard,
            replicas,
            expected_version,
        } => placement::set(work, *shard, replicas, *expected_version),
        Command::SetReplicas { replicas } => set_replicas(work, *replicas),
        Command::RaiseFeatureLevel { to } => nodes::raise_feature_level(work, *to),
        other => Ok(invalid(format!("not a metadata command: {other:?}"))),
    }
}

fn set_replicas(work: &mut Work<'_>, replicas: u32) -> Result<Outcome, NeedsKeys> {
    if replicas == 0 || replicas as usize > REPLICAS_MAX {
        return Ok(invalid(format!(
            "a shard has 1 to {REPLICAS_MAX} replicas, not {replicas}"
        )));
    }
    let cluster = work.edit_or_default::<ClusterState>(Key::Cluster)?;
    if cluster.replicas != replicas {
        cluster.replicas = replicas;
        changed(work)?;
    }
    Ok(Outcome::Done)
}

/// Counts a change and tells whoever watches.
fn changed(work: &mut Work<'_>) -> Result<(), NeedsKeys> {
    work.edit_or_default::<ClusterState>(Key::Cluster)?.version += 1;
    work.note(Change::Metadata);
    Ok(())
}

fn invalid(what: String) -> Outcome {
    Outcome::Refused(Refusal::Invalid { what })
}

/// Refuses a decision that was based on another version.
fn check_version(what: impl FnOnce() -> String, found: u64, expected: u64) -> Result<(), Refusal> {
    if found == expected {
        return Ok(());
    }
    Err(Refusal::VersionConflict {
        what: what(),
        found,
        expected,
    })
}
