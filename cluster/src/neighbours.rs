//! What the broker must know of other nodes to find who answers.

use std::collections::BTreeMap;

use flotilla_model::ids::NodeId;

use crate::cluster::Cluster;
use crate::shard::Shard;

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

impl Shard {
    /// Whether no other node has a vote in it: then nobody else can lead it.
    pub fn is_alone(&self) -> bool {
        self.replica().is_alone()
    }
}
