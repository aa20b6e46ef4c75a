//! What the broker has of the links to other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_model::ids::NodeId;

use crate::cluster::Cluster;
use crate::net::{PeerService, Peers, ServiceId};

impl Cluster {
    /// The links to all other nodes.
    pub fn peers(&self) -> Peers {
        self.inner.links.peers()
    }

    /// Has the broker answer other nodes.
    pub fn serve_broker(&self, service: Arc<dyn PeerService>) {
        self.inner.links.register(ServiceId::BROKER, service);
    }

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
