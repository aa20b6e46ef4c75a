//! Keeping pages, their tries and the messages in them in line.

use super::open::OpenQueue;
use crate::ids::{LeaseId, ObjectId, Sequence};
use crate::key::{Key, TrieId};
use crate::overlay::Work;
use crate::record::{LeaseState, PAGE_MESSAGES, Queue, QueuePage};
use crate::records::{Lookup, NeedsKeys, Records};
use crate::{dedup, session, trie};

/// Pages asked for at once when one is not in memory.
const PAGES_AHEAD: u64 = 64;

/// The page and the place in it of a sequence.
pub(super) fn place_of(sequence: u64) -> (u64, u8) {
    (sequence / PAGE_MESSAGES, (sequence % PAGE_MESSAGES) as u8)
}

/// The sequence of a place in a page.
pub(crate) fn sequence_at(page: u64, place: u8) -> Sequence {
    Sequence(page * PAGE_MESSAGES + u64::from(place))
}

/// Brings the tries in line after messages of a page were taken out, leased or released.
pub(super) fn tidy(
    work: &mut Work<'_>,
    queue: &mut OpenQueue,
    page: u64,
    had_available: bool,
) -> Result<(), NeedsKeys> {
    let object = queue.object;
    let key = Key::QueuePage(object, page);
    let (is_empty, has_available) = match work.find::<QueuePage>(key)? {
        Some(found) => (
            found.messages.is_empty(),
            found.messages.iter().any(|message| message.is_available()),
        ),
        None => (true, false),
    };
    if is_empty {
        work.delete(key);
        let height = &mut queue.state.pages_height;
        trie::remove(work, TrieId::Pages(object), height, page)?;
    }
    let height = &mut queue.state.available_height;
    match (had_available, has_available) {
        (true, false) => trie::remove(work, TrieId::Available(object), height, page),
        (false, true) => {
            trie::insert(work, TrieId::Available(object), height, page)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What to load when a page of a walk through the queue is not in memory: that page and those that
/// the walk is likely to reach.
pub(super) fn pages_ahead(
    work: &Work<'_>,
    missing: NeedsKeys,
    trie_id: TrieId,
    height: u8,
    object: ObjectId,
    from: u64,
) -> NeedsKeys {
    let NeedsKeys(mut keys) = missing;
    let mut at = from;
    while (keys.len() as u64) < PAGES_AHEAD {
        let Ok(Some(page)) = trie::next(work, trie_id, height, at) else {
            break;
        };
        let key = Key::QueuePage(object, page);
        if matches!(work.get(&key), Lookup::Missing) && !keys.contains(&key) {
            keys.push(key);
        }
        at = page + 1;
    }
    NeedsKeys(keys)
}

/// Removes one page of a deleted queue, or one bucket's chunk of delayed messages, or ids that were
/// remembered; returns whether nothing is left.
pub(crate) fn bury_step(
    work: &mut Work<'_>,
    object: ObjectId,
    state: &mut Queue,
) -> Result<bool, NeedsKeys> {
    let mut queue = OpenQueue::new(object, state.clone());
    let height = queue.state.pages_height;
    let is_done = if let Some(page) = trie::next(work, TrieId::Pages(object), height, 0)? {
        bury_page(work, &mut queue, page)?;
        false
    } else if queue.state.delayed_height > 0 {
        super::deliver::bury_delayed(work, &mut queue)?;
        false
    } else {
        dedup::forget_all_step(work, object, &mut queue.state.dedup)?
    };
    *state = queue.settle_accounts(work)?;
    Ok(is_done)
}

fn bury_page(work: &mut Work<'_>, queue: &mut OpenQueue, page: u64) -> Result<(), NeedsKeys> {
    let object = queue.object;
    let key = Key::QueuePage(object, page);
    let found = work
        .take::<QueuePage>(key)?
        .expect("a page is in the trie as long as it exists");
    for message in &found.messages {
        work.count_effort(1);
        queue.dies(work, message)?;
        if message.lease != LeaseId(0) {
            // The first message of a lease ends it for all of them.
            let lease_key = Key::Lease(object, message.lease);
            if let Some(lease) = work.take::<LeaseState>(lease_key)? {
                session::remove_lease(work, lease.session, lease.place)?;
                work.delete(lease_key);
            }
        }
    }
    work.delete(key);
    let height = &mut queue.state.pages_height;
    trie::remove(work, TrieId::Pages(object), height, page)?;
    let height = &mut queue.state.available_height;
    trie::remove(work, TrieId::Available(object), height, page)
}
