//! What becomes of messages whose hold has ended.
//!
//! A message that comes back has a fate: it stays, goes to the tail, at once or after a pause, has expired
//! meanwhile, or had its last delivery.

use super::deliver::{append, arm_expiry, delay};
use super::depart::{Departure, Why};
use super::open::OpenQueue;
use super::page::{place_of, tidy};
use crate::command::Settlement;
use crate::ids::{LeaseId, ObjectId};
use crate::key::Key;
use crate::overlay::Work;
use crate::record::{NEVER, QueueMessage, QueuePage};
use crate::records::{NeedsKeys, require};

/// What becomes of one message that is not held any more.
enum Fate {
    /// Available again in its place.
    Stays,
    /// Available again at the tail.
    ToTail,
    /// The same, but later.
    Waits,
    /// Leaves the queue for another, or for nowhere.
    Departs(Why),
    /// Acknowledged.
    Done,
    /// Expired while it was held.
    Expired,
}

/// Ends the hold on messages; returns those that leave for another queue.
pub(super) fn end_hold(
    work: &mut Work<'_>,
    queue: &mut OpenQueue,
    lease: LeaseId,
    chosen: &[u64],
    how: &Settlement,
) -> Result<Vec<Departure>, NeedsKeys> {
    let object = queue.object;
    let (mut to_tail, mut waiting) = (Vec::new(), Vec::new());
    let waits_until = work.now().plus_ms(pause_ms(how));
    let mut departures = Vec::new();
    let mut stays = 0;
    let mut rest = chosen;
    require_pages(work, object, chosen)?;
    while let Some(first) = rest.first() {
        let (page, _) = place_of(*first);
        let here = rest.partition_point(|sequence| place_of(*sequence).0 == page);
        let (places, later) = rest.split_at(here);
        rest = later;
        let key = Key::QueuePage(object, page);
        let mut found = work
            .take::<QueuePage>(key)?
            .expect("a page exists as long as a message in it is held");
        let had_available = found.messages.iter().any(QueueMessage::is_available);
        let mut earliest = NEVER;
        for sequence in places {
            let (_, place) = place_of(*sequence);
            let at = found
                .find(place)
                .expect("a message stays in its place as long as it is held");
            let mut message = found.messages[at];
            assert_eq!(message.lease, lease, "a message is held by one lease");
            if let Settlement::Withdraw { .. } = how {
                message.receive_count = message.receive_count.saturating_sub(1);
            }
            let fate = fate(work, queue, &message, how)?;
            if matches!(fate, Fate::Stays) {
                found.messages[at] = QueueMessage {
                    lease: LeaseId(0),
                    ..message
                };
                earliest = earliest.min(message.expires);
                stays += 1;
                continue;
            }
            // Taken out below, all at once: removing one by one would move the rest each time.
            found.messages[at].lease = GONE;
            match fate {
                Fate::Stays => {}
                Fate::ToTail => to_tail.push(QueueMessage {
                    lease: LeaseId(0),
                    published: work.meta.wall,
                    ..message
                }),
                Fate::Waits => waiting.push(QueueMessage {
                    lease: LeaseId(0),
                    published: work.wall_at(waits_until),
                    ..message
                }),
                Fate::Departs(why) => {
                    if matches!(why, Why::LastDelivery { .. }) {
                        queue.state.dead_lettered_total += 1;
                        work.meta.totals.dead_lettered += 1;
                    }
                    queue.leaves(work, &message)?;
                    let attributes = queue.attributes(work, message.attributes)?;
                    departures.push(Departure {
                        message,
                        attributes,
                        why,
                    });
                }
                Fate::Done => {
                    queue.dies(work, &message)?;
                    queue.state.acked_total += 1;
                    work.meta.totals.acked += 1;
                }
                Fate::Expired => {
                    queue.dies(work, &message)?;
                    queue.count_expired(work, 1);
                }
            }
        }
        found.messages.retain(|message| message.lease != GONE);
        let armed = found.armed;
        work.put(key, found);
        arm_expiry(work, object, page, armed, earliest)?;
        tidy(work, queue, page, had_available)?;
    }
    queue.state.leased -= chosen.len() as u64;
    queue.state.available += stays;
    queue.state.returned_total += to_tail.len() as u64;
    work.count_effort(chosen.len() as u64);
    append(work, queue, &to_tail)?;
    if !waiting.is_empty() {
        delay(work, queue, waits_until, &waiting)?;
    }
    if stays > 0 {
        queue.note_available(work);
    }
    Ok(departures)
}

/// No lease has this number: ids are dense from 1.
const GONE: LeaseId = LeaseId(u64::MAX);

fn fate(
    work: &Work<'_>,
    queue: &mut OpenQueue,
    message: &QueueMessage,
    how: &Settlement,
) -> Result<Fate, NeedsKeys> {
    let comes_back = match how {
        Settlement::Ack => return Ok(Fate::Done),
        Settlement::Move { to } => return Ok(Fate::Departs(Why::Moved { to: to.clone() })),
        Settlement::Return | Settlement::Postpone { pause_ms: 0 } => Fate::ToTail,
        Settlement::Release | Settlement::Withdraw { pause_ms: 0 } => Fate::Stays,
        Settlement::Postpone { .. } | Settlement::Withdraw { .. } => Fate::Waits,
    };
    if message.is_expired(work.now()) {
        return Ok(Fate::Expired);
    }
    if let Settlement::Withdraw { .. } = how {
        // It had no delivery, so this was not its last one.
        return Ok(comes_back);
    }
    let attributes = queue.attributes(work, message.attributes)?;
    let limit = queue.receive_count_max(&attributes);
    if limit == 0 || message.receive_count < limit {
        return Ok(comes_back);
    }
    let own = attributes.policy.dead_letter.as_ref();
    let to = own.or(queue.state.settings.dead_letter.as_ref()).cloned();
    Ok(Fate::Departs(Why::LastDelivery { to }))
}

/// How long messages wait that come back later.
fn pause_ms(how: &Settlement) -> u64 {
    match how {
        Settlement::Postpone { pause_ms } | Settlement::Withdraw { pause_ms } => *pause_ms,
        _ => 0,
    }
}

fn require_pages(work: &Work<'_>, object: ObjectId, chosen: &[u64]) -> Result<(), NeedsKeys> {
    let mut pages: Vec<u64> = chosen
        .iter()
        .map(|sequence| place_of(*sequence).0)
        .collect();
    pages.dedup();
    require(
        work,
        pages.into_iter().map(|page| Key::QueuePage(object, page)),
    )
}
