//! Which bytes are still needed: the one owner of that question.
//!
//! A slot comes to life when a topic's index record or a queue's message refers to it, and dies when
//! that goes. Moves within the shard hand the reference on, so a slot never has more than one. Slots
//! that died are reported, so that the store can count them off; slots of an entry that nothing ever
//! referred to (duplicates, refused commands) die with the entry that brought them.

use crate::ids::LogIndex;
use crate::key::Key;
use crate::outcome::{MessageRef, ReleasedSlots};
use crate::overlay::{OwnSlots, Work};
use crate::record::{LIVE_PAGE_ENTRIES, LivePage, SlotSet};
use crate::records::{NeedsKeys, require};

/// Slots of the present entry are referred to from now on.
pub(crate) fn hold_own(work: &mut Work<'_>, first: u32, count: u32) {
    let bytes = own_bytes(work, first, count);
    work.meta.totals.live_bytes += bytes;
    work.changes.own_slots.push(OwnSlots {
        first,
        count,
        live: true,
    });
}

/// Nothing refers to these messages any more.
pub(crate) fn release(work: &mut Work<'_>, mut dead: Vec<MessageRef>) -> Result<(), NeedsKeys> {
    // Sorted, so that neighbours that died one by one are reported as one run.
    dead.sort_unstable();
    let mut runs: Vec<ReleasedSlots> = Vec::new();
    for at in dead {
        match runs.last_mut() {
            Some(run) if run.index == at.index && run.first + run.count == at.slot => {
                run.count += 1;
                run.bytes += u64::from(at.bytes);
            }
            _ => runs.push(ReleasedSlots {
                index: at.index,
                first: at.slot,
                count: 1,
                bytes: u64::from(at.bytes),
            }),
        }
    }
    require_pages(work, runs.iter().map(|run| run.index))?;
    runs.into_iter().try_for_each(|run| release_run(work, run))
}

/// Asks for the pages of entries, ascending, at once.
pub(crate) fn require_pages(
    work: &Work<'_>,
    entries: impl Iterator<Item = LogIndex>,
) -> Result<(), NeedsKeys> {
    let mut pages: Vec<u64> = entries
        .filter(|index| *index != work.index)
        .map(|index| index.0 / LIVE_PAGE_ENTRIES)
        .collect();
    pages.dedup();
    require(work, pages.into_iter().map(Key::Live))
}

/// Nothing refers to these neighbouring slots any more.
pub(crate) fn release_run(work: &mut Work<'_>, dead: ReleasedSlots) -> Result<(), NeedsKeys> {
    work.meta.totals.live_bytes -= dead.bytes;
    if dead.index == work.index {
        // The entry's own slots are settled when it ends.
        work.changes.own_slots.push(OwnSlots {
            first: dead.first,
            count: dead.count,
            live: false,
        });
        return Ok(());
    }
    let key = Key::Live(dead.index.0 / LIVE_PAGE_ENTRIES);
    let place = place_of(dead.index);
    let mut was_live = false;
    if let Some(page) = work.edit::<LivePage>(key)?
        && let Ok(found) = page.0.binary_search_by_key(&place, |(at, _)| *at)
    {
        let set = &mut page.0[found].1;
        was_live = set.remove(dead.first, dead.count);
        if set.is_empty() {
            page.0.remove(found);
        }
        if page.0.is_empty() {
            work.delete(key);
        }
    }
    assert!(was_live, "slots die once, after they lived: {dead:?}");
    work.changes.released.push(dead);
    Ok(())
}

/// Stores which slots of the present entry outlive it.
pub(crate) fn keep_own(work: &mut Work<'_>, live: &SlotSet) -> Result<(), NeedsKeys> {
    if live.is_empty() {
        return Ok(());
    }
    let page = |index: LogIndex| index.0 / LIVE_PAGE_ENTRIES;
    let index = work.index;
    // No entry of this page was applied before: nothing can be stored there.
    let is_new = page(work.meta.applied) < page(index);
    let found = work.edit_or_create::<LivePage>(Key::Live(page(index)), is_new)?;
    // Entries are applied in order: this one comes after all that are there.
    found.0.push((place_of(index), live.clone()));
    Ok(())
}

/// An entry's place in its page.
pub(crate) fn place_of(index: LogIndex) -> u8 {
    (index.0 % LIVE_PAGE_ENTRIES) as u8
}

/// The bytes of neighbouring slots of the present entry.
pub(crate) fn own_bytes(work: &Work<'_>, first: u32, count: u32) -> u64 {
    work.slot_bytes[first as usize..][..count as usize]
        .iter()
        .map(|bytes| u64::from(*bytes))
        .sum()
}
