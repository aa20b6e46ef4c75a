//! What the broker has of the links to other nodes.

use std::collections::BTreeMap;

use flotilla_model::ids::NodeId;

use crate::cluster::Cluster;

impl Cluster {
    /// The other nodes that this one has links to, and whether each was heard lately.
    pub fn neighbours(&self) -> BTreeMap<NodeId, bool> {
        let me = self.node().id;
        let nodes = self.inner.links.nodes().into_iter();
        nodes
            .filter(|node| *node != me)
            .map(|node| (node, self.is_up(node)))
            .collect()
    }
}
