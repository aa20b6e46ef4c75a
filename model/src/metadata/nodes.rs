//! Nodes: who they are, and what part they take.

use super::{NODE_TEXT_BYTES_MAX, NODES_MAX, NodeState, changed, check_version, invalid};
use crate::ids::{DiskId, NodeId};
use crate::key::{Key, TrieId};
use crate::level;
use crate::outcome::{Outcome, Refusal};
use crate::overlay::Work;
use crate::record::{ClusterState, Member};
use crate::records::NeedsKeys;
use crate::trie;

/// What a node says of itself.
pub(super) struct Described<'a> {
    pub disk: DiskId,
    pub name: &'a str,
    pub address: &'a str,
    pub zone: &'a str,
    pub feature_level_max: u16,
}

/// Gives a node its id, or brings its record up to date.
pub(super) fn register(
    work: &mut Work<'_>,
    described: &Described<'_>,
    wanted: Option<NodeId>,
) -> Result<Outcome, NeedsKeys> {
    let known = work
        .find::<NodeId>(Key::MemberDisk(described.disk))?
        .map(|id| *id);
    if let Err(refusal) = check_described(work, described, known) {
        return Ok(Outcome::Refused(refusal));
    }
    match known {
        Some(node) => update(work, node, described, wanted),
        None => add(work, described, wanted),
    }
}

fn check_described(
    work: &Work<'_>,
    described: &Described<'_>,
    known: Option<NodeId>,
) -> Result<(), Refusal> {
    let texts = [
        ("name", described.name),
        ("address", described.address),
        ("zone", described.zone),
    ];
    for (what, text) in texts {
        if text.len() > NODE_TEXT_BYTES_MAX {
            return Err(Refusal::Invalid {
                what: format!(
                    "the {what} of a node has {} bytes, at most {NODE_TEXT_BYTES_MAX} are allowed",
                    text.len()
                ),
            });
        }
    }
    // It would not understand what the others do.
    if described.feature_level_max < work.meta.feature_level {
        return Err(Refusal::FeatureLevel {
            node: known.unwrap_or_default(),
            known: described.feature_level_max,
            wanted: work.meta.feature_level,
        });
    }
    Ok(())
}

/// A disk that is known: the node started again, perhaps elsewhere or with another build.
fn update(
    work: &mut Work<'_>,
    node: NodeId,
    described: &Described<'_>,
    wanted: Option<NodeId>,
) -> Result<Outcome, NeedsKeys> {
    if let Some(wanted) = wanted
        && wanted != node
    {
        return Ok(invalid(format!(
            "the disk is that of node {node}, it cannot be node {wanted}"
        )));
    }
    let member = existing(work, node)?;
    let state = match member.state {
        NodeState::Removed => return Ok(Outcome::Refused(Refusal::NodeRemoved { node })),
        // It is heard of again.
        NodeState::Gone => NodeState::Up,
        state @ (NodeState::Up | NodeState::Draining) => state,
    };
    let version = member.version;
    let updated = described.member(state, version);
    if updated != member {
        put(work, node, updated)?;
    }
    Ok(Outcome::NodeRegistered { node })
}

/// A disk that was never seen: a new node, even if it has the name and address of another.
fn add(
    work: &mut Work<'_>,
    described: &Described<'_>,
    wanted: Option<NodeId>,
) -> Result<Outcome, NeedsKeys> {
    let mut cluster = *work.edit_or_default::<ClusterState>(Key::Cluster)?;
    let node = match wanted {
        Some(NodeId(id)) if id == 0 || id > NODES_MAX => {
            return Ok(invalid(format!(
                "an id that is asked for is 1 to {NODES_MAX}, not {id}"
            )));
        }
        Some(node) if is_taken(work, &cluster, node)? => {
            return Ok(Outcome::Refused(Refusal::NodeIdTaken { node }));
        }
        Some(node) => node,
        None => NodeId(cluster.node_next),
    };
    if cluster.members >= NODES_MAX {
        let Some(forgotten) = oldest_removed(work, &cluster)? else {
            return Ok(invalid(format!(
                "the cluster has {NODES_MAX} nodes, which is the most it can have"
            )));
        };
        forget(work, &mut cluster, forgotten)?;
    }
    cluster.node_next = cluster.node_next.max(node.0.saturating_add(1));
    cluster.members += 1;
    trie::insert(work, TrieId::Members, &mut cluster.members_height, node.0)?;
    work.put(Key::Cluster, cluster);
    work.put(Key::MemberDisk(described.disk), node);
    put(work, node, described.member(NodeState::Up, 0))?;
    Ok(Outcome::NodeRegistered { node })
}

