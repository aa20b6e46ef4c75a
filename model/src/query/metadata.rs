//! What group 0 knows about the cluster.

use super::{meta, value};
use crate::ids::{DiskId, NodeId, ShardId};
use crate::key::{Key, TrieId};
use crate::metadata::NodeState;
use crate::record::{ClusterState, Member, Placement};
use crate::records::{NeedsKeys, Records, find, require};
use crate::trie;

/// All metadata, as of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataView {
    /// The cluster as a whole.
    pub cluster: ClusterRecord,
    /// Its nodes, removed ones too, by id.
    pub nodes: Vec<NodeRecord>,
    /// Where shards are kept, by shard.
    pub placements: Vec<PlacementRecord>,
}

/// The cluster as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterRecord {
    /// How many shards there are.
    pub shard_count: u32,
    /// How many replicas each is to have.
    pub replicas: u32,
    /// Which behaviour every node follows.
    pub feature_level: u16,
    /// The id that the next new node gets.
    pub next_node_id: NodeId,
    /// Counts changes of nodes, placements, replicas and feature level; 0: nothing was recorded.
    pub version: u64,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Given once, never reused.
    pub id: NodeId,
    /// What it is recognised by.
    pub disk: DiskId,
    /// For display.
    pub name: String,
    /// Where other nodes reach it.
    pub address: String,
    /// Where it stands.
    pub zone: String,
    /// The highest feature level that its build can follow.
    pub feature_level_max: u16,
    /// What part it takes.
    pub state: NodeState,
    /// Counts changes of this record, from 1.
    pub version: u64,
}

/// The nodes that are to keep a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementRecord {
    /// The shard, or group 0.
    pub shard: ShardId,
    /// The first should lead.
    pub replicas: Vec<NodeId>,
    /// Counts changes of this record, from 1.
    pub version: u64,
}

/// All metadata; only group 0 has any.
pub fn metadata(records: &dyn Records) -> Result<MetadataView, NeedsKeys> {
    let meta = meta(records)?;
    let cluster = value::<ClusterState>(records, Key::Cluster)?.unwrap_or_default();
    let ids = numbers(records, TrieId::Members, cluster.members_height)?;
    let shards = numbers(records, TrieId::Placements, cluster.placements_height)?;
    let members = ids.iter().map(|id| Key::Member(NodeId(*id)));
    let placed = shards.iter().map(|shard| placement_key(*shard));
    require(records, members.chain(placed))?;
    let mut nodes = Vec::with_capacity(ids.len());
    for id in ids {
        let member = find::<Member>(records, Key::Member(NodeId(id)))?;
        nodes.extend(member.map(|member| node_record(NodeId(id), &member)));
    }
    let mut placements = Vec::with_capacity(shards.len());
    for shard in shards {
        if let Some(placement) = value::<Placement>(records, placement_key(shard))? {
            placements.push(PlacementRecord {
                shard: ShardId(shard as u32),
                replicas: placement.replicas,
                version: placement.version,
            });
        }
    }
    Ok(MetadataView {
        cluster: ClusterRecord {
            shard_count: meta.defaults.shard_count,
            replicas: cluster.replicas,
            feature_level: meta.feature_level,
            next_node_id: NodeId(cluster.node_next),
            version: cluster.version,
        },
        nodes,
        placements,
    })
}

/// The node that a disk is.
pub fn node_by_disk(records: &dyn Records, disk: DiskId) -> Result<Option<NodeRecord>, NeedsKeys> {
    let Some(id) = value::<NodeId>(records, Key::MemberDisk(disk))? else {
        return Ok(None);
    };
    let member = find::<Member>(records, Key::Member(id))?;
    Ok(member.map(|member| node_record(id, &member)))
}

fn node_record(id: NodeId, member: &Member) -> NodeRecord {
    NodeRecord {
        id,
        disk: member.disk,
        name: member.name.clone(),
        address: member.address.clone(),
        zone: member.zone.clone(),
        feature_level_max: member.feature_level_max,
        state: member.state,
        version: member.version,
    }
}

/// Shards are kept in a trie of wider numbers.
fn placement_key(shard: u64) -> Key {
    Key::Placement(ShardId(shard as u32))
}

fn numbers(records: &dyn Records, id: TrieId, height: u8) -> Result<Vec<u64>, NeedsKeys> {
    let mut numbers = Vec::new();
    let mut from = 0;
    while let Some(number) = trie::next(records, id, height, from)? {
        numbers.push(number);
        from = number + 1;
    }
    Ok(numbers)
}
