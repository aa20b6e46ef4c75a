//! What is due: each kind of timer leads to the part of the model that armed it.

use crate::ids::ShardTime;
use crate::overlay::Work;
use crate::record::Timer;
use crate::records::NeedsKeys;
use crate::{cursor, dedup, graveyard, queue, timers, topic};

/// Does what the next due timer asks for; returns whether there was one.
pub(crate) fn fire_next(work: &mut Work<'_>) -> Result<bool, NeedsKeys> {
    let Some((bucket, timer)) = timers::next_due(work)? else {
        return Ok(false);
    };
    let is_done = match timer {
        Timer::Lease(object, lease) => {
            queue::fire_lease(work, object, lease, bucket)?;
            true
        }
        Timer::Expiry(object, page) => {
            queue::fire_expiry(work, object, page, bucket)?;
            true
        }
        Timer::Delayed(object, due_bucket) => queue::fire_delayed(work, object, due_bucket)?,
        Timer::Retention(object) => {
            topic::fire_retention(work, object, bucket)?;
            true
        }
        Timer::Dedup(object) => {
            dedup::fire(work, object, bucket)?;
            true
        }
        Timer::Cursor(object, cursor) => {
            cursor::fire_idle(work, object, cursor, bucket)?;
            true
        }
    };
    if is_done {
        timers::pop(work, bucket)?;
    }
    Ok(true)
}

/// When the shard wants to be looked at again.
pub(crate) fn next(work: &mut Work<'_>) -> Result<Option<ShardTime>, NeedsKeys> {
    if !graveyard::is_empty(work) {
        return Ok(Some(work.now()));
    }
    let bucket = timers::first_bucket(work, work.meta)?;
    Ok(bucket.map(timers::time_of))
}