/// Whether an id was ever given out. Once a node was forgotten, an id without a record may be its.
fn is_taken(work: &Work<'_>, cluster: &ClusterState, node: NodeId) -> Result<bool, NeedsKeys> {
    if node.0 >= cluster.node_next {
        return Ok(false);
    }
    Ok(cluster.forgotten > 0 || work.find::<Member>(Key::Member(node))?.is_some())
}

/// The removed node with the lowest id that no placement names.
fn oldest_removed(
    work: &mut Work<'_>,
    cluster: &ClusterState,
) -> Result<Option<NodeId>, NeedsKeys> {
    let placed = super::placement::nodes_placed(work, cluster)?;
    let mut from = 0;
    while let Some(id) = trie::next(work, TrieId::Members, cluster.members_height, from)? {
        work.count_effort(1);
        let node = NodeId(id);
        if existing(work, node)?.state == NodeState::Removed && !placed.contains(&node) {
            return Ok(Some(node));
        }
        from = id + 1;
    }
    Ok(None)
}

fn forget(work: &mut Work<'_>, cluster: &mut ClusterState, node: NodeId) -> Result<(), NeedsKeys> {
    let member = existing(work, node)?;
    work.delete(Key::MemberDisk(member.disk));
    work.delete(Key::Member(node));
    trie::remove(work, TrieId::Members, &mut cluster.members_height, node.0)?;
    cluster.members -= 1;
    cluster.forgotten += 1;
    Ok(())
}

/// Says what part a node takes.
pub(super) fn set_state(
    work: &mut Work<'_>,
    node: NodeId,
    state: NodeState,
    expected_version: u64,
) -> Result<Outcome, NeedsKeys> {
    let Some(mut member) = work.take::<Member>(Key::Member(node))? else {
        return Ok(Outcome::Refused(unknown(node)));
    };
    let checked = check_version(|| format!("node {node}"), member.version, expected_version);
    if let Err(refusal) = checked {
        return Ok(Outcome::Refused(refusal));
    }
    if member.state == state {
        return Ok(Outcome::Done);
    }
    if member.state == NodeState::Removed {
        return Ok(Outcome::Refused(Refusal::NodeRemoved { node }));
    }
    member.state = state;
    put(work, node, member)?;
    Ok(Outcome::Done)
}

/// Raises the feature level, if every node that may come back can follow it.
pub(super) fn raise_feature_level(work: &mut Work<'_>, to: u16) -> Result<Outcome, NeedsKeys> {
    let present = work.meta.feature_level;
    if to < present {
        return Ok(invalid(level::cannot_go_down(present, to)));
    }
    if to == present {
        return Ok(Outcome::Done);
    }
    let height = work
        .edit_or_default::<ClusterState>(Key::Cluster)?
        .members_height;
    let mut from = 0;
    let mut is_known = false;
    while let Some(id) = trie::next(work, TrieId::Members, height, from)? {
        work.count_effort(1);
        let node = NodeId(id);
        let member = existing(work, node)?;
        if member.state != NodeState::Removed {
            is_known = true;
            if member.feature_level_max < to {
                return Ok(Outcome::Refused(Refusal::FeatureLevel {
                    node,
                    known: member.feature_level_max,
                    wanted: to,
                }));
            }
        }
        from = id + 1;
    }
    if !is_known {
        return Ok(invalid(
            "no node is registered that could follow a higher feature level".to_owned(),
        ));
    }
    work.meta.feature_level = to;
    changed(work)?;
    Ok(Outcome::Done)
}

/// The refusal for a node that is not there.
pub(super) fn unknown(node: NodeId) -> Refusal {
    Refusal::NotFound {
        what: format!("node {node}"),
    }
}

/// A node that the set of ids or a disk names.
fn existing(work: &Work<'_>, node: NodeId) -> Result<Member, NeedsKeys> {
    Ok(work
        .take::<Member>(Key::Member(node))?
        .expect("a node has a record as long as its id is in the set"))
}

/// Stores a node's record under its next version.
fn put(work: &mut Work<'_>, node: NodeId, mut member: Member) -> Result<(), NeedsKeys> {
    member.version += 1;
    work.put(Key::Member(node), member);
    changed(work)
}

impl Described<'_> {
    fn member(&self, state: NodeState, version: u64) -> Member {
        Member {
            disk: self.disk,
            name: self.name.to_owned(),
            address: self.address.to_owned(),
            zone: self.zone.to_owned(),
            feature_level_max: self.feature_level_max,
            state,
            version,
        }
    }
}
