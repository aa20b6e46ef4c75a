//! Runs: neighbouring messages of a topic that were read together and are shared by all readers
//! that want them.

use std::sync::Arc;
use std::time::Instant;

use flotilla_cluster::Shard;
use flotilla_model::ids::{ObjectId, Offset};
use flotilla_model::query::{self, IndexRecord};
use tokio::sync::OwnedSemaphorePermit;

use crate::api::error::BrokerError;
use crate::api::topic::TopicDelivery;
use crate::core::Core;
use crate::payload::{self, Found, SlotRun, Unreadable};

/// Index records that one read looks at.
const RECORDS_PER_READ_MAX: usize = 256;
/// Messages that one read fetches.
pub(crate) const MESSAGES_PER_READ_MAX: u64 = 1_024;

/// A message and what it weighs.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub delivery: TopicDelivery,
    /// Encoded.
    pub bytes: u32,
}

/// All messages of a topic from one offset to another that can be delivered.
///
/// An offset in between without an item will never have one: retention dropped it, or it is damaged.
pub(crate) struct Run {
    /// The topic's incarnation.
    pub object: ObjectId,
    pub from: Offset,
    /// Exclusive.
    pub end: Offset,
    /// Ascending.
    pub items: Vec<Item>,
    pub last_used: Instant,
    pub read_at: Instant,
    /// The bytes' share of the node's budget.
    _room: Option<OwnedSemaphorePermit>,
}

impl Run {
    pub fn covers(&self, offset: Offset) -> bool {
        self.from <= offset && offset < self.end
    }

    /// The items from an offset on.
    pub fn items_from(&self, offset: Offset) -> &[Item] {
        let start = self
            .items
            .partition_point(|item| item.delivery.offset < offset);
        &self.items[start..]
    }

    #[cfg(test)]
    pub fn of(from: u64, end: u64, items: Vec<Item>) -> Self {
        Self {
            object: ObjectId(1),
            from: Offset(from),
            end: Offset(end),
            items,
            last_used: Instant::now(),
            read_at: Instant::now(),
            _room: None,
        }
    }
}

/// Reads the run that begins at an offset.
pub(crate) async fn read(
    core: Arc<Core>,
    shard: Shard,
    object: ObjectId,
    from: Offset,
) -> Result<Run, BrokerError> {
    let locate = |records: &dyn flotilla_model::records::Records| {
        query::topic_locate(records, object, from, RECORDS_PER_READ_MAX)
    };
    let records = match shard.read_now(locate)? {
        Some(records) => records,
        None => shard.read(locate).await?,
    };
    let (parts, bytes) = choose(&records, core.config.read_run_bytes);
    let Some(last) = parts.last() else {
        return past_retention(&shard, object, from).await;
    };
    let end = Offset(last.first.0 + u64::from(last.count));
    let room = core.read_permit(bytes).await?;
    let slots = parts.iter().map(Part::slots).collect();
    let found = payload::read(&shard, slots).await?;
    let places = parts
        .iter()
        .flat_map(|part| (0..part.count).map(move |place| (part, place)));
    let mut items = Vec::with_capacity(found.len());
    for ((part, place), found) in places.zip(found) {
        let offset = Offset(part.first.0 + u64::from(place));
        match found {
            Found::Message { message, bytes } => items.push(Item {
                delivery: TopicDelivery {
                    offset,
                    at: part.record.wall,
                    message,
                },
                bytes,
            }),
            Found::Unreadable(Unreadable::Gone) => {}
            Found::Unreadable(Unreadable::Damaged(reason)) => {
                core.metrics.damaged_message();
                tracing::error!(shard = %shard.id(), %offset, reason, "a damaged message is passed over");
            }
            // Nobody may be taken past it: a node that has it may come back.
            Found::Unreadable(Unreadable::OutOfReach(reason)) => {
                return Err(BrokerError::Unavailable { reason });
            }
        }
    }
    Ok(Run {
        object,
        from,
        end,
        items,
        last_used: Instant::now(),
        read_at: Instant::now(),
        _room: Some(room),
    })
}

/// Nothing is stored at or after `from`, although there was: retention passed it.
async fn past_retention(shard: &Shard, object: ObjectId, from: Offset) -> Result<Run, BrokerError> {
    let info = shard
        .read(|records| query::topic_info_of(records, object))
        .await?;
    match info {
        Some(info) if info.first > from => Ok(Run {
            object,
            from,
            end: info.first,
            items: Vec::new(),
            last_used: Instant::now(),
            read_at: Instant::now(),
            _room: None,
        }),
        Some(info) => Err(BrokerError::Unavailable {
            reason: format!(
                "the topic's index names nothing at offset {from}, though it holds {} to {}",
                info.first, info.next
            ),
        }),
        None => Err(BrokerError::NotFound {
            what: "the topic".to_owned(),
        }),
    }
}

/// A part of an index record that is to be read.
struct Part<'a> {
    record: &'a IndexRecord,
    first: Offset,
    count: u32,
}

impl Part<'_> {
    fn slots(&self) -> SlotRun {
        SlotRun {
            index: self.record.index,
            slots: self.record.first_slot..self.record.first_slot + self.count,
        }
    }
}

/// As many messages from the front as one read should fetch, and about how many bytes they have.
fn choose(records: &[IndexRecord], bytes_max: u64) -> (Vec<Part<'_>>, u64) {
    let mut parts: Vec<Part<'_>> = Vec::new();
    let (mut messages, mut bytes) = (0, 0);
    for record in records {
        if messages >= MESSAGES_PER_READ_MAX || (bytes >= bytes_max && !parts.is_empty()) {
            break;
        }
        let each = (record.bytes / u64::from(record.count.max(1))).max(1);
        let by_bytes = (bytes_max.saturating_sub(bytes) / each).max(1);
        let count = u64::from(record.count)
            .min(by_bytes)
            .min(MESSAGES_PER_READ_MAX - messages);
        messages += count;
        bytes += count * each;
        parts.push(Part {
            record,
            first: record.first,
            count: count as u32,
        });
        if count < u64::from(record.count) {
            break;
        }
    }
    (parts, bytes)
}
