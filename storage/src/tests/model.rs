//! The log equals a naive model whatever is done to it, crashes and restarts included.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::support::{Bench, entry_of, point};
use crate::{GroupId, LogEntry, LogPoint};

#[derive(Clone, Debug)]
enum Step {
    Append {
        group: u32,
        count: u64,
        slots: u32,
        bytes: usize,
    },
    Truncate {
        group: u32,
        keep: u64,
    },
    Purge {
        group: u32,
        ahead: u64,
    },
    Vote {
        group: u32,
    },
    Restart,
    Kill,
    CutPower {
        torn: Option<u64>,
    },
    LoseIndex,
    Seal,
}

/// Mostly short slots, which an entry copies, and some long ones, which it shares.
fn slot_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![7 => 0usize..900, 1 => 4_000usize..6_000]
}

fn steps() -> impl Strategy<Value = Step> {
    let group = 1u32..4;
    prop_oneof![
        8 => (group.clone(), 1u64..6, 0u32..5, slot_bytes()).prop_map(|(group, count, slots, bytes)| Step::Append { group, count, slots, bytes }),
        2 => (group.clone(), 0u64..12).prop_map(|(group, keep)| Step::Truncate { group, keep }),
        2 => (group.clone(), 0u64..20).prop_map(|(group, ahead)| Step::Purge { group, ahead }),
        2 => group.prop_map(|group| Step::Vote { group }),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => proptest::option::of(any::<u64>()).prop_map(|torn| Step::CutPower { torn }),
        1 => Just(Step::LoseIndex),
        1 => Just(Step::Seal),
    ]
}

#[derive(Default)]
struct Group {
    entries: BTreeMap<u64, LogEntry>,
    purged: Option<LogPoint>,
    vote: Option<String>,
}

impl Group {
    fn last(&self) -> Option<LogPoint> {
        let last = self.entries.values().next_back().map(LogEntry::point);
        match (last, self.purged) {
            (Some(last), Some(purged)) if last.index <= purged.index => Some(purged),
            (None, purged) => purged,
            (last, _) => last,
        }
    }

    fn visible(&self) -> Vec<LogEntry> {
        let floor = self.purged.map_or(0, |purged| purged.index + 1);
        self.entries
            .range(floor..)
            .map(|(_, entry)| entry.clone())
            .collect()
    }
}

fn check(bench: &Bench, model: &BTreeMap<u32, Group>) {
    for (number, group) in model {
        let id = GroupId(*number);
        let state = bench.log().group_state(id).unwrap();
        assert_eq!(state.last, group.last(), "last of group {number}");
        assert_eq!(state.purged, group.purged);
        let vote = state
            .vote
            .map(|vote| String::from_utf8(vote.to_vec()).unwrap());
        assert_eq!(vote, group.vote);
        assert!(!state.suspect);
        let visible = group.visible();
        let read = bench.log().entries(id, 0..u64::MAX, usize::MAX).unwrap();
        assert_eq!(read, visible);
        let mut one_by_one = Vec::new();
        let mut next = 0;
        while let Some(entry) = bench
            .log()
            .entries(id, next..u64::MAX, 700)
            .unwrap()
            .into_iter()
            .next()
        {
            next = entry.index + 1;
            one_by_one.push(entry);
        }
        assert_eq!(one_by_one, visible);
        // Purged payload stays readable.
        for (index, entry) in &group.entries {
            let slots = entry.body.slot_count();
            let read = bench.log().read_slots(id, *index, 0..slots).unwrap();
            let wanted: Vec<_> = (0..slots)
                .map(|slot| entry.body.slot(slot).unwrap())
                .collect();
            assert_eq!(read, wanted);
            assert_eq!(
                bench.log().read_head(id, *index).unwrap(),
                entry.body.head()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_log_equals_the_model(steps in vec(steps(), 1..60)) {
        let mut bench = Bench::new();
        let mut model: BTreeMap<u32, Group> = BTreeMap::new();
        let mut version = 0;
        for step in steps {
            match step {
                Step::Append { group, count, slots, bytes } => {
                    let known = model.entry(group).or_default();
                    let first = known.last().map_or(1, |last| last.index + 1);
                    version += 1;
                    let entries: Vec<_> = (first..first + count)
                        .map(|index| entry_of(index, slots, bytes, version))
                        .collect();
                    known.entries.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
                    bench.append(group, entries).unwrap();
                }
                Step::Truncate { group, keep } => {
                    let known = model.entry(group).or_default();
                    let Some(last) = known.last() else { continue };
                    let floor = known.purged.map_or(0, |purged| purged.index);
                    let kept = last.index.saturating_sub(keep).max(floor);
                    let target = (kept > 0).then_some(kept);
                    known.entries.retain(|index, _| *index <= kept);
                    bench.truncate(group, target).unwrap();
                }
                Step::Purge { group, ahead } => {
                    let known = model.entry(group).or_default();
                    let floor = known.purged.map_or(0, |purged| purged.index);
                    let upto = point(floor + ahead + 1);
                    // Raft purges beyond its log only when a snapshot replaced it.
                    if known.last().is_some_and(|last| last.index < upto.index) {
                        known.entries.retain(|_, _| true);
                    }
                    known.purged = Some(upto);
                    bench.purge(group, upto.index).unwrap();
                }
                Step::Vote { group } => {
                    version += 1;
                    let vote = format!("vote {version}");
                    bench.vote(group, &vote).unwrap();
                    model.entry(group).or_default().vote = Some(vote);
                }
                Step::Restart => drop(bench.restart()),
                Step::Kill => drop(bench.kill()),
                Step::CutPower { torn } => drop(bench.cut_power(torn)),
                Step::LoseIndex => {
                    // State that was purged cannot be replayed without the index: another test.
                    if model.values().any(|group| group.purged.is_some()) {
                        continue;
                    }
                    bench.log().shutdown().unwrap();
                    std::fs::remove_dir_all(bench.config.index_dir()).unwrap();
                    prop_assert!(bench.open().unwrap().index_rebuilt);
                }
                Step::Seal => bench.log().seal().unwrap(),
            }
            check(&bench, &model);
        }
        prop_assert!(bench.log().damage().unwrap().is_empty());
    }
}
