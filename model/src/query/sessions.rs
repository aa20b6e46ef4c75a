//! Which nodes hold something.

use crate::ids::NodeId;
use crate::key::Key;
use crate::record::{NodeSessions, SessionNodes};
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
