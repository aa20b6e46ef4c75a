//! Putting messages into a queue.

use super::deliver::{append, delay};
use super::open::OpenQueue;
use crate::command::{EnqueueRun, Moved};
use crate::dedup;
use crate::ids::{DedupId, ShardTime, WallTime};
use crate::live;
use crate::name::{Kind, Name};
use crate::objects::check_name;
use crate::outcome::{Outcome, Refusal};
use crate::overlay::Work;
use crate::places;
use crate::record::{Attributes, AttributesId, QueueMessage};
use crate::records::NeedsKeys;
use crate::{attributes, settings};

/// Puts slots of the entry, from `first_slot` on, into a queue.
pub(crate) fn enqueue(
    work: &mut Work<'_>,
    name: &Name,
    runs: &[EnqueueRun],
    ids: &[(u32, DedupId)],
    first_slot: u32,
) -> Result<Outcome, NeedsKeys> {
    let total: u32 = runs.iter().map(|run| run.count).sum();
    if let Err(refusal) = check(name, runs, ids, total) {
        return Ok(Outcome::Refused(refusal));
    }
    let mut queue = OpenQueue::by_name(work, name)?;
    let window_ms = queue.state.settings.dedup_window_ms;
    let duplicates: Vec<u32> = places::duplicates(work, queue.object, window_ms, ids)?
        .into_iter()
        .map(|(place, _)| place)
        .collect();
    let kept = places::kept(total, &duplicates);
    let bytes: u64 = kept
        .iter()
        .map(|(first, count)| live::own_bytes(work, first_slot + first, *count))
        .sum();
    let count = u64::from(total) - duplicates.len() as u64;
    let is_move = runs.iter().any(|run| run.moved.is_some());
    if !is_move && let Err(refusal) = check_room(&queue, count, bytes) {
        return Ok(Outcome::Refused(refusal));
    }
    let sequence_first = queue.state.next.0;
    for (first, count) in &kept {
        live::hold_own(work, first_slot + first, *count);
    }
    let mut at_place = 0;
    for run in runs {
        let places = at_place..at_place + run.count;
        at_place = places.end;
        let kept = places::within(&kept, places);
        enqueue_run(work, &mut queue, run, &kept, first_slot)?;
    }
    for (place, id) in ids {
        if duplicates.binary_search(place).is_err() {
            let (object, head) = (queue.object, &mut queue.state.dedup);
            dedup::remember(work, object, head, window_ms, *id, sequence_first)?;
        }
    }
    queue.state.bytes += bytes;
    queue.state.enqueued_total += count;
    work.meta.totals.enqueued += count;
    work.meta.totals.enqueued_bytes += bytes;
    queue.close(work)?;
    Ok(Outcome::Enqueued {
        at: work.meta.wall,
        duplicates,
    })
}

/// Stores the messages of a run that are not duplicates.
fn enqueue_run(
    work: &mut Work<'_>,
    queue: &mut OpenQueue,
    run: &EnqueueRun,
    kept: &[(u32, u32)],
    first_slot: u32,
) -> Result<(), NeedsKeys> {
    let count: u32 = kept.iter().map(|(_, count)| count).sum();
    if count == 0 {
        return Ok(());
    }
    let shared = Attributes {
        policy: run.policy.clone(),
        moved_from: run.moved.as_ref().map(|moved| moved.from.clone()),
    };
    let id = attributes::intern(work, &shared, u64::from(count))?;
    let moved_expiry = run.moved.as_ref().and_then(|moved| moved.expiry);
    let arrival = Arrival::of(work, queue, id, &shared, moved_expiry);
    let messages: Vec<QueueMessage> = kept
        .iter()
        .flat_map(|(first, count)| first_slot + first..first_slot + first + count)
        .map(|slot| QueueMessage {
            index: work.index,
            slot,
            bytes: work.slot_bytes[slot as usize],
            ..arrival.message
        })
        .collect();
    arrival.admit(work, queue, &messages)
}

/// How messages with one policy come into a queue.
pub(super) struct Arrival {
    /// What they have in common; where their bytes are is to be filled in.
    pub message: QueueMessage,
    due: ShardTime,
}

impl Arrival {
    /// A new message, or one that keeps the expiry it had in another queue.
    pub fn of(
        work: &Work<'_>,
        queue: &OpenQueue,
        id: AttributesId,
        attributes: &Attributes,
        kept_expiry: Option<(u64, WallTime)>,
    ) -> Self {
        let policy = &attributes.policy;
        let due = work.now().plus_ms(policy.delay_ms);
        let (mut expires, mut expires_wall) = queue.expiry(work, due, policy.ttl_ms);
        if let Some((left_ms, wall)) = kept_expiry {
            let kept = work.now().plus_ms(left_ms);
            if kept < expires {
                (expires, expires_wall) = (kept, wall);
            }
        }
        Self {
            message: QueueMessage {
                published: work.wall_at(due),
                expires,
                expires_wall,
                attributes: id,
                ..QueueMessage::default()
            },
            due,
        }
    }

    /// Puts the finished messages in: at once, or after their delay.
    pub fn admit(
        &self,
        work: &mut Work<'_>,
        queue: &mut OpenQueue,
        messages: &[QueueMessage],
    ) -> Result<(), NeedsKeys> {
        if self.due > work.now() {
            delay(work, queue, self.due, messages)
        } else {
            append(work, queue, messages)
        }
    }
}

fn check(
    name: &Name,
    runs: &[EnqueueRun],
    ids: &[(u32, DedupId)],
    total: u32,
) -> Result<(), Refusal> {
    check_name(name, Kind::Queue)?;
    if runs.iter().any(|run| run.count == 0) || total == 0 {
        return Err(Refusal::Invalid {
            what: "an enqueue and each of its runs must have messages".to_owned(),
        });
    }
    for run in runs {
        if let Some(dead_letter) = &run.policy.dead_letter {
            check_name(dead_letter, Kind::Queue)?;
        }
        if let Some(Moved { from, .. }) = &run.moved {
            check_name(from, Kind::Queue)?;
        }
    }
    places::check(ids, total)
}

fn check_room(queue: &OpenQueue, count: u64, bytes: u64) -> Result<(), Refusal> {
    let settings::QueueSettings {
        messages_max,
        bytes_max,
        ..
    } = &*queue.state.settings;
    let limits = [
        (queue.state.stored(), count, *messages_max, "messages"),
        (queue.state.bytes, bytes, *bytes_max, "bytes"),
    ];
    for (stored, more, allowed, unit) in limits {
        if let Some(allowed) = allowed
            && stored.saturating_add(more) > allowed
            && more > 0
        {
            return Err(Refusal::QueueFull {
                stored,
                allowed,
                unit: unit.to_owned(),
            });
        }
    }
    Ok(())
}
