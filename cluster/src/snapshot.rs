//! Snapshots: the last durable checkpoint of a group, as something that can be handed to another node.
use std::io;
use std::sync::Arc;

use crate::error::ClusterError;
use crate::replica::Replica;
use crate::types::{Groups, SnapshotMeta};
use openraft::RaftSnapshotBuilder;

pub(crate) struct SnapshotHandle;
impl SnapshotHandle {
    pub async fn install(
        self,
        _replica: &Arc<Replica>,
        _meta: &SnapshotMeta,
    ) -> Result<(), ClusterError> {
        Ok(())
    }
    pub fn current(
        _replica: &Arc<Replica>,
    ) -> Option<openraft::alias::SnapshotOf<Groups, SnapshotHandle>> {
        None
    }
}
pub(crate) struct SnapshotBuilder;
impl SnapshotBuilder {
    pub fn new(_replica: Arc<Replica>, _force: bool) -> Self {
        Self
    }
}
impl RaftSnapshotBuilder<Groups> for SnapshotBuilder {
    type SnapshotData = SnapshotHandle;
    async fn build_snapshot(
        &mut self,
    ) -> Result<openraft::alias::SnapshotOf<Groups, SnapshotHandle>, io::Error> {
        Err(io::Error::other("x"))
    }
}
