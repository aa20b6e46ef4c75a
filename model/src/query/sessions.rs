//! Which nodes hold something.

use crate::ids::NodeId;
use crate::key::{Key, OriginKey};
use crate::origin::LIFE_NEVER;
use crate::record::{NodeSessions, OriginState, SessionNodes};
use crate::records::{NeedsKeys, Records, find, require};

/// Nodes with sessions that hold something, by id, each with an incarnation that none of those
/// sessions is above: ending what is below the next one ends them all.
pub fn session_nodes(records: &dyn Records) -> Result<Vec<(NodeId, u64)>, NeedsKeys> {
    let Some(nodes) = find::<SessionNodes>(records, Key::SessionNodes)? else {
        return Ok(Vec::new());
    };
    require(records, nodes.0.iter().map(|(node, _)| Key::Node(*node)))?;
    let mut holding = Vec::new();
    for (node, incarnation) in &nodes.0 {
        let sessions = find::<NodeSessions>(records, Key::Node(*node))?;
        if sessions.is_some_and(|sessions| sessions.sessions.live > 0) {
            holding.push((*node, *incarnation));
        }
    }
    Ok(holding)
}

/// Whether a node has left something that [`crate::command::Command::ForgetNode`] would clear.
pub fn remembers_node(records: &dyn Records, node: NodeId) -> Result<bool, NeedsKeys> {
    let (origin, sessions) = (Key::Origin(OriginKey::Node(node)), Key::Node(node));
    require(records, [origin, sessions])?;
    let sent = find::<OriginState>(records, origin)?;
    let held = find::<NodeSessions>(records, sessions)?;
    Ok(sent.is_some_and(|state| state.incarnation < LIFE_NEVER)
        || held.is_some_and(|state| state.incarnation_first < LIFE_NEVER))
}
