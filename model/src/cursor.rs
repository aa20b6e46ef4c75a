//! Durable cursors of a topic: what the readers of a group have finished.

use std::sync::Arc;

use crate::bag;
use crate::ids::{ObjectId, Offset};
use crate::key::{BagId, Key};
use crate::name::{Kind, Name};
use crate::objects::{self, check_name, not_found};
use crate::outcome::{Outcome, Refusal};
use crate::overlay::Work;
use crate::record::{BagItem, CursorState, Timer, Topic};
use crate::records::NeedsKeys;
use crate::timers;

/// Longest cursor name, in bytes.
pub const CURSOR_NAME_BYTES_MAX: usize = 1_024;
/// Most settled ranges of a cursor.
pub const SETTLED_RANGES_MAX: usize = 64;

/// The key that a cursor's name leads to.
pub(crate) fn digest(cursor: &str) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(cursor.as_bytes()).as_bytes()[..16]);
    digest
}

/// Opens a cursor or finds it; either counts as a move.
pub(crate) fn open(
    work: &mut Work<'_>,
    name: &Name,
    cursor: &str,
    start: Offset,
) -> Result<Outcome, NeedsKeys> {
    if let Err(refusal) = check(name, cursor) {
        return Ok(Outcome::Refused(refusal));
    }
    let (object, mut topic) = objects::open_topic(work, name)?;
    let key = digest(cursor);
    if let Some(state) = work.take::<CursorState>(Key::Cursor(object, key))? {
        let (low_water, settled) = (state.low_water, state.settled.clone());
        store(work, object, &topic, key, state)?;
        return Ok(Outcome::CursorOpened {
            low_water,
            settled,
            existed: true,
        });
    }
    let item = BagItem::Cursor(key);
    let place = bag::add(work, BagId::Cursors(object), &mut topic.cursors, item)?;
    // A start beyond the end waits for the message that will get that offset.
    let low_water = start.max(Offset::FIRST);
    let state = CursorState {
        name: Arc::from(cursor),
        low_water,
        settled: Vec::new(),
        moved_at: work.now(),
        place,
        armed: 0,
    };
    store(work, object, &topic, key, state)?;
    work.put(Key::Object(object), topic);
    Ok(Outcome::CursorOpened {
        low_water,
        settled: Vec::new(),
        existed: false,
    })
}

/// Moves a cursor forwards. What is below its low-water mark already stays done.
pub(crate) fn advance(
    work: &mut Work<'_>,
    name: &Name,
    cursor: &str,
    low_water: Offset,
    settled: &[(Offset, Offset)],
) -> Result<Outcome, NeedsKeys> {
    let (object, topic, key, mut state) = match existing(work, name, cursor)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };
    if let Err(refusal) = check_settled(low_water, settled, topic.next) {
        return Ok(Outcome::Refused(refusal));
    }
    state.low_water = state.low_water.max(low_water);
    state.settled.clear();
    for (first, last) in settled {
        if *first <= state.low_water {
            // What was done above the mark now joins it.
            state.low_water = state.low_water.max(Offset(last.0 + 1));
        } else {
            state.settled.push((*first, *last));
        }
    }
    store(work, object, &topic, key, state)?;
    Ok(Outcome::Done)
}

/// Moves a cursor anywhere within the topic.
pub(crate) fn reset(
    work: &mut Work<'_>,
    name: &Name,
    cursor: &str,
    to: Offset,
) -> Result<Outcome, NeedsKeys> {
    let (object, topic, key, mut state) = match existing(work, name, cursor)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };
    state.low_water = to.clamp(Offset::FIRST, topic.next);
    state.settled.clear();
    store(work, object, &topic, key, state)?;
    Ok(Outcome::Done)
}

/// Forgets a cursor.
pub(crate) fn delete(work: &mut Work<'_>, name: &Name, cursor: &str) -> Result<Outcome, NeedsKeys> {
    let (object, topic, key, state) = match existing(work, name, cursor)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };
    forget(work, object, topic, key, &state)?;
    Ok(Outcome::Done)
}

