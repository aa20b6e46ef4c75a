//! Handing messages to a consumer.

use super::LEASE_MESSAGES_MAX;
use super::open::OpenQueue;
use super::page::{pages_ahead, sequence_at, tidy};
use super::settle::release_newest;
use crate::ids::{LeaseId, SessionId};
use crate::key::{Key, TrieId};
use crate::mutation::{self, Mutation};
use crate::name::{Kind, Name};
use crate::objects::check_name;
use crate::outcome::{LeasedMessage, Outcome, Refusal};
use crate::overlay::Work;
use crate::record::{Attributes, LeaseState, NEVER, QueueMessage, QueuePage, SequenceRange, Timer};
use crate::records::NeedsKeys;
use crate::{session, timers, trie};

/// Pages that one lease walks through: behind them there may be more, which is said by a change.
const PAGES_MAX: u32 = 1_024;

/// What a consumer asks for.
pub(crate) struct Wanted {
    pub session: SessionId,
    pub messages_max: u32,
    pub bytes_max: u64,
    pub visibility_ms: Option<u64>,
}

/// Leases the oldest available messages of a queue.
pub(crate) fn lease(
    work: &mut Work<'_>,
    name: &Name,
    wanted: &Wanted,
) -> Result<Outcome, NeedsKeys> {
    if let Err(refusal) = check(name, wanted) {
        return Ok(Outcome::Refused(refusal));
    }
    if session::is_over(work, wanted.session)? {
        return Ok(Outcome::Refused(Refusal::Invalid {
            what: "the session's node has started again since".to_owned(),
        }));
    }
    if mutation::is_chosen(Mutation::Lease) {
        release_newest(work, name, wanted.session)?;
    }
    let Some(mut queue) = OpenQueue::find(work, name)? else {
        return Ok(nothing(0));
    };
    let lease = LeaseId(queue.state.last_lease.0 + 1);
    let walk = take_messages(work, &mut queue, wanted, lease)?;
    if walk.is_cut_short && walk.taken.is_empty() {
        queue.note_available(work);
    }
    let mut messages = Vec::with_capacity(walk.taken.len());
    for (page, message) in &walk.taken {
        let attributes = queue.attributes(work, message.attributes)?;
        let limit = queue.receive_count_max(&attributes);
        messages.push(shown(*page, message, &attributes, limit));
    }
    if messages.is_empty() {
        // Polling an empty queue writes nothing.
        if walk.expired > 0 {
            queue.close(work)?;
        }
        return Ok(nothing(walk.expired));
    }
    queue.state.last_lease = lease;
    let deadline = wanted.visibility_ms.map(|ms| work.now().plus_ms(ms));
    let armed = match deadline {
        Some(due) => timers::arm_earlier(work, Timer::Lease(queue.object, lease), 0, due)?,
        None => 0,
    };
    let place = session::add_lease(work, wanted.session, queue.object, lease)?;
    let state = LeaseState {
        session: wanted.session,
        held: ranges(messages.iter().map(|message| message.sequence.0)),
        deadline,
        armed,
        place,
    };
    work.put(Key::Lease(queue.object, lease), state);
    let count = messages.len() as u64;
    queue.state.available -= count;
    queue.state.leased += count;
    queue.state.delivered_total += count;
    work.meta.totals.delivered += count;
    queue.close(work)?;
    Ok(Outcome::Leased {
        lease,
        messages,
        expired: walk.expired,
    })
}

/// What a walk through the queue gave.
#[derive(Default)]
struct Walk {
    /// With the page of each.
    taken: Vec<(u64, QueueMessage)>,
    expired: u32,
    is_cut_short: bool,
}

fn take_messages(
    work: &mut Work<'_>,
    queue: &mut OpenQueue,
    wanted: &Wanted,
    lease: LeaseId,
) -> Result<Walk, NeedsKeys> {
    let (object, now) = (queue.object, work.now());
    let trie_id = TrieId::Available(object);
    let mut walk = Walk::default();
    let (mut from, mut bytes, mut pages) = (0, 0, 0);
    let mut is_full = false;
    while !is_full {
        let height = queue.state.available_height;
        let Some(page) = trie::next(work, trie_id, height, from)? else {
            break;
        };
        if pages == PAGES_MAX {
            walk.is_cut_short = true;
            break;
        }
        pages += 1;
        let key = Key::QueuePage(object, page);
        let found = match work.edit::<QueuePage>(key) {
            Ok(found) => found.expect("a page with available messages exists"),
            Err(missing) => {
                return Err(pages_ahead(
                    work,
                    missing,
                    trie_id,
                    height,
                    object,
                    page + 1,
                ));
            }
        };
        let mut expired = Vec::new();
        for message in &mut found.messages {
            if !message.is_available() {
                continue;
            }
            let taken = walk.taken.len() as u32;
            if taken == wanted.messages_max {
                is_full = true;
                break;
            }
            if message.is_expired(now) {
                expired.push(*message);
                continue;
            }
            let with_this = bytes + u64::from(message.bytes);
            if taken > 0 && with_this > wanted.bytes_max {
                is_full = true;
                break;
            }
            bytes = with_this;
            message.lease = lease;
            message.receive_count = message.receive_count.saturating_add(1);
            walk.taken.push((page, *message));
        }
        if !expired.is_empty() {
            found.messages.retain(|message| {
                expired
                    .binary_search_by_key(&message.place, |gone| gone.place)
                    .is_err()
            });
            for message in &expired {
                queue.dies(work, message)?;
            }
            queue.state.available -= expired.len() as u64;
            queue.count_expired(work, expired.len() as u64);
            walk.expired += expired.len() as u32;
        }
        tidy(work, queue, page, true)?;
        is_full |= walk.taken.len() as u32 == wanted.messages_max;
        from = page + 1;
    }
    work.count_effort(u64::from(pages) * 4 + walk.taken.len() as u64);
    Ok(walk)
}

/// A message as its consumer sees it.
pub(crate) fn shown(
    page: u64,
    message: &QueueMessage,
    attributes: &Attributes,
    receive_count_max: u32,
) -> LeasedMessage {
    LeasedMessage {
        sequence: sequence_at(page, message.place),
        at: message.at(),
        published: message.published,
        receive_count: message.receive_count,
        expires: (message.expires != NEVER).then_some(message.expires_wall),
        receive_count_max,
        dead_letter: attributes.policy.dead_letter.clone(),
        moved_from: attributes.moved_from.clone(),
        ttl_ms: attributes.policy.ttl_ms,
        delay_ms: attributes.policy.delay_ms,
    }
}

/// Ascending numbers as ranges.
pub(super) fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<SequenceRange> {
    let mut ranges: Vec<SequenceRange> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(range) if range.end() == number => range.count += 1,
            _ => ranges.push(SequenceRange {
                first: crate::ids::Sequence(number),
                count: 1,
            }),
        }
    }
    ranges
}

fn nothing(expired: u32) -> Outcome {
    Outcome::Leased {
        lease: LeaseId(0),
        messages: Vec::new(),
        expired,
    }
}

fn check(name: &Name, wanted: &Wanted) -> Result<(), Refusal> {
    check_name(name, Kind::Queue)?;
    if wanted.messages_max == 0 || wanted.messages_max > LEASE_MESSAGES_MAX {
        return Err(Refusal::Invalid {
            what: format!("a lease is for 1 to {LEASE_MESSAGES_MAX} messages"),
        });
    }
    if wanted.visibility_ms == Some(0) {
        return Err(Refusal::Invalid {
            what: "a visibility time must be longer than nothing".to_owned(),
        });
    }
    Ok(())
}
