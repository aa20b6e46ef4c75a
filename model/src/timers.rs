//! What is to be done at a time.
//!
//! Shard time is cut into buckets of 50 ms. A timer goes into the bucket that *ends* at or after its
//! time, so that it fires never early and at most 50 ms late. A trie holds the buckets that have
//! timers; their timers are in chunks, in order of arming.
//!
//! Timers are never taken back. Whoever arms one remembers the bucket; when it fires and the bucket
//! is not the remembered one, or its object is gone, there is nothing to do.

use crate::ids::ShardTime;
use crate::key::{Key, TrieId};
use crate::overlay::Work;
use crate::record::{ShardMeta, Timer, TimerChunk};
use crate::records::{NeedsKeys, Records};
use crate::trie;

/// Milliseconds in one bucket.
const BUCKET_MS: u64 = 50;
/// Timers in one chunk.
const CHUNK_TIMERS: usize = 32;

/// The bucket in which something due at a time is looked at. Never 0, which means "none".
pub(crate) fn bucket_of(due: ShardTime) -> u64 {
    due.0.div_ceil(BUCKET_MS).max(1)
}

/// When a bucket's timers fire.
pub(crate) fn time_of(bucket: u64) -> ShardTime {
    ShardTime(bucket.saturating_mul(BUCKET_MS))
}

/// Arms a timer for a bucket.
pub(crate) fn arm(work: &mut Work<'_>, timer: Timer, bucket: u64) -> Result<(), NeedsKeys> {
    let mut height = work.meta.timers_height;
    let is_new = trie::insert(work, TrieId::Timers, &mut height, bucket)?;
    work.meta.timers_height = height;
    let head = work.edit_or_create::<TimerChunk>(Key::Timers(bucket, 0), is_new)?;
    let last = head.last;
    let chunk = match last {
        0 => head,
        _ => work.edit_or_default::<TimerChunk>(Key::Timers(bucket, last))?,
    };
    if chunk.timers.len() < CHUNK_TIMERS {
        chunk.timers.push(timer);
        return Ok(());
    }
    let next = TimerChunk {
        timers: vec![timer],
        ..TimerChunk::default()
    };
    work.put(Key::Timers(bucket, last + 1), next);
    work.edit_or_default::<TimerChunk>(Key::Timers(bucket, 0))?
        .last = last + 1;
    Ok(())
}

/// Arms a timer unless one is armed that fires no later; returns the bucket of the earlier one.
pub(crate) fn arm_earlier(
    work: &mut Work<'_>,
    timer: Timer,
    armed: u64,
    due: ShardTime,
) -> Result<u64, NeedsKeys> {
    let bucket = bucket_of(due);
    if armed != 0 && armed <= bucket {
        return Ok(armed);
    }
    arm(work, timer, bucket)?;
    Ok(bucket)
}

/// The next timer that is due now, and its bucket.
pub(crate) fn next_due(work: &Work<'_>) -> Result<Option<(u64, Timer)>, NeedsKeys> {
    let Some(bucket) = first_bucket(work, work.meta)? else {
        return Ok(None);
    };
    if time_of(bucket) > work.now() {
        return Ok(None);
    }
    let head = work
        .find::<TimerChunk>(Key::Timers(bucket, 0))?
        .expect("a bucket is in the trie as long as it has timers");
    let timer = match head.first {
        0 => head.timers.first().copied(),
        chunk => work
            .find::<TimerChunk>(Key::Timers(bucket, chunk))?
            .and_then(|chunk| chunk.timers.first().copied()),
    };
    Ok(Some((
        bucket,
        timer.expect("the first chunk of a bucket has a timer"),
    )))
}

/// Removes the timer that [`next_due`] gave.
pub(crate) fn pop(work: &mut Work<'_>, bucket: u64) -> Result<(), NeedsKeys> {
    let head = work.edit_or_default::<TimerChunk>(Key::Timers(bucket, 0))?;
    let (first, last) = (head.first, head.last);
    let chunk = match first {
        0 => head,
        _ => work.edit_or_default::<TimerChunk>(Key::Timers(bucket, first))?,
    };
    chunk.timers.remove(0);
    if !chunk.timers.is_empty() {
        return Ok(());
    }
    if first > 0 {
        work.delete(Key::Timers(bucket, first));
    }
    if first < last {
        work.edit_or_default::<TimerChunk>(Key::Timers(bucket, 0))?
            .first = first + 1;
        return Ok(());
    }
    work.delete(Key::Timers(bucket, 0));
    let mut height = work.meta.timers_height;
    trie::remove(work, TrieId::Timers, &mut height, bucket)?;
    work.meta.timers_height = height;
    Ok(())
}

/// The first bucket that has timers.
pub(crate) fn first_bucket(
    records: &dyn Records,
    meta: &ShardMeta,
) -> Result<Option<u64>, NeedsKeys> {
    trie::next(records, TrieId::Timers, meta.timers_height, 0)
}
