//! Messages on their way to queues of other shards.
//!
//! An item stays, and keeps its bytes alive, until the target is known to hold it. Items are
//! numbered densely per target: the number is the sequence under which the target applies it, so
//! that sending it twice does nothing.

use crate::ids::ShardId;
use crate::key::Key;
use crate::live;
use crate::outcome::{Change, Outcome, Refusal};
use crate::overlay::Work;
use crate::record::{OutboxHead, OutboxMessage};
use crate::records::{NeedsKeys, require};

/// Items removed in one step.
const CONFIRM_STEP: u64 = 256;

/// Puts a message into the outbox to a shard.
pub(crate) fn push(
    work: &mut Work<'_>,
    target: ShardId,
    item: OutboxMessage,
) -> Result<(), NeedsKeys> {
    let key = Key::Outbox(target);
    let mut head = work
        .take::<OutboxHead>(key)?
        .unwrap_or(OutboxHead { first: 1, next: 1 });
    work.put(Key::OutboxItem(target, head.next), item);
    head.next += 1;
    work.put(key, head);
    work.note(Change::Outbox { target });
    Ok(())
}

/// Removes confirmed items, a bounded number; gives the outcome when none is left.
pub(crate) fn confirm_step(
    work: &mut Work<'_>,
    target: ShardId,
    upto: u64,
) -> Result<Option<Outcome>, NeedsKeys> {
    let key = Key::Outbox(target);
    let Some(mut head) = work.take::<OutboxHead>(key)? else {
        return Ok(Some(Outcome::Done));
    };
    if upto >= head.next {
        return Ok(Some(Outcome::Refused(Refusal::Invalid {
            what: format!("the outbox has no item {upto} yet"),
        })));
    }
    let end = (upto + 1).max(head.first);
    let step_end = end.min(head.first + CONFIRM_STEP);
    require(
        work,
        (head.first..step_end).map(|item| Key::OutboxItem(target, item)),
    )?;
    let mut dead = Vec::new();
    for item in head.first..step_end {
        let item_key = Key::OutboxItem(target, item);
        let message = work
            .find::<OutboxMessage>(item_key)?
            .expect("the outbox holds every item from its first to its last");
        dead.push(message.at);
        work.delete(item_key);
    }
    work.count_effort(step_end - head.first);
    live::release(work, dead)?;
    head.first = step_end;
    work.put(key, head);
    Ok((step_end == end).then_some(Outcome::Done))
}
