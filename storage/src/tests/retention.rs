//! Segments go when nothing needs them, and not before; compaction changes nothing that is live.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::support::{Bench, entry, slot_bytes};
use crate::{
    CheckpointBatch, GroupId, LiveSlots, NodeLog, Released, SegmentId, SegmentInfo, StorageError,
};

const GROUP: GroupId = GroupId(1);
const SLOTS: u32 = 5;

fn filled(entries: u64) -> Bench {
    let bench = Bench::new();
    for index in 1..=entries {
        bench.append(1, vec![entry(index, SLOTS, 150)]).unwrap();
    }
    bench.log().seal().unwrap();
    bench
}

fn release(log: &NodeLog, slots: impl IntoIterator<Item = (u64, u32)>) {
    let released = slots
        .into_iter()
        .map(|(index, slot)| Released {
            index,
            slots: slot..slot + 1,
            bytes: slot_bytes(index, slot, 150, 0).len() as u64,
        })
        .collect();
    let batch = CheckpointBatch {
        released,
        ..CheckpointBatch::default()
    };
    log.checkpoints().commit(GROUP, batch).unwrap();
}

fn all_slots(indexes: impl IntoIterator<Item = u64>) -> Vec<(u64, u32)> {
    indexes
        .into_iter()
        .flat_map(|index| (0..SLOTS).map(move |slot| (index, slot)))
        .collect()
}

fn segment(bench: &Bench, id: SegmentId) -> Option<SegmentInfo> {
    let segments = bench.log().segments().unwrap();
    segments.into_iter().find(|segment| segment.id == id)
}

fn with_payload(bench: &Bench) -> Vec<SegmentInfo> {
    let mut segments = bench.log().segments().unwrap();
    segments.retain(|segment| segment.payload_bytes > 0);
    segments
}

#[test]
fn a_segment_goes_only_when_sealed_purged_and_dead() {
    let mut bench = filled(60);
    let segments = with_payload(&bench);
    assert!(segments.len() >= 3);
    assert_eq!(bench.log().drop_dead_segments().unwrap(), []);
    // Dead but still Raft's.
    release(bench.log(), all_slots(1..=60));
    assert!(with_payload(&bench).iter().all(|one| one.live_bytes == 0));
    assert_eq!(bench.log().drop_dead_segments().unwrap(), []);
    bench.purge(1, 30).unwrap();
    bench.log().seal().unwrap();
    let dropped = bench.log().drop_dead_segments().unwrap();
    assert!(!dropped.is_empty() && dropped.len() < segments.len());
    let first = bench.log().read_slots(GROUP, 1, 0..1).unwrap_err();
    assert!(matches!(first, StorageError::NotFound { .. }), "{first}");
    bench.restart();
    assert_eq!(bench.indexes(1), (31..=60).collect::<Vec<_>>());
    assert!(bench.log().damage().unwrap().is_empty());
    bench.purge(1, 60).unwrap();
    bench.log().seal().unwrap();
    bench.log().drop_dead_segments().unwrap();
    assert!(with_payload(&bench).is_empty());
}

#[test]
fn one_live_slot_keeps_its_segment() {
    let bench = filled(60);
    bench.purge(1, 60).unwrap();
    bench.log().seal().unwrap();
    let mut slots = all_slots(1..=60);
    slots.retain(|slot| *slot != (1, 3));
    release(bench.log(), slots);
    bench.log().drop_dead_segments().unwrap();
    let left = with_payload(&bench);
    assert_eq!(left.len(), 1);
    assert_eq!(
        left[0].live_bytes,
        slot_bytes(1, 3, 150, 0).len() as u64,
        "accounting is exact"
    );
    let read = bench.log().read_slots(GROUP, 1, 3..4).unwrap();
    assert_eq!(read[0], slot_bytes(1, 3, 150, 0));
    release(bench.log(), [(1, 3)]);
    bench.log().drop_dead_segments().unwrap();
    assert!(with_payload(&bench).is_empty());
}

#[test]
fn truncated_entries_are_dead_at_once() {
    let bench = filled(60);
    let before: u64 = with_payload(&bench).iter().map(|one| one.live_bytes).sum();
    bench.truncate(1, Some(30)).unwrap();
    bench.log().seal().unwrap();
    let after: u64 = with_payload(&bench).iter().map(|one| one.live_bytes).sum();
    assert_eq!(after * 2, before);
    bench.purge(1, 30).unwrap();
    bench.log().seal().unwrap();
    release(bench.log(), all_slots(1..=30));
    bench.log().drop_dead_segments().unwrap();
    assert!(with_payload(&bench).is_empty());
}

#[test]
fn dead_counts_survive_a_crash_with_their_checkpoint() {
    let mut bench = filled(40);
    release(bench.log(), all_slots(1..=10));
    let before = with_payload(&bench);
    bench.kill();
    let after = with_payload(&bench);
    let live = |segments: &[SegmentInfo]| -> Vec<u64> {
        segments.iter().map(|one| one.live_bytes).collect()
    };
    assert_eq!(live(&before), live(&after));
}

