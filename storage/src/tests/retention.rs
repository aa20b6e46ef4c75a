//! Segments go when nothing needs them, and not before.

use std::collections::BTreeSet;

use super::support::{Bench, entry, slot_bytes};
use crate::{CheckpointBatch, GroupId, NodeLog, Released, SegmentInfo, StorageError};

pub(super) const GROUP: GroupId = GroupId(1);
pub(super) const SLOTS: u32 = 5;

pub(super) fn filled(entries: u64) -> Bench {
    let bench = Bench::new();
    for index in 1..=entries {
        bench.append(1, vec![entry(index, SLOTS, 150)]).unwrap();
    }
    bench.log().seal().unwrap();
    bench
}

pub(super) fn release(log: &NodeLog, slots: impl IntoIterator<Item = (u64, u32)>) {
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

pub(super) fn all_slots(indexes: impl IntoIterator<Item = u64>) -> Vec<(u64, u32)> {
    indexes
        .into_iter()
        .flat_map(|index| (0..SLOTS).map(move |slot| (index, slot)))
        .collect()
}

pub(super) fn with_payload(bench: &Bench) -> Vec<SegmentInfo> {
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
