//! Dropping the oldest messages of a topic.

use super::{place_of, record_at};
use crate::ids::{ObjectId, Offset, ShardTime};
use crate::key::{BagId, Key};
use crate::outcome::ReleasedSlots;
use crate::overlay::Work;
use crate::record::{BagItem, PAGE_RECORDS, Timer, Topic, TopicPage};
use crate::records::NeedsKeys;
use crate::{bag, dedup, live, timers};

/// Index records dropped in one step.
const RECORDS_STEP: u32 = 128;

/// Drops what the topic's settings do not allow it to keep, a bounded part of it at once, and arms
/// the timer for the rest and for the oldest message's age.
pub(super) fn enforce(
    work: &mut Work<'_>,
    object: ObjectId,
    topic: &mut Topic,
) -> Result<(), NeedsKeys> {
    if let Some(most) = topic.settings.retention_messages {
        let first = topic.next.0.saturating_sub(most);
        topic.first = Offset(topic.first.0.max(first));
    }
    let mut steps = 0;
    let rest_due = loop {
        if topic.first_record == topic.next_record {
            break None;
        }
        let record = record_at(work, object, topic.first_record)?;
        let ends_at = topic
            .settings
            .retention_ms
            .map(|keep_ms| record.at.plus_ms(keep_ms));
        let is_over =
            ends_at.is_some_and(|end| timers::time_of(timers::bucket_of(end)) <= work.now());
        let is_too_much = topic
            .settings
            .retention_bytes
            .is_some_and(|most| topic.bytes > most);
        if record.end() > topic.first && !is_over && !is_too_much {
            break ends_at;
        }
        if steps == RECORDS_STEP {
            break Some(work.now());
        }
        steps += 1;
        topic.first = topic.first.max(record.end());
        if let Err(NeedsKeys(mut keys)) = drop_first_record(work, object, topic) {
            // The records behind it are the next to go: load what they need along with it.
            if let Err(NeedsKeys(more)) = require_page(work, object, topic) {
                keys.extend(more);
            }
            return Err(NeedsKeys(keys));
        }
    };
    work.count_effort(u64::from(steps));
    arm(work, object, topic, rest_due)
}

/// The oldest message of a topic may be too old, or there was more to drop than one step could.
pub(crate) fn fire_retention(
    work: &mut Work<'_>,
    object: ObjectId,
    bucket: u64,
) -> Result<(), NeedsKeys> {
    let Some(mut topic) = work.take::<Topic>(Key::Object(object))? else {
        return Ok(());
    };
    if topic.armed != bucket {
        return Ok(());
    }
    topic.armed = 0;
    enforce(work, object, &mut topic)?;
    work.put(Key::Object(object), topic);
    Ok(())
}

fn arm(
    work: &mut Work<'_>,
    object: ObjectId,
    topic: &mut Topic,
    due: Option<ShardTime>,
) -> Result<(), NeedsKeys> {
    if let Some(due) = due {
        topic.armed = timers::arm_earlier(work, Timer::Retention(object), topic.armed, due)?;
    }
    Ok(())
}

/// Asks for all that dropping the rest of the oldest page needs.
fn require_page(work: &Work<'_>, object: ObjectId, topic: &Topic) -> Result<(), NeedsKeys> {
    let (page, at) = place_of(topic.first_record);
    let found = work.find::<TopicPage>(Key::TopicPage(object, page))?;
    let records = found.iter().flat_map(|page| page.records.iter().skip(at));
    live::require_pages(work, records.map(|record| record.index))
}

fn drop_first_record(
    work: &mut Work<'_>,
    object: ObjectId,
    topic: &mut Topic,
) -> Result<(), NeedsKeys> {
    let record = record_at(work, object, topic.first_record)?;
    topic.bytes -= record.bytes;
    topic.first_record += 1;
    let (page, at) = place_of(topic.first_record - 1);
    if at as u64 == PAGE_RECORDS - 1 {
        work.delete(Key::TopicPage(object, page));
    }
    live::release_run(
        work,
        ReleasedSlots {
            index: record.index,
            first: record.first_slot,
            count: record.count,
            bytes: record.bytes,
        },
    )
}

/// Removes a page of a deleted topic, a cursor, or ids that were remembered; returns whether nothing
/// is left.
pub(crate) fn bury_step(
    work: &mut Work<'_>,
    object: ObjectId,
    topic: &mut Topic,
) -> Result<bool, NeedsKeys> {
    if topic.first_record < topic.next_record {
        let (page, _) = place_of(topic.first_record);
        let end = topic.next_record.min((page + 1) * PAGE_RECORDS);
        work.count_effort(end - topic.first_record);
        require_page(work, object, topic)?;
        while topic.first_record < end {
            drop_first_record(work, object, topic)?;
        }
        if end == topic.next_record {
            work.delete(Key::TopicPage(object, page));
        }
        return Ok(false);
    }
    // The last page of an emptied topic is there until something is appended behind it.
    let (page, _) = place_of(topic.next_record);
    work.delete(Key::TopicPage(object, page));
    let id = BagId::Cursors(object);
    let cursors = bag::items_from(work, id, &topic.cursors, 0)?;
    if let Some((place, item)) = cursors.first() {
        if let BagItem::Cursor(digest) = item {
            work.delete(Key::Cursor(object, *digest));
        }
        bag::remove(work, id, &mut topic.cursors, *place)?;
        return Ok(false);
    }
    dedup::forget_all_step(work, object, &mut topic.dedup)
}