/// Every third slot lives.
fn lives(index: u64, slot: u32) -> bool {
    (index * u64::from(SLOTS) + u64::from(slot)).is_multiple_of(3)
}

fn live_slots(index: u64) -> LiveSlots {
    let ranges = (0..SLOTS)
        .filter(|slot| lives(index, *slot))
        .map(|slot| slot..slot + 1)
        .collect();
    LiveSlots::Some(ranges)
}

fn check_live(bench: &Bench, entries: u64) {
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

fn mostly_dead(entries: u64) -> Bench {
    let bench = filled(entries);
    bench.purge(1, entries).unwrap();
    bench.log().seal().unwrap();
    let mut slots = all_slots(1..=entries);
    slots.retain(|(index, slot)| !lives(*index, *slot));
    release(bench.log(), slots);
    bench
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
    let sizes = |slots: &BTreeSet<(u64, u32)>| -> u64 {
        let sizes = slots.iter();
        sizes
            .map(|(index, slot)| slot_bytes(*index, *slot, 150, 0).len() as u64)
            .sum()
    };
    let counted = |bench: &Bench| -> u64 {
        let segments = with_payload(bench);
        segments.iter().map(|one| one.live_bytes).sum()
    };
    // Some is dead before, and some dies meanwhile: before it is asked for, and after.
    let all = all_slots(1..=60);
    let dies = |slots: &[(u64, u32)]| -> Vec<(u64, u32)> {
        let dies = slots.iter().filter(|(index, slot)| !lives(*index, *slot));
        dies.copied().collect()
    };
    let (before, mut meanwhile) = (dies(&all[..100]), dies(&all[100..]));
    let live = std::cell::RefCell::new(BTreeSet::from_iter(all));
    let let_die = |slots: Vec<(u64, u32)>| {
        slots.iter().for_each(|slot| {
            live.borrow_mut().remove(slot);
        });
        release(bench.log(), slots);
    };
    let_die(before);
    let dying = std::cell::RefCell::new(&mut meanwhile);
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
    let released = std::cell::Cell::new(false);
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
    let expected: u64 = live
        .iter()
        .skip(4)
        .map(|(index, slot)| slot_bytes(*index, *slot, 150, 0).len() as u64)
        .sum();
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
    let is_replaced = std::cell::Cell::new(false);
    let outcome = bench.log().compact(info.id, &|_, index| {
        if !is_replaced.replace(true) {
            bench.log().vacate(GROUP, 12).unwrap();
        }
        live_slots(index)
    });
    assert!(
        matches!(outcome, Err(StorageError::SegmentBusy { .. })),
        "{outcome:?}"
    );
    let paths = bench.disk.paths();
    let is_unfinished = |path: &PathBuf| path.extension().is_some_and(|end| end == "tmp");
    assert!(!paths.iter().any(is_unfinished));
    assert_eq!(segment(&bench, info.id).unwrap().live_bytes, 0);
    bench.log().drop_dead_segments().unwrap();
    assert!(segment(&bench, info.id).is_none());
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

/// The disk dies at every step of a compaction and of a drop in turn.
#[test]
fn a_power_cut_at_any_step_of_compaction_loses_nothing_live() {
    for step in 0.. {
        let mut bench = mostly_dead(24);
        let info = with_payload(&bench)[0].clone();
        bench.disk.die_at_step(step);
        let outcome = bench.log().compact(info.id, &|_, index| live_slots(index));
        let report = bench.cut_power(None);
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        check_live(&bench, 24);
        let segments = with_payload(&bench);
        let live: u64 = segments.iter().map(|one| one.live_bytes).sum();
        let payload: u64 = segments.iter().map(|one| one.payload_bytes).sum();
        assert!(live > 0 && live <= payload);
        for info in segments {
            bench
                .log()
                .compact(info.id, &|_, index| live_slots(index))
                .unwrap();
        }
        check_live(&bench, 24);
        if outcome.is_ok() {
            assert!(step >= 5);
            break;
        }
    }
}

#[test]
fn a_power_cut_at_any_step_of_a_drop_is_repaired() {
    for step in 0.. {
        let mut bench = filled(30);
        bench.purge(1, 20).unwrap();
        bench.log().seal().unwrap();
        release(bench.log(), all_slots(1..=20));
        bench.disk.die_at_step(step);
        let outcome = bench.log().drop_dead_segments();
        let report = bench.cut_power(None);
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        assert_eq!(bench.indexes(1), (21..=30).collect::<Vec<_>>());
        bench.log().drop_dead_segments().unwrap();
        // Also waits until the index knows the open segment.
        bench.log().seal().unwrap();
        let known: BTreeSet<String> = bench
            .log()
            .segments()
            .unwrap()
            .iter()
            .map(|one| format!("{:010}-", one.id.0))
            .collect();
        for path in bench.disk.paths() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_known = known.iter().any(|known| name.starts_with(known));
            let is_next = !is_known && path == *bench.disk.paths().last().unwrap();
            assert!(is_known || is_next, "{name} is left over at step {step}");
        }
        if outcome.is_ok() {
            break;
        }
    }
}
