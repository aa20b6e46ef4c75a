//! Why something that only a shard's leader can do failed: for good, or only at this node.

use flotilla_cluster::ClusterError;

use crate::api::error::BrokerError;

/// What the leader's side answers when it does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not by this node, or not now: whoever asked finds the leader and asks again.
    Moved,
    /// The caller is to be told.
    Failed(BrokerError),
}

impl From<BrokerError> for Fault {
    fn from(error: BrokerError) -> Self {
        Self::Failed(error)
    }
}

impl From<ClusterError> for Fault {
    fn from(error: ClusterError) -> Self {
        Self::Failed(BrokerError::from(error))
    }
}
