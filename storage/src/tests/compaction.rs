//! Rewriting segments changes nothing that is live, and counts it exactly, whatever goes on meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;

use super::retention::{GROUP, SLOTS, all_slots, filled, release, with_payload};
use super::support::{Bench, point, slot_bytes};
use crate::{CompactionReport, GroupId, LiveSlots, SegmentId, SegmentInfo, StorageError};

fn segment(bench: &Bench, id: SegmentId) -> Option<SegmentInfo> {
    let segments = bench.log().segments().unwrap();
    segments.into_iter().find(|segment| segment.id == id)
}

/// What is counted as live of all segments.
pub(super) fn counted(bench: &Bench) -> u64 {
    let segments = with_payload(bench);
    segments.iter().map(|one| one.live_bytes).sum()
}

pub(super) fn sizes<'a>(slots: impl IntoIterator<Item = &'a (u64, u32)>) -> u64 {
    let slots = slots.into_iter();
    slots
        .map(|(index, slot)| slot_bytes(*index, *slot, 150, 0).len() as u64)
        .sum()
}

/// Every third slot lives.
pub(super) fn lives(index: u64, slot: u32) -> bool {
    (index * u64::from(SLOTS) + u64::from(slot)).is_multiple_of(3)
}

pub(super) fn live_slots(index: u64) -> LiveSlots {
    let ranges = (0..SLOTS)
        .filter(|slot| lives(index, *slot))
        .map(|slot| slot..slot + 1)
        .collect();
    LiveSlots::Some(ranges)
}

pub(super) fn check_live(bench: &Bench, entries: u64) {
    for (index, slot) in all_slots(1..=entries) {
        let read = bench.log().read_slots(GROUP, index, slot..slot + 1);
        if lives(index, slot) {
            assert_eq!(read.unwrap()[0], slot_bytes(index, slot, 150, 0));
        } else if let Ok(read) = read {
            // Not compacted yet, or still in memory.
            assert_eq!(read[0], slot_bytes(index, slot, 150, 0));
        }
    }
}

pub(super) fn mostly_dead(entries: u64) -> Bench {
    let bench = filled(entries);
    bench.purge(1, entries).unwrap();
    bench.log().seal().unwrap();
    let mut slots = all_slots(1..=entries);
    slots.retain(|(index, slot)| !lives(*index, *slot));
    release(bench.log(), slots);
    bench
}

pub(super) fn assert_gave_up(outcome: Result<CompactionReport, StorageError>) {
    assert!(
        matches!(outcome, Err(StorageError::SegmentBusy { .. })),
        "{outcome:?}"
    );
}

#[test]
fn compaction_keeps_live_slots_under_their_numbers_and_shrinks_the_file() {
    let mut bench = mostly_dead(60);
    for info in with_payload(&bench) {
        let report = bench
            .log()
            .compact(info.id, &|_, index| live_slots(index))
            .unwrap();
        assert!(report.bytes_after * 2 < report.bytes_before, "{report:?}");
        let after = segment(&bench, info.id).unwrap();
        assert_eq!(after.live_bytes, info.live_bytes);
        assert_eq!(after.payload_bytes, info.live_bytes);
    }
    for round in 0..3 {
        check_live(&bench, 60);
        let dead = bench.log().read_slots(GROUP, 1, 0..1).unwrap_err();
        assert!(
            matches!(dead, StorageError::Absent { slot: 0, .. }),
            "{dead}"
        );
        match round {
            0 => drop(bench.restart()),
            _ => {
                // The index is rebuilt from the compacted segments as well.
                bench.log().shutdown().unwrap();
                std::fs::remove_dir_all(bench.config.index_dir()).unwrap();
                let report = bench.open().unwrap();
                assert!(report.damage.is_empty(), "{:?}", report.damage);
            }
        }
    }
}

#[test]
fn compaction_leaves_entries_that_raft_needs_whole() {
    let bench = filled(30);
    bench.purge(1, 5).unwrap();
    bench.log().seal().unwrap();
    for info in with_payload(&bench) {
        bench
            .log()
            .compact(info.id, &|_, _| LiveSlots::None)
            .unwrap();
    }
    assert_eq!(bench.indexes(1), (6..=30).collect::<Vec<_>>());
    assert!(bench.log().read_slots(GROUP, 5, 0..1).is_err());
    let read = bench.log().read_slots(GROUP, 6, 0..SLOTS).unwrap();
    assert_eq!(read.len(), SLOTS as usize);
}

/// Kept whole for Raft, what is dead of it would count as live for good.
#[test]
fn what_is_dead_before_it_is_purged_is_not_alive_again_after_a_compaction() {
    let mut bench = filled(60);
    // Some is dead before, and some dies meanwhile: before it is asked for, and after.
    let all = all_slots(1..=60);
    let dies = |slots: &[(u64, u32)]| -> Vec<(u64, u32)> {
        let dies = slots.iter().filter(|(index, slot)| !lives(*index, *slot));
        dies.copied().collect()
    };
    let (before, mut meanwhile) = (dies(&all[..100]), dies(&all[100..]));
    let live = RefCell::new(BTreeSet::from_iter(all));
    let let_die = |slots: Vec<(u64, u32)>| {
        slots.iter().for_each(|slot| {
            live.borrow_mut().remove(slot);
        });
        release(bench.log(), slots);
    };
    let_die(before);
    let dying = RefCell::new(&mut meanwhile);
    for info in with_payload(&bench) {
        let asked = |_: GroupId, index: u64| {
            let some: Vec<_> = {
                let mut dying = dying.borrow_mut();
                let count = dying.len().min(4);
                dying.drain(..count).collect()
            };
            let_die(some);
            let live = live.borrow();
            let slots = live.range((index, 0)..(index + 1, 0));
            LiveSlots::Some(slots.map(|(_, slot)| *slot..slot + 1).collect())
        };
        let report = bench.log().compact(info.id, &asked).unwrap();
        assert_eq!(report.entries_removed, 0);
    }
    let_die(std::mem::take(&mut meanwhile));
    let live = live.into_inner();
    assert_eq!(counted(&bench), sizes(&live));
    bench.kill();
    assert_eq!(counted(&bench), sizes(&live));
    bench.purge(1, 60).unwrap();
    bench.log().seal().unwrap();
    release(bench.log(), live);
    bench.log().drop_dead_segments().unwrap();
    assert!(with_payload(&bench).is_empty());
}

