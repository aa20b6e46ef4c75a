//! Which bytes of the log are still needed.

use crate::ids::LogIndex;
use crate::key::Key;
use crate::live::place_of;
use crate::record::{LIVE_PAGE_ENTRIES, LivePage};
use crate::records::{NeedsKeys, Records, find};

/// Neighbouring slots of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRun {
    /// The first one.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Whether anything refers to a slot.
pub fn is_live(records: &dyn Records, index: LogIndex, slot: u32) -> Result<bool, NeedsKeys> {
    let page = find::<LivePage>(records, Key::Live(index.0 / LIVE_PAGE_ENTRIES))?;
    Ok(page.is_some_and(|page| {
        page.set(place_of(index))
            .is_some_and(|set| set.contains(slot))
    }))
}

/// The slots of an entry that something refers to, ascending.
pub fn live_runs(records: &dyn Records, index: LogIndex) -> Result<Vec<SlotRun>, NeedsKeys> {
    let page = find::<LivePage>(records, Key::Live(index.0 / LIVE_PAGE_ENTRIES))?;
    let runs = page.and_then(|page| page.set(place_of(index)).map(|set| set.runs()));
    Ok(runs
        .unwrap_or_default()
        .into_iter()
        .map(|(first, count)| SlotRun { first, count })
        .collect())
}
