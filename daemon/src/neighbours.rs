//! Log lines about the other nodes: who came, fell silent, was heard again, changed its part, left.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_cluster::ClusterNode;
use flotilla_model::ids::NodeId;
use tokio::sync::watch;
use tracing::{info, warn};

/// Writes the lines until the node ends.
pub async fn log(mut nodes: watch::Receiver<Arc<[ClusterNode]>>) {
    let mut known = BTreeMap::new();
    loop {
        let present: BTreeMap<NodeId, ClusterNode> = nodes
            .borrow_and_update()
            .iter()
            .filter(|node| !node.is_self)
            .map(|node| (node.id, node.clone()))
            .collect();
        for change in changes(&known, &present) {
            match change {
                Change::Silent(node) => {
                    warn!(node = %node.id, name = node.name, "a node is silent");
                }
                Change::Heard(node) => {
                    info!(node = %node.id, name = node.name, address = node.address, "a node is heard");
                }
                Change::Part(node) => {
                    info!(node = %node.id, name = node.name, state = ?node.state, "a node changes its part");
                }
                Change::Left(node) => info!(node = %node.id, name = node.name, "a node left"),
            }
        }
        known = present;
        if nodes.changed().await.is_err() {
            return;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Change<'a> {
    Silent(&'a ClusterNode),
    Heard(&'a ClusterNode),
    Part(&'a ClusterNode),
    Left(&'a ClusterNode),
}

/// What is worth a line. A node that was not heard yet is no news: nobody misses it.
fn changes<'a>(
    known: &'a BTreeMap<NodeId, ClusterNode>,
    present: &'a BTreeMap<NodeId, ClusterNode>,
) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    for (id, node) in present {
        let before = known.get(id);
        match (before.is_some_and(|before| before.is_up), node.is_up) {
            (true, false) => changes.push(Change::Silent(node)),
            (false, true) => changes.push(Change::Heard(node)),
            _ => {}
        }
        if before.is_some_and(|before| before.state != node.state) {
            changes.push(Change::Part(node));
        }
    }
    let left = known.iter().filter(|(id, _)| !present.contains_key(id));
    changes.extend(left.map(|(_, node)| Change::Left(node)));
    changes
}

#[cfg(test)]
mod tests {
    use flotilla_model::metadata::NodeState;

    use super::*;

    fn nodes(nodes: &[(u64, bool, NodeState)]) -> BTreeMap<NodeId, ClusterNode> {
        let node = |(id, is_up, state): &(u64, bool, NodeState)| ClusterNode {
            id: NodeId(*id),
            name: String::new(),
            address: String::new(),
            zone: String::new(),
            feature_level_max: 1,
            state: *state,
            is_up: *is_up,
            is_self: false,
            leader_of: Vec::new(),
            holds: Vec::new(),
        };
        nodes.iter().map(|n| (NodeId(n.0), node(n))).collect()
    }

    #[test]
    fn each_change_of_another_node_is_one_line() {
        let before = nodes(&[
            (1, true, NodeState::Up),
            (2, false, NodeState::Gone),
            (3, true, NodeState::Draining),
            (4, true, NodeState::Up),
        ]);
        let after = nodes(&[
            (1, false, NodeState::Up),
            (2, true, NodeState::Up),
            (4, true, NodeState::Up),
            (5, false, NodeState::Up),
        ]);
        let changes = changes(&before, &after);
        let expected = [
            Change::Silent(&after[&NodeId(1)]),
            Change::Heard(&after[&NodeId(2)]),
            Change::Part(&after[&NodeId(2)]),
            Change::Left(&before[&NodeId(3)]),
        ];
        assert_eq!(changes, expected);
    }
}
