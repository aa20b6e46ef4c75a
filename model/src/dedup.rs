//! Ids that producers gave: a message that is sent again within the window is stored once.
//!
//! An id has a record with the offset or sequence that its message got, and a line in the object's
//! log of arrivals, by which it is forgotten. One timer per object looks at the oldest line.

use crate::ids::{DedupId, ObjectId, ShardTime};
use crate::key::Key;
use crate::overlay::Work;
use crate::record::{
    DEDUP_PAGE_IDS, DedupEntry, DedupHead, DedupPage, Queue, Record, Timer, Topic,
};
use crate::records::{Lookup, NeedsKeys, Records, require};
use crate::timers;

/// Ids forgotten in one step.
const FORGET_STEP: u64 = 1_024;

/// What the message with this id got, if it came within the window.
pub(crate) fn seen(
    work: &Work<'_>,
    object: ObjectId,
    window_ms: u64,
    id: DedupId,
) -> Result<Option<u64>, NeedsKeys> {
    let entry = work.find::<DedupEntry>(Key::Dedup(object, id))?;
    Ok(entry
        .filter(|entry| !is_over(entry.at, window_ms, work.now()))
        .map(|entry| entry.value))
}

/// Remembers an id.
pub(crate) fn remember(
    work: &mut Work<'_>,
    object: ObjectId,
    head: &mut DedupHead,
    window_ms: u64,
    id: DedupId,
    value: u64,
) -> Result<(), NeedsKeys> {
    if window_ms == 0 {
        return Ok(());
    }
    let (at, place) = (work.now(), head.next);
    work.put(Key::Dedup(object, id), DedupEntry { value, at, place });
    let page = Key::DedupLog(object, place / DEDUP_PAGE_IDS);
    work.edit_or_create::<DedupPage>(page, place.is_multiple_of(DEDUP_PAGE_IDS))?
        .0
        .push((id, at));
    if head.first == head.next {
        head.armed = timers::bucket_of(at.plus_ms(window_ms));
        timers::arm(work, Timer::Dedup(object), head.armed)?;
    }
    head.next += 1;
    Ok(())
}

/// Forgets ids whose window is over, a bounded number, and arms the timer for the rest.
fn forget(
    work: &mut Work<'_>,
    object: ObjectId,
    head: &mut DedupHead,
    window_ms: u64,
) -> Result<(), NeedsKeys> {
    head.armed = 0;
    let end = head.next.min(head.first + FORGET_STEP);
    let first = head.first;
    while head.first < end {
        if head.first == first || head.first.is_multiple_of(DEDUP_PAGE_IDS) {
            require_page(work, object, head.first)?;
        }
        let (id, at) = line(work, object, head.first)?;
        if !is_over(at, window_ms, work.now()) {
            break;
        }
        forget_line(work, object, head, id)?;
        work.count_effort(1);
    }
    if head.first < head.next {
        let (_, at) = line(work, object, head.first)?;
        head.armed = timers::bucket_of(at.plus_ms(window_ms));
        timers::arm(work, Timer::Dedup(object), head.armed)?;
    }
    Ok(())
}

/// Forgets ids whatever their age, a bounded number; returns whether none is left.
pub(crate) fn forget_all_step(
    work: &mut Work<'_>,
    object: ObjectId,
    head: &mut DedupHead,
) -> Result<bool, NeedsKeys> {
    let end = head.next.min(head.first + DEDUP_PAGE_IDS);
    require_page(work, object, head.first)?;
    while head.first < end {
        let (id, _) = line(work, object, head.first)?;
        forget_line(work, object, head, id)?;
    }
    Ok(head.first == head.next)
}

fn is_over(at: ShardTime, window_ms: u64, now: ShardTime) -> bool {
    at.plus_ms(window_ms) <= now
}

/// Asks for all ids of a page at once, when its first remembered line is reached.
fn require_page(work: &Work<'_>, object: ObjectId, place: u64) -> Result<(), NeedsKeys> {
    let page = work.find::<DedupPage>(Key::DedupLog(object, place / DEDUP_PAGE_IDS))?;
    let ids = page.iter().flat_map(|page| &page.0);
    require(
        work,
        ids.skip((place % DEDUP_PAGE_IDS) as usize)
            .map(|(id, _)| Key::Dedup(object, *id)),
    )
}

fn line(work: &Work<'_>, object: ObjectId, place: u64) -> Result<(DedupId, ShardTime), NeedsKeys> {
    let page = work
        .find::<DedupPage>(Key::DedupLog(object, place / DEDUP_PAGE_IDS))?
        .expect("the log of arrivals has a page for every remembered place");
    Ok(page.0[(place % DEDUP_PAGE_IDS) as usize])
}

fn forget_line(
    work: &mut Work<'_>,
    object: ObjectId,
    head: &mut DedupHead,
    id: DedupId,
) -> Result<(), NeedsKeys> {
    let key = Key::Dedup(object, id);
    // The id may have come again since: then it is remembered for its newer place.
    if work
        .find::<DedupEntry>(key)?
        .is_some_and(|entry| entry.place == head.first)
    {
        work.delete(key);
    }
    head.first += 1;
    if head.first.is_multiple_of(DEDUP_PAGE_IDS) {
        work.delete(Key::DedupLog(object, head.first / DEDUP_PAGE_IDS - 1));
    } else if head.first == head.next {
        work.delete(Key::DedupLog(object, head.first / DEDUP_PAGE_IDS));
        // The next id begins a new page, since this one is gone.
        let next_page = head.first.next_multiple_of(DEDUP_PAGE_IDS);
        head.first = next_page;
        head.next = next_page;
    }
    Ok(())
}

/// The timer of an object's ids fired.
pub(crate) fn fire(work: &mut Work<'_>, object: ObjectId, bucket: u64) -> Result<(), NeedsKeys> {
    let key = Key::Object(object);
    match work.get(&key) {
        Lookup::Found(record) => match &*record {
            Record::Topic(topic) if topic.dedup.armed == bucket => {
                let mut topic = Topic::clone(topic);
                let window_ms = topic.settings.dedup_window_ms;
                forget(work, object, &mut topic.dedup, window_ms)?;
                work.put(key, topic);
            }
            Record::Queue(queue) if queue.dedup.armed == bucket => {
                let mut queue = Queue::clone(queue);
                let window_ms = queue.settings.dedup_window_ms;
                forget(work, object, &mut queue.dedup, window_ms)?;
                work.put(key, queue);
            }
            _ => {}
        },
        Lookup::Absent => {}
        Lookup::Missing => return Err(NeedsKeys(vec![key])),
    }
    Ok(())
}
