//! Who is at the ends of a link, and what makes a node refuse to listen.

use flotilla_model::ids::NodeId;
use tonic::Status;

use super::peers::{PeerIdentity, ServiceId};
use super::versions::LinkVersions;
use super::wire::proto::Caller;
use crate::identity::ClusterId;

/// Who this node is to its peers. Changes once, when it forms or joins a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalIdentity {
    /// `None` before a cluster was formed or joined.
    pub cluster: Option<ClusterId>,
    /// 0 before that.
    pub node: NodeId,
    /// The node's start counter.
    pub incarnation: u64,
    /// What this build speaks.
    pub versions: LinkVersions,
}

impl LocalIdentity {
    /// What goes with each request of this node. `newest` is the newest version that the target speaks, as
    /// far as that is known.
    pub fn caller(&self, target: NodeId, newest: Option<u32>) -> Caller {
        Caller {
            version: self.versions.spoken(newest),
            version_newest: self.versions.newest,
            cluster: self
                .cluster
                .map(|cluster| cluster.0.to_vec().into())
                .unwrap_or_default(),
            node: self.node.0,
            incarnation: self.incarnation,
            target: target.0,
        }
    }

    /// Who asks, if this node listens to it.
    pub fn admit(
        &self,
        caller: Option<Caller>,
        service: Option<ServiceId>,
    ) -> Result<PeerIdentity, Status> {
        let caller = caller.ok_or_else(|| Status::invalid_argument("it does not say who asks"))?;
        self.versions.check(caller.version)?;
        let cluster = self.cluster.map(|cluster| cluster.0.to_vec());
        let is_of_this_cluster = cluster.as_deref() == Some(&caller.cluster[..]);
        if service == Some(ServiceId::FORMING) {
            // Nodes that look for a cluster know neither each other's ids nor whether they belong
            // together: that is what they talk about.
            let node = if is_of_this_cluster { caller.node } else { 0 };
            return Ok(PeerIdentity {
                node: NodeId(node),
                incarnation: caller.incarnation,
            });
        }
        let Some(own_cluster) = self.cluster else {
            return Err(Status::unavailable("this node is in no cluster yet"));
        };
        if !is_of_this_cluster {
            return refuse(match <[u8; 16]>::try_from(&caller.cluster[..]) {
                Ok(other) => format!(
                    "this node is of cluster {own_cluster}, the caller of cluster {}",
                    ClusterId(other)
                ),
                Err(_) => {
                    format!("this node is of cluster {own_cluster}, the caller of none")
                }
            });
        }
        if caller.target != self.node.0 {
            return refuse(format!(
                "this is node {}, and node {} was meant",
                self.node, caller.target
            ));
        }
        if caller.node == 0 {
            return refuse("the caller has no node id".to_owned());
        }
        Ok(PeerIdentity {
            node: NodeId(caller.node),
            incarnation: caller.incarnation,
        })
    }
}

fn refuse<T>(reason: String) -> Result<T, Status> {
    Err(Status::failed_precondition(reason))
}
