//! Reading the state: every question that the floors above may ask of a shard.
//!
//! A query takes the records as they are in memory and either answers or says which records must
//! be loaded first; then it is run again. None of them changes anything.

mod lists;
mod liveness;
mod metadata;
mod outbox;
mod queue;
mod sessions;
mod shard;
mod topic;

pub use lists::{ObjectInfo, objects};
pub use liveness::{SlotRun, is_live, live_runs};
pub use metadata::{
    ClusterRecord, MetadataView, NodeRecord, PlacementRecord, metadata, node_by_disk,
};
pub use outbox::{OutboxItem, outbox_pending};
pub use queue::{
    LeaseInfo, QueueInfo, lease_get, queue_first, queue_info, queue_info_of, queue_peek,
};
pub use sessions::{remembers_node, session_nodes};
pub use shard::{ShardStats, next_due, shard_stats};
pub use topic::{
    CursorInfo, IndexRecord, TopicInfo, cursor_get, cursors, topic_info, topic_info_of,
    topic_locate, topic_offset_at_wall,
};

use crate::ids::ObjectId;
use crate::key::Key;
use crate::record::{ShardMeta, Stored};
use crate::records::{Lookup, NeedsKeys, Records, find};

/// The root record; a shard that no entry has reached has the first one.
fn meta(records: &dyn Records) -> Result<ShardMeta, NeedsKeys> {
    Ok(find::<ShardMeta>(records, Key::Meta)?.map_or_else(ShardMeta::default, |meta| meta.clone()))
}

/// The value of a record.
fn value<T: Stored>(records: &dyn Records, key: Key) -> Result<Option<T>, NeedsKeys> {
    Ok(find::<T>(records, key)?.map(|record| T::clone(&record)))
}

/// A topic or queue by an id that may be gone, or of the other kind.
fn object<T: Stored>(records: &dyn Records, object: ObjectId) -> Result<Option<T>, NeedsKeys> {
    let key = Key::Object(object);
    match records.get(&key) {
        Lookup::Found(record) => Ok(T::try_peel(&record).cloned()),
        Lookup::Absent => Ok(None),
        Lookup::Missing => Err(NeedsKeys(vec![key])),
    }
}
