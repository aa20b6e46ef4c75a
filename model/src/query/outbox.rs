//! What waits to be sent to other shards.

use super::value;
use crate::command::{Moved, QueuePolicy};
use crate::ids::ShardId;
use crate::key::Key;
use crate::name::Name;
use crate::outcome::MessageRef;
use crate::record::{OutboxHead, OutboxMessage};
use crate::records::{NeedsKeys, Records, find, require};

/// A message on its way to a queue of another shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxItem {
    /// Dense per target from 1: the sequence under which the target applies it.
    pub id: u64,
    /// The queue it goes to.
    pub queue: Name,
    /// Its bytes, in this shard's log.
    pub at: MessageRef,
    /// How it is to be treated there.
    pub policy: QueuePolicy,
    /// Where it was.
    pub moved: Moved,
}

/// The oldest items for a target, at most `items_max`.
pub fn outbox_pending(
    records: &dyn Records,
    target: ShardId,
    items_max: usize,
) -> Result<Vec<OutboxItem>, NeedsKeys> {
    let Some(head) = find::<OutboxHead>(records, Key::Outbox(target))? else {
        return Ok(Vec::new());
    };
    let end = head.next.min(head.first.saturating_add(items_max as u64));
    require(
        records,
        (head.first..end).map(|id| Key::OutboxItem(target, id)),
    )?;
    let mut items = Vec::new();
    for id in head.first..end {
        if let Some(message) = value::<OutboxMessage>(records, Key::OutboxItem(target, id))? {
            items.push(OutboxItem {
                id,
                queue: message.queue,
                at: message.at,
                policy: message.policy,
                moved: message.moved,
            });
        }
    }
    Ok(items)
}
