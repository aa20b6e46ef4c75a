//! Making messages available: at the tail at once, or after a delay.
//!
//! Delayed messages wait in chunks by the time bucket in which they are due, and get their sequence
//! then: in the order of buckets, and within one in the order in which they came.

use super::open::OpenQueue;
use super::page::place_of;
use crate::ids::{ObjectId, Sequence, ShardTime};
use crate::key::{Key, TrieId};
use crate::overlay::Work;
use crate::record::{NEVER, PAGE_MESSAGES, QueueMessage, QueuePage, Timer};
use crate::records::NeedsKeys;
use crate::{timers, trie};

/// Chunks of delayed messages that become available in one step.
const CHUNKS_STEP: u32 = 64;

/// Appends messages to the tail.
pub(super) fn append(
    work: &mut Work<'_>,
    queue: &mut OpenQueue,
    messages: &[QueueMessage],
) -> Result<(), NeedsKeys> {
    if messages.is_empty() {
        return Ok(());
    }
    let object = queue.object;
    let mut rest = messages;
    while !rest.is_empty() {
        let (page, first_place) = place_of(queue.state.next.0);
        let room = PAGE_MESSAGES as usize - usize::from(first_place);
        let (now, later) = rest.split_at(room.min(rest.len()));
        let key = Key::QueuePage(object, page);
        let is_new = first_place == 0 || queue.state.next == Sequence::FIRST;
        let found = work.edit_or_create::<QueuePage>(key, is_new)?;
        let was_empty = found.messages.is_empty();
        let had_available = found.messages.iter().any(QueueMessage::is_available);
        let armed = found.armed;
        found.messages.reserve_exact(now.len());
        let mut earliest = NEVER;
        for (place, message) in (first_place..).zip(now) {
            earliest = earliest.min(message.expires);
            found.messages.push(QueueMessage { place, ..*message });
        }
        if was_empty {
            let height = &mut queue.state.pages_height;
            trie::insert(work, TrieId::Pages(object), height, page)?;
        }
        if !had_available {
            let height = &mut queue.state.available_height;
            trie::insert(work, TrieId::Available(object), height, page)?;
        }
        arm_expiry(work, object, page, armed, earliest)?;
        queue.state.next.0 += now.len() as u64;
        rest = later;
    }
    queue.state.available += messages.len() as u64;
    work.count_effort(messages.len() as u64);
    queue.note_available(work);
    Ok(())
}

/// Sees to it that a page is looked at when its earliest message expires.
pub(super) fn arm_expiry(
    work: &mut Work<'_>,
    object: ObjectId,
    page: u64,
    armed: u64,
    earliest: ShardTime,
) -> Result<(), NeedsKeys> {
    if earliest == NEVER {
        return Ok(());
    }
    let bucket = timers::arm_earlier(work, Timer::Expiry(object, page), armed, earliest)?;
    if bucket != armed {
        work.edit_or_default::<QueuePage>(Key::QueuePage(object, page))?
            .armed = bucket;
    }
    Ok(())
}

/// Keeps messages back until they are due.
pub(super) fn delay(
    work: &mut Work<'_>,
    queue: &mut OpenQueue,
    due: ShardTime,
    messages: &[QueueMessage],
) -> Result<(), NeedsKeys> {
    let object = queue.object;
    let bucket = timers::bucket_of(due);
    let head_key = Key::Delayed(object, bucket, 0);
    let height = &mut queue.state.delayed_height;
    if trie::insert(work, TrieId::Delayed(object), height, bucket)? {
        work.put(head_key, QueuePage::default());
        timers::arm(work, Timer::Delayed(object, bucket), bucket)?;
    }
    let mut is_new_chunk = false;
    let mut rest = messages;
    while !rest.is_empty() {
        let (first, last) = chunks(work.edit_or_default::<QueuePage>(head_key)?);
        let chunk_key = Key::Delayed(object, bucket, last);
        let chunk = work.edit_or_create::<QueuePage>(chunk_key, is_new_chunk)?;
        let room = PAGE_MESSAGES as usize - chunk.messages.len();
        let (now, later) = rest.split_at(room.min(rest.len()));
        let first_place = chunk.messages.len() as u8;
        for (place, message) in (first_place..).zip(now) {
            chunk.messages.push(QueueMessage { place, ..*message });
        }
        if !later.is_empty() {
            let head = work.edit_or_default::<QueuePage>(head_key)?;
            head.armed = pack(first, last + 1);
        }
        is_new_chunk = !later.is_empty();
        rest = later;
    }
    queue.state.delayed += messages.len() as u64;
    work.count_effort(messages.len() as u64);
    Ok(())
}

/// Delayed messages of a bucket are due. Returns whether all of them are available now.
pub(crate) fn fire_delayed(
    work: &mut Work<'_>,
    object: ObjectId,
    bucket: u64,
) -> Result<bool, NeedsKeys> {
    let Some(mut queue) = OpenQueue::by_id(work, object)? else {
        return Ok(true);
    };
    let mut is_done = false;
    for _ in 0..CHUNKS_STEP {
        let Some(messages) = pop_chunk(work, &mut queue, bucket)? else {
            is_done = true;
            break;
        };
        append(work, &mut queue, &messages)?;
    }
    queue.close(work)?;
    Ok(is_done)
}

/// Removes one chunk of the delayed messages of a deleted queue.
pub(super) fn bury_delayed(work: &mut Work<'_>, queue: &mut OpenQueue) -> Result<(), NeedsKeys> {
    let trie_id = TrieId::Delayed(queue.object);
    let Some(bucket) = trie::next(work, trie_id, queue.state.delayed_height, 0)? else {
        return Ok(());
    };
    for message in pop_chunk(work, queue, bucket)?.unwrap_or_default() {
        work.count_effort(1);
        queue.dies(work, &message)?;
    }
    Ok(())
}

/// Takes the oldest chunk of a bucket; `None` when there is none and the bucket is gone.
fn pop_chunk(
    work: &mut Work<'_>,
    queue: &mut OpenQueue,
    bucket: u64,
) -> Result<Option<Vec<QueueMessage>>, NeedsKeys> {
    let object = queue.object;
    let head_key = Key::Delayed(object, bucket, 0);
    let Some(head) = work.take::<QueuePage>(head_key)? else {
        return Ok(None);
    };
    let (first, last) = chunks(&head);
    let messages = match first {
        0 => head.messages,
        _ => {
            let key = Key::Delayed(object, bucket, first);
            let chunk = work
                .take::<QueuePage>(key)?
                .expect("the chunks from the first to the last exist");
            work.delete(key);
            chunk.messages
        }
    };
    if first == last {
        work.delete(head_key);
        let height = &mut queue.state.delayed_height;
        trie::remove(work, TrieId::Delayed(object), height, bucket)?;
    } else {
        let head = QueuePage {
            armed: pack(first + 1, last),
            messages: Vec::new(),
        };
        work.put(head_key, head);
    }
    queue.state.delayed -= messages.len() as u64;
    Ok(Some(messages))
}

/// The first and the last chunk of a bucket, which its chunk 0 keeps.
fn chunks(head: &QueuePage) -> (u32, u32) {
    ((head.armed >> 32) as u32, head.armed as u32)
}

fn pack(first: u32, last: u32) -> u64 {
    u64::from(first) << 32 | u64::from(last)
}
