//! Removing expired messages in the background.

use super::deliver::arm_expiry;
use super::open::OpenQueue;
use super::page::tidy;
use crate::ids::ObjectId;
use crate::key::Key;
use crate::overlay::Work;
use crate::record::{NEVER, QueuePage};
use crate::records::NeedsKeys;

/// The earliest message of a page may have expired. Held ones are left to their holders: they are
/// looked at when they come back.
pub(crate) fn fire_expiry(
    work: &mut Work<'_>,
    object: ObjectId,
    page: u64,
    bucket: u64,
) -> Result<(), NeedsKeys> {
    let key = Key::QueuePage(object, page);
    let now = work.now();
    let Some(mut queue) = OpenQueue::by_id(work, object)? else {
        return Ok(());
    };
    let Some(mut found) = work.take::<QueuePage>(key)? else {
        return Ok(());
    };
    if found.armed != bucket {
        return Ok(());
    }
    let had_available = found.messages.iter().any(|message| message.is_available());
    let mut earliest = NEVER;
    let mut expired = Vec::new();
    found.messages.retain(|message| {
        if !message.is_available() {
            return true;
        }
        if message.is_expired(now) {
            expired.push(*message);
            return false;
        }
        earliest = earliest.min(message.expires);
        true
    });
    for message in &expired {
        queue.dies(work, message)?;
    }
    let count = expired.len() as u64;
    queue.state.available -= count;
    queue.count_expired(work, count);
    work.count_effort(count);
    found.armed = 0;
    work.put(key, found);
    arm_expiry(work, object, page, 0, earliest)?;
    tidy(work, &mut queue, page, had_available)?;
    queue.close(work)
}
