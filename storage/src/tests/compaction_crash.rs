//! Compactions that a crash or a failing disk ends at any step.

use std::cell::Cell;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::compaction::{
    assert_gave_up, check_live, counted, live_slots, lives, mostly_dead, sizes,
};
use super::retention::{GROUP, SLOTS, all_slots, filled, release, with_payload};
use super::support::slot_bytes;
use crate::compact::{Survey, survey};
use crate::dead_counts::load_dead_counts;
use crate::segment::SegmentKey;
use crate::testing::EndOfLife;
use crate::{CheckpointBatch, GroupId, LiveSlots, Released, StorageError};

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

/// Kept whole for Raft, what is dead of entries is known by counts alone: those must come with the new file.
#[test]
fn a_power_cut_at_any_step_of_compaction_forgets_nothing_dead() {
    let live: BTreeSet<(u64, u32)> = all_slots(1..=24)
        .into_iter()
        .filter(|(index, slot)| lives(*index, *slot))
        .collect();
    let lives = [
        EndOfLife::Kill,
        EndOfLife::PowerCut { torn_seed: None },
        EndOfLife::PowerCut { torn_seed: Some(7) },
    ];
    for end in lives {
        for step in 0.. {
            let mut bench = filled(24);
            let mut dead = all_slots(1..=24);
            dead.retain(|slot| !live.contains(slot));
            release(bench.log(), dead);
            let info = with_payload(&bench)[0].clone();
            bench.disk.die_at_step(step);
            let outcome = bench.log().compact(info.id, &|_, index| live_slots(index));
            for _ in 0..2 {
                bench.next_life(end);
                assert_eq!(counted(&bench), sizes(&live), "{end:?} at step {step}");
            }
            for info in with_payload(&bench) {
                bench
                    .log()
                    .compact(info.id, &|_, index| live_slots(index))
                    .unwrap();
            }
            assert_eq!(counted(&bench), sizes(&live));
            if outcome.is_ok() {
                assert!(step >= 5);
                break;
            }
        }
    }
}

/// A crash between its batches leaves some entries moved, and the rest is to be done at the next start.
#[test]
fn to_move_entries_again_changes_no_counts() {
    let mut bench = mostly_dead(24);
    let old = with_payload(&bench)[0].clone();
    bench
        .log()
        .compact(old.id, &|_, index| live_slots(index))
        .unwrap();
    let before = counted(&bench);
    assert!(before > 0);
    {
        let core = bench.log().core().unwrap();
        let [old_key, new_key] = [0, 1].map(|generation| SegmentKey {
            id: old.id,
            generation,
        });
        let file = core.segments.get(new_key).unwrap();
        let Survey {
            moves, mut stats, ..
        } = survey(&file).unwrap();
        load_dead_counts(&core.index, &mut stats).unwrap();
        let mut applier = core.applier.lock();
        applier.move_segment(old_key, &moves, stats).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(counted(&bench), before);
        check_live(&bench, 24);
        bench.kill();
    }
}

/// What it releases is released again by the next one.
#[test]
fn a_checkpoint_that_fails_during_a_compaction_counts_for_nothing() {
    let mut bench = mostly_dead(24);
    let info = with_payload(&bench)[0].clone();
    let before = counted(&bench);
    let has_failed = Cell::new(false);
    let live = |_: GroupId, index| {
        if !has_failed.replace(true) {
            let all = all_slots(1..=24).into_iter();
            let released = all
                .filter(|(index, slot)| lives(*index, *slot))
                .map(|(index, slot)| Released {
                    index,
                    slots: slot..slot + 1,
                    bytes: slot_bytes(index, slot, 150, 0).len() as u64,
                })
                .collect();
            // More than is committed without a file of its own.
            let changes = (0..1_000u32)
                .map(|number| {
                    (
                        number.to_be_bytes().to_vec(),
                        Some(Bytes::from_static(b"new")),
                    )
                })
                .collect();
            let batch = CheckpointBatch {
                changes,
                released,
                ..CheckpointBatch::default()
            };
            bench.disk.set_capacity(Some(bench.disk.used_bytes()));
            let failed = bench.log().checkpoints().commit(GROUP, batch).unwrap_err();
            assert!(failed.is_out_of_space(), "{failed}");
            bench.disk.set_capacity(None);
        }
        live_slots(index)
    };
    let outcome = bench.log().compact(info.id, &live);
    assert_gave_up(outcome);
    bench.kill();
    assert_eq!(counted(&bench), before);
    check_live(&bench, 24);
}

/// Whoever asks for one late hears that it is not there, and not that something is damaged.
#[test]
fn what_a_compaction_left_out_is_gone_after_a_kill_at_any_step() {
    for step in 0.. {
        let mut bench = filled(24);
        bench.purge(1, 24).unwrap();
        bench.log().seal().unwrap();
        release(bench.log(), all_slots(1..=5));
        let info = with_payload(&bench)[0].clone();
        bench.disk.die_at_step(step);
        let live = |_: GroupId, index| match index {
            1..=5 => LiveSlots::None,
            _ => LiveSlots::All,
        };
        let outcome = bench.log().compact(info.id, &live);
        for _ in 0..2 {
            bench.next_life(EndOfLife::Kill);
            // Not compacted yet, or gone.
            if let Err(error) = bench.log().read_slots(GROUP, 3, 0..1) {
                assert!(
                    matches!(error, StorageError::NotFound { .. }),
                    "step {step}: {error}"
                );
            }
            assert!(bench.log().damage().unwrap().is_empty());
            let kept = bench.log().read_slots(GROUP, 6, 0..SLOTS).unwrap();
            assert_eq!(kept.len(), SLOTS as usize);
        }
        if outcome.is_ok() {
            assert!(step >= 5);
            break;
        }
    }
}