/// The timer of a cursor fired: forgets it if it was idle for too long.
pub(crate) fn fire_idle(
    work: &mut Work<'_>,
    object: ObjectId,
    key: [u8; 16],
    bucket: u64,
) -> Result<(), NeedsKeys> {
    let Some(topic) = work.take::<Topic>(Key::Object(object))? else {
        return Ok(());
    };
    let Some(mut state) = work.take::<CursorState>(Key::Cursor(object, key))? else {
        return Ok(());
    };
    if state.armed != bucket {
        return Ok(());
    }
    let due = state.moved_at.plus_ms(topic.settings.cursor_idle_ms);
    if due <= work.now() {
        return forget(work, object, topic, key, &state);
    }
    let timer = Timer::Cursor(object, key);
    state.armed = timers::arm_earlier(work, timer, 0, due)?;
    work.put(Key::Cursor(object, key), state);
    Ok(())
}

/// Stores a cursor that has just moved.
fn store(
    work: &mut Work<'_>,
    object: ObjectId,
    topic: &Topic,
    key: [u8; 16],
    mut state: CursorState,
) -> Result<(), NeedsKeys> {
    state.moved_at = work.now();
    let due = state.moved_at.plus_ms(topic.settings.cursor_idle_ms);
    let timer = Timer::Cursor(object, key);
    state.armed = timers::arm_earlier(work, timer, state.armed, due)?;
    work.put(Key::Cursor(object, key), state);
    work.count_effort(1);
    Ok(())
}

fn forget(
    work: &mut Work<'_>,
    object: ObjectId,
    mut topic: Topic,
    key: [u8; 16],
    state: &CursorState,
) -> Result<(), NeedsKeys> {
    let id = BagId::Cursors(object);
    bag::remove(work, id, &mut topic.cursors, state.place)?;
    work.delete(Key::Cursor(object, key));
    work.put(Key::Object(object), topic);
    Ok(())
}

type Found = (ObjectId, Topic, [u8; 16], CursorState);

fn existing(
    work: &Work<'_>,
    name: &Name,
    cursor: &str,
) -> Result<Result<Found, Refusal>, NeedsKeys> {
    if let Err(refusal) = check(name, cursor) {
        return Ok(Err(refusal));
    }
    let Some(object) = objects::find_by_name(work, name)? else {
        return Ok(Err(not_found(name)));
    };
    let key = digest(cursor);
    let Some(state) = work.take::<CursorState>(Key::Cursor(object, key))? else {
        return Ok(Err(Refusal::NotFound {
            what: format!("cursor {cursor:?}"),
        }));
    };
    let topic = objects::existing::<Topic>(work, object)?;
    Ok(Ok((object, topic, key, state)))
}

fn check(name: &Name, cursor: &str) -> Result<(), Refusal> {
    check_name(name, Kind::Topic)?;
    if cursor.is_empty() || cursor.len() > CURSOR_NAME_BYTES_MAX {
        return Err(Refusal::Invalid {
            what: format!("a cursor's name must have 1 to {CURSOR_NAME_BYTES_MAX} bytes"),
        });
    }
    Ok(())
}

fn check_settled(
    low_water: Offset,
    settled: &[(Offset, Offset)],
    next: Offset,
) -> Result<(), Refusal> {
    let is_ordered = settled.iter().all(|(first, last)| first <= last)
        && settled.windows(2).all(|pair| pair[0].1 < pair[1].0);
    if settled.len() > SETTLED_RANGES_MAX || !is_ordered {
        return Err(Refusal::Invalid {
            what: format!("at most {SETTLED_RANGES_MAX} ascending settled ranges can be given"),
        });
    }
    let is_beyond = settled.last().is_some_and(|(_, last)| *last >= next);
    if low_water > next || is_beyond {
        return Err(Refusal::Invalid {
            what: format!("nothing at or after offset {next} can be done yet"),
        });
    }
    Ok(())
}
