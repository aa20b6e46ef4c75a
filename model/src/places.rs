//! Places of messages within a command: which have ids, which are duplicates, which are kept.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::dedup;
use crate::ids::{DedupId, ObjectId};
use crate::key::Key;
use crate::outcome::Refusal;
use crate::overlay::Work;
use crate::records::{NeedsKeys, require};

/// Refuses ids that do not belong to the command's messages, one each, in order.
pub(crate) fn check(ids: &[(u32, DedupId)], total: u32) -> Result<(), Refusal> {
    let is_ascending = ids.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if !is_ascending || ids.last().is_some_and(|(place, _)| *place >= total) {
        return Err(Refusal::Invalid {
            what: "dedup ids must be given for ascending places of the command".to_owned(),
        });
    }
    Ok(())
}

/// Where the first message with an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Original {
    /// Stored earlier, under this offset or sequence.
    Stored(u64),
    /// At an earlier place of the same command.
    Place(u32),
}

/// The places whose ids were seen before, ascending, and where their originals are.
pub(crate) fn duplicates(
    work: &Work<'_>,
    object: ObjectId,
    window_ms: u64,
    ids: &[(u32, DedupId)],
) -> Result<Vec<(u32, Original)>, NeedsKeys> {
    if window_ms == 0 {
        return Ok(Vec::new());
    }
    require(work, ids.iter().map(|(_, id)| Key::Dedup(object, *id)))?;
    let mut found = Vec::new();
    let mut firsts: BTreeMap<DedupId, u32> = BTreeMap::new();
    for (place, id) in ids {
        if let Some(stored) = dedup::seen(work, object, window_ms, *id)? {
            found.push((*place, Original::Stored(stored)));
        } else if let Some(first) = firsts.get(id) {
            found.push((*place, Original::Place(*first)));
        } else {
            firsts.insert(*id, *place);
        }
    }
    Ok(found)
}

/// The runs of places between the duplicates, as (first, count).
pub(crate) fn kept(total: u32, duplicates: &[u32]) -> Vec<(u32, u32)> {
    let mut runs = Vec::with_capacity(1);
    let mut at = 0;
    for place in duplicates.iter().copied().chain([total]) {
        if place > at {
            runs.push((at, place - at));
        }
        at = place + 1;
    }
    runs
}

/// The parts of runs that lie within a range.
pub(crate) fn within(runs: &[(u32, u32)], range: Range<u32>) -> Vec<(u32, u32)> {
    runs.iter()
        .filter_map(|(first, count)| {
            let start = (*first).max(range.start);
            let end = (first + count).min(range.end);
            (start < end).then(|| (start, end - start))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_lie_between_duplicates() {
        assert_eq!(kept(5, &[]), [(0, 5)]);
        assert_eq!(kept(5, &[0, 2, 3]), [(1, 1), (4, 1)]);
        assert_eq!(kept(2, &[0, 1]), []);
        assert_eq!(within(&[(1, 3), (6, 2)], 2..7), [(2, 2), (6, 1)]);
    }
}
