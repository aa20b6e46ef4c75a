//! A set of offsets, kept as the fewest inclusive ranges.

use std::collections::BTreeMap;

/// Ascending, disjoint and not adjacent ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// First to last, inclusive.
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl Ranges {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many offsets are in it.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The lowest range.
    pub fn first(&self) -> Option<(u64, u64)> {
        self.ranges.iter().next().map(|(from, to)| (*from, *to))
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(from, to)| (*from, *to))
    }

    /// Adds an inclusive range; parts of it may be there already.
    pub fn insert(&mut self, from: u64, to: u64) {
        if from > to {
            return;
        }
        let (mut from, mut to) = (from, to);
        // Everything that overlaps or touches melts into one range.
        while let Some((other_from, other_to)) = self
            .ranges
            .range(..=to.saturating_add(1))
            .next_back()
            .map(|(from, to)| (*from, *to))
            .filter(|(_, other_to)| other_to.saturating_add(1) >= from)
        {
            self.ranges.remove(&other_from);
            self.count -= other_to - other_from + 1;
            from = from.min(other_from);
            to = to.max(other_to);
        }
        self.ranges.insert(from, to);
        self.count += to - from + 1;
    }

    /// Takes out an inclusive range and returns the parts of it that were there.
    pub fn remove(&mut self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut removed = Vec::new();
        while let Some((other_from, other_to)) = self
            .ranges
            .range(..=to)
            .next_back()
            .map(|(from, to)| (*from, *to))
            .filter(|(_, other_to)| *other_to >= from)
        {
            self.ranges.remove(&other_from);
            self.count -= other_to - other_from + 1;
            if other_from < from {
                self.put(other_from, from - 1);
            }
            if other_to > to {
                self.put(to + 1, other_to);
            }
            removed.push((other_from.max(from), other_to.min(to)));
        }
        removed.reverse();
        removed
    }

    fn put(&mut self, from: u64, to: u64) {
        self.ranges.insert(from, to);
        self.count += to - from + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It holds exactly what a plain set holds, in as few ranges as possible.
        #[test]
        fn ranges_are_a_set(steps in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..8), 1..60)) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (add, from, more) in steps {
                if add {
                    ranges.insert(from, from + more);
                    model.extend(from..=from + more);
                } else {
                    let removed: Vec<u64> = ranges
                        .remove(from, from + more)
                        .into_iter()
                        .flat_map(|(from, to)| from..=to)
                        .collect();
                    let expected: Vec<u64> = model.range(from..=from + more).copied().collect();
                    model.retain(|offset| !(from..=from + more).contains(offset));
                    prop_assert_eq!(removed, expected);
                }
                let held: Vec<u64> = ranges.iter().flat_map(|(from, to)| from..=to).collect();
                prop_assert_eq!(&held, &model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(ranges.count(), model.len() as u64);
                let bounds: Vec<(u64, u64)> = ranges.iter().collect();
                prop_assert!(bounds.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
        }
    }
}
