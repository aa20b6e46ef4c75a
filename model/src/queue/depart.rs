//! Messages that leave a queue for another: dead letters and moves.
//!
//! Within the shard the reference to the bytes is handed on and the message is there at once. To
//! another shard it goes through the outbox.

use std::sync::Arc;

use super::enqueue::Arrival;
use super::open::OpenQueue;
use crate::command::{Moved, QueuePolicy};
use crate::ids::WallTime;
use crate::name::Name;
use crate::outbox;
use crate::overlay::Work;
use crate::record::{Attributes, NEVER, OutboxMessage, QueueMessage};
use crate::records::NeedsKeys;
use crate::{attributes, live};

/// A message that has left its queue and is nowhere yet.
pub(super) struct Departure {
    /// As it was.
    pub message: QueueMessage,
    /// Its attributes there.
    pub attributes: Arc<Attributes>,
    /// Where it goes.
    pub why: Why,
}

/// Why a message leaves.
pub(super) enum Why {
    /// It came back after its last allowed delivery; `None`: it is discarded.
    LastDelivery { to: Option<Name> },
    /// Its holder moved it.
    Moved { to: Name },
}

impl Departure {
    fn to(&self) -> Option<&Name> {
        match &self.why {
            Why::LastDelivery { to } => to.as_ref(),
            Why::Moved { to } => Some(to),
        }
    }

    fn is_dead(&self) -> bool {
        matches!(self.why, Why::LastDelivery { .. })
    }

    /// A dead letter loses its policy and keeps its expiry; a moved message is treated as new.
    fn policy(&self) -> QueuePolicy {
        match self.why {
            Why::LastDelivery { .. } => QueuePolicy::default(),
            Why::Moved { .. } => self.attributes.policy.clone(),
        }
    }

    fn expiry(&self, work: &Work<'_>) -> Option<(u64, WallTime)> {
        let is_kept = self.is_dead() && self.message.expires != NEVER;
        is_kept.then(|| {
            let left_ms = self.message.expires.0.saturating_sub(work.now().0);
            (left_ms, self.message.expires_wall)
        })
    }
}

/// Brings messages to where they go. Their queue must have been closed: it may be the target too.
pub(super) fn depart(
    work: &mut Work<'_>,
    from: &Arc<Name>,
    departures: Vec<Departure>,
) -> Result<(), NeedsKeys> {
    let mut rest = departures.as_slice();
    while let Some(first) = rest.first() {
        let count = rest
            .iter()
            .take_while(|next| next.to() == first.to())
            .count();
        let (group, later) = rest.split_at(count);
        rest = later;
        match first.to() {
            Some(to) if to.shard(work.meta.defaults.shard_count) == work.shard => {
                within_shard(work, from, to, group)?;
            }
            Some(to) => to_other_shard(work, from, to, group)?,
            None => live::release(work, group.iter().map(|gone| gone.message.at()).collect())?,
        }
    }
    Ok(())
}

fn within_shard(
    work: &mut Work<'_>,
    from: &Arc<Name>,
    to: &Name,
    group: &[Departure],
) -> Result<(), NeedsKeys> {
    let mut queue = OpenQueue::by_name(work, to)?;
    let mut rest = group;
    while let Some(first) = rest.first() {
        // Neighbours that had the same attributes get the same again.
        let count = rest.iter().take_while(|next| is_alike(next, first)).count();
        let (alike, later) = rest.split_at(count);
        rest = later;
        let shared = Attributes {
            policy: first.policy(),
            moved_from: Some(Name::clone(from)),
        };
        let id = attributes::intern(work, &shared, alike.len() as u64)?;
        let arrival = Arrival::of(work, &queue, id, &shared, first.expiry(work));
        let messages: Vec<QueueMessage> = alike
            .iter()
            .map(|gone| QueueMessage {
                index: gone.message.index,
                slot: gone.message.slot,
                bytes: gone.message.bytes,
                ..arrival.message
            })
            .collect();
        arrival.admit(work, &mut queue, &messages)?;
        queue.state.bytes += messages.iter().map(|m| u64::from(m.bytes)).sum::<u64>();
        queue.state.enqueued_total += messages.len() as u64;
    }
    queue.close(work)
}

fn is_alike(one: &Departure, other: &Departure) -> bool {
    let key = |gone: &Departure| {
        let message = &gone.message;
        let expiry = (message.expires, message.expires_wall);
        (message.attributes, expiry, gone.is_dead())
    };
    key(one) == key(other)
}

fn to_other_shard(
    work: &mut Work<'_>,
    from: &Arc<Name>,
    to: &Name,
    group: &[Departure],
) -> Result<(), NeedsKeys> {
    let target = to.shard(work.meta.defaults.shard_count);
    for gone in group {
        let item = OutboxMessage {
            queue: to.clone(),
            at: gone.message.at(),
            policy: gone.policy(),
            moved: Moved {
                from: Name::clone(from),
                expiry: gone.expiry(work),
            },
        };
        outbox::push(work, target, item)?;
    }
    Ok(())
}
