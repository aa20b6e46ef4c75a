//! Questions about a queue.

use std::sync::Arc;

use super::meta;
use crate::attributes;
use crate::ids::{LeaseId, ObjectId, Sequence, SessionId, ShardTime};
use crate::key::{Key, TrieId};
use crate::name::{Kind, Name};
use crate::objects::find_by_name;
use crate::outcome::LeasedMessage;
use crate::queue::{sequence_at, shown};
use crate::record::{LeaseState, Queue, QueuePage};
use crate::records::{NeedsKeys, Records, find};
use crate::settings::QueueSettings;
use crate::trie;

/// Pages that a peek walks through at most: behind them may be more.
const PEEK_PAGES_MAX: usize = 1_024;

/// A queue and its figures; the totals count since it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its id.
    pub object: ObjectId,
    /// Its name.
    pub name: Arc<Name>,
    /// How it treats messages.
    pub settings: Arc<QueueSettings>,
    /// Messages that can be leased; expired ones count until they are removed.
    pub available: u64,
    /// Messages that are held.
    pub leased: u64,
    /// Messages that are not due.
    pub delayed: u64,
    /// Bytes of all three.
    pub bytes: u64,
    /// The sequence that the next message gets.
    pub next_sequence: Sequence,
    /// Messages put in or moved in.
    pub enqueued_total: u64,
    /// Deliveries.
    pub delivered_total: u64,
    /// Acknowledged.
    pub acked_total: u64,
    /// Returned to the tail.
    pub returned_total: u64,
    /// Expired.
    pub expired_total: u64,
    /// Moved to dead letters or discarded after the last delivery.
    pub dead_lettered_total: u64,
    /// Removed by purges.
    pub purged_total: u64,
}

/// A lease as its holder may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// The lease.
    pub lease: LeaseId,
    /// Who holds it.
    pub session: SessionId,
    /// What it still holds, ascending.
    pub sequences: Vec<Sequence>,
    /// When it ends by itself.
    pub deadline: Option<ShardTime>,
}

/// A queue by name.
pub fn queue_info(records: &dyn Records, name: &Name) -> Result<Option<QueueInfo>, NeedsKeys> {
    match find_queue(records, name)? {
        Some(object) => queue_info_of(records, object),
        None => Ok(None),
    }
}

/// A queue by id.
pub fn queue_info_of(
    records: &dyn Records,
    object: ObjectId,
) -> Result<Option<QueueInfo>, NeedsKeys> {
    let queue = super::object::<Queue>(records, object)?;
    Ok(queue.map(|queue| QueueInfo {
        object,
        name: queue.name,
        settings: queue.settings,
        available: queue.available,
        leased: queue.leased,
        delayed: queue.delayed,
        bytes: queue.bytes,
        next_sequence: queue.next,
        enqueued_total: queue.enqueued_total,
        delivered_total: queue.delivered_total,
        acked_total: queue.acked_total,
        returned_total: queue.returned_total,
        expired_total: queue.expired_total,
        dead_lettered_total: queue.dead_lettered_total,
        purged_total: queue.purged_total,
    }))
}

/// The sequence of the oldest message that has a place in a queue: that is not delayed.
pub fn queue_first(records: &dyn Records, object: ObjectId) -> Result<Option<Sequence>, NeedsKeys> {
    let Some(queue) = super::object::<Queue>(records, object)? else {
        return Ok(None);
    };
    let trie_id = TrieId::Pages(object);
    let Some(page) = trie::next(records, trie_id, queue.pages_height, 0)? else {
        return Ok(None);
    };
    let found = find::<QueuePage>(records, Key::QueuePage(object, page))?;
    let first = found.and_then(|found| found.messages.first().map(|message| message.place));
    Ok(first.map(|place| sequence_at(page, place)))
}

/// The messages that would be leased next, shown as if they were: without those that are expired at a time,
/// or at that of the last command if that is later.
pub fn queue_peek(
    records: &dyn Records,
    name: &Name,
    now: ShardTime,
    messages_max: usize,
) -> Result<Vec<LeasedMessage>, NeedsKeys> {
    let now = now.max(meta(records)?.time);
    let Some(object) = find_queue(records, name)? else {
        return Ok(Vec::new());
    };
    let Some(queue) = super::object::<Queue>(records, object)? else {
        return Ok(Vec::new());
    };
    let mut messages = Vec::new();
    let mut from = 0;
    for _ in 0..PEEK_PAGES_MAX {
        let trie_id = TrieId::Available(object);
        let Some(page) = trie::next(records, trie_id, queue.available_height, from)? else {
            break;
        };
        from = page + 1;
        let Some(found) = find::<QueuePage>(records, Key::QueuePage(object, page))? else {
            continue;
        };
        for message in &found.messages {
            if messages.len() >= messages_max {
                return Ok(messages);
            }
            if !message.is_available() || message.is_expired(now) {
                continue;
            }
            let shared = attributes::get(records, message.attributes)?;
            let limit = match shared.policy.receive_count_max {
                0 => queue.settings.receive_count_max,
                own => own,
            };
            let mut as_delivered = *message;
            as_delivered.receive_count = message.receive_count.saturating_add(1);
            messages.push(shown(page, &as_delivered, &shared, limit));
        }
    }
    Ok(messages)
}

/// A lease of a queue, unless it is over.
pub fn lease_get(
    records: &dyn Records,
    name: &Name,
    lease: LeaseId,
) -> Result<Option<LeaseInfo>, NeedsKeys> {
    let Some(object) = find_queue(records, name)? else {
        return Ok(None);
    };
    let state = find::<LeaseState>(records, Key::Lease(object, lease))?;
    Ok(state.map(|state| LeaseInfo {
        lease,
        session: state.session,
        sequences: state
            .held
            .iter()
            .flat_map(|range| (range.first.0..range.end()).map(Sequence))
            .collect(),
        deadline: state.deadline,
    }))
}

fn find_queue(records: &dyn Records, name: &Name) -> Result<Option<ObjectId>, NeedsKeys> {
    match name.kind() {
        Kind::Queue => find_by_name(records, name),
        Kind::Topic | Kind::Signal | Kind::Request | Kind::Command => Ok(None),
    }
}
