//! Removing bit by bit what ended with many records: deleted topics and queues, sessions.
//!
//! The name is gone at once and nothing new can reach the dead. Each entry removes a bounded number
//! of pages of the oldest grave; as long as there is one the shard asks for ticks.

use crate::key::Key;
use crate::overlay::Work;
use crate::record::Grave;
use crate::records::NeedsKeys;
use crate::{queue, session, topic};

/// Puts something behind the others that are to be removed.
pub(crate) fn bury(work: &mut Work<'_>, grave: Grave) {
    work.put(Key::Grave(work.meta.grave_next), grave);
    work.meta.grave_next += 1;
}

/// Whether there is anything to remove.
pub(crate) fn is_empty(work: &Work<'_>) -> bool {
    work.meta.grave_first == work.meta.grave_next
}

/// Removes a page's worth of the oldest grave.
pub(crate) fn clean_step(work: &mut Work<'_>) -> Result<(), NeedsKeys> {
    let key = Key::Grave(work.meta.grave_first);
    let mut grave = work
        .take::<Grave>(key)?
        .expect("there is a grave for every number from the first to the last");
    work.count_effort(1);
    if step(work, &mut grave)? {
        work.delete(key);
        work.meta.grave_first += 1;
    } else {
        work.put(key, grave);
    }
    Ok(())
}

/// Removes a page's worth, or one lease, of what is over; returns whether nothing is left.
pub(crate) fn step(work: &mut Work<'_>, grave: &mut Grave) -> Result<bool, NeedsKeys> {
    Ok(match grave {
        Grave::Topic(object, state) => topic::bury_step(work, *object, state)?,
        Grave::Queue(object, state) => queue::bury_step(work, *object, state)?,
        Grave::Session(id) => session::end_step(work, *id)?,
        Grave::UnheardSession(id) => session::withdraw_step(work, *id)?,
        Grave::OldSessions(node, incarnation) => session::end_old_step(work, *node, *incarnation)?,
    })
}
