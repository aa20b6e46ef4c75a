//! Listing topics and queues.

use std::sync::Arc;

use super::meta;
use crate::ids::ObjectId;
use crate::key::{Key, TrieId};
use crate::name::Name;
use crate::record::Record;
use crate::records::{Lookup, NeedsKeys, Records, require};
use crate::trie;

/// A topic or queue in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its id.
    pub object: ObjectId,
    /// Its name.
    pub name: Arc<Name>,
}

/// Topics and queues in the order in which they were created, after one of them, at most `limit`.
pub fn objects(
    records: &dyn Records,
    after: Option<ObjectId>,
    limit: usize,
) -> Result<Vec<ObjectInfo>, NeedsKeys> {
    let height = meta(records)?.objects_height;
    let mut ids = Vec::new();
    let mut from = after.map_or(0, |object| object.0.saturating_add(1));
    while ids.len() < limit {
        let Some(id) = trie::next(records, TrieId::Objects, height, from)? else {
            break;
        };
        ids.push(ObjectId(id));
        from = id + 1;
    }
    require(records, ids.iter().map(|object| Key::Object(*object)))?;
    let named = ids.into_iter().filter_map(|object| {
        let Lookup::Found(record) = records.get(&Key::Object(object)) else {
            return None;
        };
        let name = match &*record {
            Record::Topic(topic) => topic.name.clone(),
            Record::Queue(queue) => queue.name.clone(),
            _ => return None,
        };
        Some(ObjectInfo { object, name })
    });
    Ok(named.collect())
}