/// Rewriting it would copy all of it.
#[test]
fn what_is_dead_and_not_purged_is_told_to_be_kept() {
    let bench = filled(60);
    release(bench.log(), all_slots(1..=60));
    for info in with_payload(&bench) {
        assert_eq!((info.live_bytes, info.kept_bytes), (0, info.payload_bytes));
    }
    bench.purge(1, 60).unwrap();
    bench.log().seal().unwrap();
    let kept = |info: SegmentInfo| info.kept_bytes;
    assert_eq!(with_payload(&bench).into_iter().map(kept).sum::<u64>(), 0);
}

/// A checkpoint that releases slots of a segment while that is compacted is not forgotten.
#[test]
fn what_is_released_during_compaction_is_counted_once() {
    let bench = mostly_dead(12);
    let info = with_payload(&bench)[0].clone();
    let live: BTreeSet<(u64, u32)> = all_slots(1..=12)
        .into_iter()
        .filter(|(index, slot)| lives(*index, *slot))
        .collect();
    let released = Cell::new(false);
    bench
        .log()
        .compact(info.id, &|_, index| {
            if !released.replace(true) {
                // Answers of this compaction are those from before it.
                release(bench.log(), live.iter().copied().take(4));
            }
            live_slots(index)
        })
        .unwrap();
    let expected = sizes(live.iter().skip(4));
    assert_eq!(segment(&bench, info.id).unwrap().live_bytes, expected);
    release(bench.log(), live.iter().copied().skip(4));
    bench.log().drop_dead_segments().unwrap();
    assert!(segment(&bench, info.id).is_none());
}

/// What the old state needed would count as live for good.
#[test]
fn a_compaction_gives_up_when_the_state_of_a_group_is_replaced_meanwhile() {
    let bench = mostly_dead(12);
    let info = with_payload(&bench)[0].clone();
    let is_replaced = Cell::new(false);
    let outcome = bench.log().compact(info.id, &|_, index| {
        if !is_replaced.replace(true) {
            bench.log().vacate(GROUP, 12).unwrap();
        }
        live_slots(index)
    });
    assert_gave_up(outcome);
    let paths = bench.disk.paths();
    let is_unfinished = |path: &PathBuf| path.extension().is_some_and(|end| end == "tmp");
    assert!(!paths.iter().any(is_unfinished));
    assert_eq!(segment(&bench, info.id).unwrap().live_bytes, 0);
    bench.log().drop_dead_segments().unwrap();
    assert!(segment(&bench, info.id).is_none());
}

/// It would miss what died since it began.
#[test]
fn a_compaction_gives_up_when_an_export_begins_meanwhile() {
    let bench = mostly_dead(12);
    let info = with_payload(&bench)[0].clone();
    let export = RefCell::new(None);
    let live = |_: GroupId, index| {
        export
            .borrow_mut()
            .get_or_insert_with(|| bench.log().export_snapshot(GROUP, point(12)).unwrap());
        live_slots(index)
    };
    let outcome = bench.log().compact(info.id, &live);
    assert_gave_up(outcome);
    check_live(&bench, 12);
    drop(export.take());
    let live = |_: GroupId, index| live_slots(index);
    bench.log().compact(info.id, &live).unwrap();
    check_live(&bench, 12);
}

#[test]
fn reads_go_on_while_segments_are_compacted() {
    let bench = mostly_dead(40);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                check_live(&bench, 40);
            }
        });
        for _ in 0..5 {
            for info in with_payload(&bench) {
                bench
                    .log()
                    .compact(info.id, &|_, index| live_slots(index))
                    .unwrap();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// They were copied, and are not in the log any more.
#[test]
fn entries_that_are_truncated_during_compaction_are_dead() {
    // The index learns of it before the compaction ends, or at its next round.
    for is_indexed in [true, false] {
        let mut bench = filled(24);
        let info = with_payload(&bench)[0].clone();
        let asked = Cell::new(0);
        let live = |_: GroupId, _: u64| {
            asked.set(asked.get() + 1);
            if asked.get() == 4 {
                bench.truncate(1, Some(2)).unwrap();
                if is_indexed {
                    bench.log().seal().unwrap();
                }
            }
            LiveSlots::All
        };
        bench.log().compact(info.id, &live).unwrap();
        assert!(asked.get() >= 4);
        bench.log().seal().unwrap();
        let kept = all_slots(1..=2);
        assert_eq!(counted(&bench), sizes(&kept));
        bench.kill();
        assert_eq!(counted(&bench), sizes(&kept));
        bench.purge(1, 2).unwrap();
        bench.log().seal().unwrap();
        release(bench.log(), kept);
        bench.log().drop_dead_segments().unwrap();
        assert!(with_payload(&bench).is_empty());
    }
}
