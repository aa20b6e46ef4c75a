//! Telling a repeated batch from a new one.
//!
//! Each sender numbers its batches densely. A batch after the last one is applied; one that was
//! applied already gets the outcomes it had, as long as they are kept; anything else is refused.
//! A newer life of a node starts again at 1 and takes the place of the older.

use std::sync::Arc;

use crate::ids::{NodeId, Origin};
use crate::key::{Key, OriginKey};
use crate::mutation::{self, Mutation};
use crate::outcome::{Outcome, Refusal};
use crate::overlay::Work;
use crate::record::{OriginSlot, OriginState};
use crate::records::NeedsKeys;

/// How many of a sender's last outcomes are kept.
pub const OUTCOMES_KEPT: u64 = 64;

/// A life above all that a node can have: one that was removed is in it for ever.
pub(crate) const LIFE_NEVER: u64 = u64::MAX;

/// What to do with a batch.
pub(crate) enum Verdict {
    /// It is the next one.
    Apply,
    /// It was applied before, with these outcomes.
    Repeat(Arc<[Outcome]>),
    /// It cannot be applied.
    Refuse(Refusal),
}

/// Judges a batch.
pub(crate) fn judge(work: &Work<'_>, origin: Origin, sequence: u64) -> Result<Verdict, NeedsKeys> {
    let (key, incarnation) = parts(origin);
    let state = work.find::<OriginState>(Key::Origin(key))?;
    let last = match state.as_deref() {
        Some(state) if state.incarnation > incarnation => {
            return Ok(refuse(state.last, sequence));
        }
        Some(state) if state.incarnation == incarnation => state.last,
        _ => 0,
    };
    if last.checked_add(1) == Some(sequence) {
        return Ok(Verdict::Apply);
    }
    if sequence == 0 || sequence > last || last - sequence >= OUTCOMES_KEPT {
        return Ok(refuse(last, sequence));
    }
    if mutation::is_chosen(Mutation::Dedup) {
        return Ok(Verdict::Apply);
    }
    let slot = work.find::<OriginSlot>(slot_key(key, sequence))?;
    Ok(
        match slot.filter(|slot| slot.sequence == sequence && slot.incarnation == incarnation) {
            Some(slot) => Verdict::Repeat(slot.outcomes.clone()),
            None => refuse(last, sequence),
        },
    )
}

/// Keeps the outcomes of a batch that was applied.
pub(crate) fn keep(
    work: &mut Work<'_>,
    origin: Origin,
    sequence: u64,
    outcomes: Arc<[Outcome]>,
) -> Result<(), NeedsKeys> {
    let (key, incarnation) = parts(origin);
    let before = work.take::<OriginState>(Key::Origin(key))?;
    if before.is_some_and(|state| state.incarnation == LIFE_NEVER) {
        // The batch itself had its sender forgotten.
        return Ok(());
    }
    let mut last = sequence;
    if mutation::is_chosen(Mutation::Dedup) {
        // A repeat that was applied must not take back the numbers after it.
        let before = before.filter(|state| state.incarnation == incarnation);
        last = last.max(before.map_or(0, |state| state.last));
    }
    work.put(Key::Origin(key), OriginState { incarnation, last });
    work.put(
        slot_key(key, sequence),
        OriginSlot {
            incarnation,
            sequence,
            outcomes,
        },
    );
    Ok(())
}

/// Clears the outcomes of a node that never sends again. That it was here is remembered, so that a
/// batch of it that was long on its way is not taken for its first one.
pub(crate) fn forget(work: &mut Work<'_>, node: NodeId) {
    let key = OriginKey::Node(node);
    let state = OriginState {
        incarnation: LIFE_NEVER,
        last: 0,
    };
    work.put(Key::Origin(key), state);
    work.count_effort(OUTCOMES_KEPT);
    for place in 0..OUTCOMES_KEPT {
        work.delete(slot_key(key, place));
    }
}

fn refuse(last: u64, got: u64) -> Verdict {
    Verdict::Refuse(Refusal::OriginGap { last, got })
}

fn parts(origin: Origin) -> (OriginKey, u64) {
    match origin {
        Origin::Node { node, incarnation } => (OriginKey::Node(node), incarnation),
        Origin::Shard(shard) => (OriginKey::Shard(shard), 0),
    }
}

fn slot_key(key: OriginKey, sequence: u64) -> Key {
    Key::OriginSlot(key, (sequence % OUTCOMES_KEPT) as u8)
}
