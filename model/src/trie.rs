//! Ordered sets of numbers in 64-ary tries, a record a node.
//!
//! A node is 64 bits: which of its children are there, or at level 0 which numbers. Everything is
//! reached by exact key, so that "the next number from here" needs no scan of the store. The trie
//! is only as high as its largest number asks for; its owner keeps the height, 0 when it is empty.
//!
//! Numbers near each other share nodes, and an insertion stops at the first node that was there
//! already: on a warm set it touches one record.

use crate::key::{Key, TrieId};
use crate::overlay::Work;
use crate::record::TrieNode;
use crate::records::{NeedsKeys, Records, find};

const BITS: u32 = 6;

/// Puts a number into the set; returns whether it is new there.
pub(crate) fn insert(
    work: &mut Work<'_>,
    id: TrieId,
    height: &mut u8,
    number: u64,
) -> Result<bool, NeedsKeys> {
    let needed = height_for(number);
    if *height == 0 {
        // An empty set has no nodes: there is nothing to look for.
        *height = needed;
        for level in 0..needed {
            put_first(work, id, level, number);
        }
        return Ok(true);
    }
    while *height < needed {
        work.put(Key::Trie(id, *height, 0), TrieNode(1));
        *height += 1;
    }
    for level in 0..*height {
        let key = Key::Trie(id, level, above(number, level + 1));
        let bit = bit_of(number, level);
        match work.find::<TrieNode>(key)?.map(|node| node.0) {
            Some(bits) => {
                if bits & bit == 0 {
                    work.put(key, TrieNode(bits | bit));
                }
                return Ok(level > 0 || bits & bit == 0);
            }
            None => put_first(work, id, level, number),
        }
    }
    Ok(true)
}

/// Creates the node of a level on the way to a number.
fn put_first(work: &mut Work<'_>, id: TrieId, level: u8, number: u64) {
    let key = Key::Trie(id, level, above(number, level + 1));
    work.put(key, TrieNode(bit_of(number, level)));
}

/// The bit that a number has in its node of a level.
fn bit_of(number: u64, level: u8) -> u64 {
    1 << (above(number, level) & 63)
}

/// Takes a number out of the set, if it is in.
pub(crate) fn remove(
    work: &mut Work<'_>,
    id: TrieId,
    height: &mut u8,
    number: u64,
) -> Result<(), NeedsKeys> {
    if height_for(number) > *height {
        return Ok(());
    }
    for level in 0..*height {
        let key = Key::Trie(id, level, above(number, level + 1));
        let bit = bit_of(number, level);
        let Some(bits) = work.find::<TrieNode>(key)?.map(|node| node.0) else {
            return Ok(());
        };
        if bits != bit {
            if bits & bit != 0 {
                work.put(key, TrieNode(bits & !bit));
            }
            return Ok(());
        }
        work.delete(key);
    }
    *height = 0;
    Ok(())
}

/// The smallest number in the set that is not below `from`.
pub(crate) fn next(
    records: &dyn Records,
    id: TrieId,
    height: u8,
    from: u64,
) -> Result<Option<u64>, NeedsKeys> {
    if height == 0 {
        return Ok(None);
    }
    if from == 0 {
        return descend(records, id, height - 1, 0).map(Some);
    }
    let mut at = from;
    for level in 0..height {
        if above(at, height - level) != 0 {
            return Ok(None);
        }
        let (prefix, bit) = (at >> BITS, at & 63);
        let node = find::<TrieNode>(records, Key::Trie(id, level, prefix))?;
        let rest = node.map_or(0, |node| node.0) & (u64::MAX << bit);
        if rest != 0 {
            let child = (prefix << BITS) | u64::from(rest.trailing_zeros());
            return match level {
                0 => Ok(Some(child)),
                _ => descend(records, id, level - 1, child).map(Some),
            };
        }
        at = prefix + 1;
    }
    Ok(None)
}

/// The smallest number below a node that exists.
fn descend(records: &dyn Records, id: TrieId, level: u8, prefix: u64) -> Result<u64, NeedsKeys> {
    let mut at = prefix;
    for level in (0..=level).rev() {
        let node = find::<TrieNode>(records, Key::Trie(id, level, at))?
            .expect("a node is there as long as its parent's bit is set");
        at = (at << BITS) | u64::from(node.0.trailing_zeros());
    }
    Ok(at)
}

/// How many levels a number needs.
fn height_for(number: u64) -> u8 {
    let bits = (u64::BITS - number.leading_zeros()).max(1);
    bits.div_ceil(BITS) as u8
}

/// A number without the bits of the lowest levels.
fn above(number: u64, levels: u8) -> u64 {
    number.checked_shr(u32::from(levels) * BITS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::{LogIndex, ShardId};
    use crate::overlay::Changes;
    use crate::record::ShardMeta;
    use crate::records::MemoryRecords;

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![
            0u64..200,
            0u64..70_000,
            (0u64..3).prop_map(|n| u64::MAX - n)
        ]
    }

    proptest! {
        #[test]
        fn a_trie_is_an_ordered_set(steps in proptest::collection::vec((any::<bool>(), number(), number()), 1..200)) {
            let mut state = MemoryRecords::default();
            let (mut changes, mut meta) = (Changes::default(), ShardMeta::default());
            let mut height = 0;
            let mut expected = BTreeSet::new();
            for (is_insert, number, from) in steps {
                let mut work =
                    Work::new(&state, &mut changes, &mut meta, ShardId(1), LogIndex(1), &[]);
                if is_insert {
                    let is_new =
                        insert(&mut work, TrieId::Objects, &mut height, number).unwrap();
                    prop_assert_eq!(is_new, expected.insert(number));
                } else {
                    remove(&mut work, TrieId::Objects, &mut height, number).unwrap();
                    expected.remove(&number);
                }
                changes.write_to(&mut state);
                for from in [from, number, 0] {
                    prop_assert_eq!(
                        next(&state, TrieId::Objects, height, from).unwrap(),
                        expected.range(from..).next().copied()
                    );
                }
                // An emptied set leaves no records behind.
                prop_assert_eq!(expected.is_empty(), state.is_empty());
            }
        }
    }
}
