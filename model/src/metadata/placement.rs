//! Placement: which nodes are to keep a shard.

use std::collections::BTreeSet;

use super::{NodeState, REPLICAS_MAX, SHARDS_MAX, changed, check_version, nodes};
use crate::ids::{NodeId, ShardId};
use crate::key::{Key, TrieId};
use crate::outcome::{Outcome, Refusal};
use crate::overlay::Work;
use crate::record::{ClusterState, Member, Placement};
use crate::records::{NeedsKeys, require};
use crate::trie;

/// Says which nodes keep a shard.
pub(super) fn set(
    work: &mut Work<'_>,
    shard: ShardId,
    replicas: &[NodeId],
    expected_version: u64,
) -> Result<Outcome, NeedsKeys> {
    if let Err(refusal) = check_shape(shard, replicas) {
        return Ok(Outcome::Refused(refusal));
    }
    let key = Key::Placement(shard);
    let mut placement = work.take::<Placement>(key)?.unwrap_or_default();
    let what = || format!("the placement of shard {shard}");
    if let Err(refusal) = check_version(what, placement.version, expected_version) {
        return Ok(Outcome::Refused(refusal));
    }
    require(work, replicas.iter().map(|node| Key::Member(*node)))?;
    for node in replicas {
        let refusal = match work.find::<Member>(Key::Member(*node))? {
            None => nodes::unknown(*node),
            Some(member) if member.state == NodeState::Removed => {
                Refusal::NodeRemoved { node: *node }
            }
            Some(_) => continue,
        };
        return Ok(Outcome::Refused(refusal));
    }
    if placement.replicas == replicas {
        return Ok(Outcome::Done);
    }
    if placement.version == 0 {
        let mut cluster = *work.edit_or_default::<ClusterState>(Key::Cluster)?;
        let height = &mut cluster.placements_height;
        trie::insert(work, TrieId::Placements, height, u64::from(shard.0))?;
        work.put(Key::Cluster, cluster);
    }
    placement.version += 1;
    placement.replicas = replicas.to_vec();
    work.put(key, placement);
    changed(work)?;
    Ok(Outcome::Done)
}

fn check_shape(shard: ShardId, replicas: &[NodeId]) -> Result<(), Refusal> {
    let wrong = if shard.0 > SHARDS_MAX {
        Some(format!("shard {shard} is above {SHARDS_MAX}"))
    } else if replicas.is_empty() || replicas.len() > REPLICAS_MAX {
        Some(format!(
            "a shard has 1 to {REPLICAS_MAX} replicas, not {}",
            replicas.len()
        ))
    } else {
        let repeated = replicas.iter().enumerate();
        repeated
            .filter(|(at, node)| replicas[..*at].contains(node))
            .map(|(_, node)| format!("node {node} is named twice"))
            .next()
    };
    match wrong {
        None => Ok(()),
        Some(what) => Err(Refusal::Invalid { what }),
    }
}

/// All nodes that a placement names.
pub(super) fn nodes_placed(
    work: &mut Work<'_>,
    cluster: &ClusterState,
) -> Result<BTreeSet<NodeId>, NeedsKeys> {
    let mut nodes = BTreeSet::new();
    let mut from = 0;
    let height = cluster.placements_height;
    while let Some(shard) = trie::next(work, TrieId::Placements, height, from)? {
        work.count_effort(1);
        let key = Key::Placement(ShardId(shard as u32));
        if let Some(placement) = work.find::<Placement>(key)? {
            nodes.extend(&placement.replicas);
        }
        from = shard + 1;
    }
    Ok(nodes)
}
