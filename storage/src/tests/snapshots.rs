//! A snapshot carries a frozen state and all payload it refers to.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::support::{Bench, entry, point, slot_bytes};
use crate::{
    CheckpointBatch, GroupId, LiveRange, LiveSlots, Released, SnapshotExport, SnapshotManifest,
};

pub(super) const GROUP: GroupId = GroupId(4);

fn live_of(index: u64) -> LiveSlots {
    match index % 3 {
        0 => LiveSlots::All,
        1 => LiveSlots::None,
        _ => LiveSlots::Some(vec![1..2, 2..3]),
    }
}

fn live_ranges(upto: u64) -> impl Iterator<Item = crate::Result<LiveRange>> {
    (1..=upto).map(|index| {
        Ok(LiveRange {
            index,
            slots: live_of(index),
        })
    })
}

fn records(version: &str, keys: std::ops::Range<u32>) -> Vec<(Vec<u8>, Option<Bytes>)> {
    keys.map(|key| {
        let value = Bytes::from(format!("{version} {key}").repeat(1 + key as usize % 90));
        (key.to_be_bytes().to_vec(), Some(value))
    })
    .collect()
}

pub(super) fn commit(bench: &Bench, changes: Vec<(Vec<u8>, Option<Bytes>)>, applied: &str) {
    let batch = CheckpointBatch {
        changes,
        applied: Bytes::copy_from_slice(applied.as_bytes()),
        released: Vec::new(),
    };
    bench.log().checkpoints().commit(GROUP, batch).unwrap();
}

pub(super) fn state(bench: &Bench) -> BTreeMap<Vec<u8>, Bytes> {
    let scan = bench.log().checkpoints().scan(GROUP, b"").unwrap();
    scan.map(Result::unwrap).collect()
}

pub(super) fn source() -> Bench {
    let bench = Bench::new();
    for index in 1..=80 {
        bench.append(4, vec![entry(index, 4, 300)]).unwrap();
    }
    commit(&bench, records("old", 0..700), "at 80");
    bench
}

pub(super) fn chunks(export: &SnapshotExport) -> Vec<Bytes> {
    export.chunks(live_ranges(80)).map(Result::unwrap).collect()
}

fn install(target: &Bench, manifest: &SnapshotManifest, chunks: &[Bytes]) {
    let manifest = SnapshotManifest::decode(&manifest.encode()).unwrap();
    let mut import = target.log().import_snapshot(manifest).unwrap();
    for chunk in chunks {
        import.chunk(chunk).unwrap();
    }
    import.install().unwrap();
    target.purge(4, 80).unwrap();
}

pub(super) fn check_payload(bench: &Bench) {
    for index in 1..=80 {
        for slot in 0..4 {
            let read = bench.log().read_slots(GROUP, index, slot..slot + 1);
            if live_of(index).contains(slot) {
                assert_eq!(read.unwrap()[0], slot_bytes(index, slot, 300, 0));
            } else {
                assert!(read.is_err(), "{index}/{slot} is not part of the state");
            }
        }
    }
}

#[test]
fn a_snapshot_brings_state_and_payload_to_an_empty_node() {
    let source = source();
    let export = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let chunks = chunks(&export);
    let mut target = Bench::new();
    install(&target, export.manifest(), &chunks);
    for _ in 0..2 {
        assert_eq!(state(&target), state(&source));
        check_payload(&target);
        let found = target.log().group_state(GROUP).unwrap();
        assert_eq!(found.last, Some(point(80)));
        let applied = target.log().checkpoints().applied(GROUP).unwrap();
        assert_eq!(applied.as_deref(), Some(&b"at 80"[..]));
        target.kill();
    }
    // It can be passed on from there.
    let export = target.log().export_snapshot(GROUP, point(80)).unwrap();
    let again: Vec<Bytes> = export
        .chunks((1..=80).filter(|index| index % 3 != 1).map(|index| {
            Ok(LiveRange {
                index,
                slots: live_of(index),
            })
        }))
        .map(Result::unwrap)
        .collect();
    let third = Bench::new();
    install(&third, export.manifest(), &again);
    check_payload(&third);
    // And the log goes on behind it.
    target.append(4, vec![entry(81, 2, 50)]).unwrap();
    assert_eq!(target.indexes(4), [81]);
}

#[test]
fn an_export_is_a_frozen_view() {
    let source = source();
    let before = state(&source);
    let export = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let mut frozen = export.records();
    let mut seen = BTreeMap::new();
    for round in 0..6u32 {
        let mut changes = records("new", round * 100..round * 100 + 50);
        changes.extend(
            (round * 100 + 50..round * 100 + 60).map(|key| (key.to_be_bytes().to_vec(), None)),
        );
        changes.extend(records("created", 10_000 + round..10_001 + round));
        commit(&source, changes, "later");
        for _ in 0..100 {
            if let Some(record) = frozen.next() {
                let (key, value) = record.unwrap();
                seen.insert(key, value);
            }
        }
    }
    for record in frozen {
        let (key, value) = record.unwrap();
        seen.insert(key, value);
    }
    assert_eq!(seen, before);
    assert_eq!(export.manifest().applied, "at 80");
    drop(export);
    let fresh = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let again: BTreeMap<_, _> = fresh.records().map(Result::unwrap).collect();
    assert_eq!(again, state(&source));
}

#[test]
fn an_export_pins_its_segments() {
    let source = source();
    source.purge(4, 80).unwrap();
    source.log().seal().unwrap();
    let export = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let released = (1..=80)
        .map(|index| Released {
            index,
            slots: 0..4,
            bytes: 1200,
        })
        .collect();
    let batch = CheckpointBatch {
        released,
        ..CheckpointBatch::default()
    };
    source.log().checkpoints().commit(GROUP, batch).unwrap();
    assert!(source.log().segments().unwrap()[0].pinned);
    assert_eq!(source.log().drop_dead_segments().unwrap(), []);
    assert!(
        export
            .chunks(live_ranges(80))
            .all(|chunk| chunk.is_ok_and(|chunk| !chunk.is_empty()))
    );
    drop(export);
    assert!(!source.log().drop_dead_segments().unwrap().is_empty());
}

#[test]
fn a_flipped_lost_or_repeated_chunk_is_refused() {
    let source = source();
    let export = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let chunks = chunks(&export);
    assert!(chunks.len() >= 2);
    let target = Bench::new();
    let import = || {
        target
            .log()
            .import_snapshot(export.manifest().clone())
            .unwrap()
    };
    for at in (0..chunks[0].len()).step_by(chunks[0].len() / 50) {
        let mut flipped = chunks[0].to_vec();
        flipped[at] ^= 4;
        assert!(import().chunk(&flipped).is_err(), "flip at {at}");
    }
    assert!(import().chunk(&chunks[1]).is_err());
    let mut incomplete = import();
    incomplete.chunk(&chunks[0]).unwrap();
    assert!(incomplete.chunk(&chunks[0]).is_err());
    assert!(incomplete.install().is_err());
    assert!(state(&target).is_empty());
}

/// The receiver's disk dies at every step in turn: the group is as before or as in the snapshot.
#[test]
fn a_power_cut_at_any_step_of_an_install_leaves_one_of_both_states() {
    let source = source();
    let export = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let chunks = chunks(&export);
    for step in 0.. {
        let mut target = Bench::new();
        for index in 1..=20 {
            target.append(4, vec![entry(index, 4, 300)]).unwrap();
        }
        commit(&target, records("before", 0..30), "at 20");
        let before = state(&target);
        let mut import = target
            .log()
            .import_snapshot(export.manifest().clone())
            .unwrap();
        for chunk in &chunks {
            import.chunk(chunk).unwrap();
        }
        target.disk.die_at_step(step);
        let outcome = import.install();
        let report = target.cut_power(Some(step));
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        let found = state(&target);
        if found == before {
            assert!(outcome.is_err());
            assert_eq!(target.indexes(4), (1..=20).collect::<Vec<_>>());
            for index in 1..=20 {
                target.log().read_slots(GROUP, index, 0..4).unwrap();
            }
            // What the attempt left behind does not stand in the way of the next.
            install(&target, export.manifest(), &chunks);
        }
        assert_eq!(state(&target), state(&source));
        check_payload(&target);
        if outcome.is_ok() {
            assert!(step >= 4);
            break;
        }
    }
}

#[test]
fn replaced_payload_is_dead_and_later_entries_live() {
    let source = source();
    let export = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let chunks = chunks(&export);
    let target = Bench::new();
    for index in 1..=20 {
        target.append(4, vec![entry(index, 4, 300)]).unwrap();
    }
    install(&target, export.manifest(), &chunks);
    target.append(4, vec![entry(81, 4, 300)]).unwrap();
    target.log().seal().unwrap();
    let wanted: u64 = (1..=80)
        .flat_map(|index| (0..4).map(move |slot| (index, slot)))
        .filter(|(index, slot)| live_of(*index).contains(*slot))
        .map(|(index, slot)| slot_bytes(index, slot, 300, 0).len() as u64)
        .sum();
    let later: u64 = (0..4)
        .map(|slot| slot_bytes(81, slot, 300, 0).len() as u64)
        .sum();
    let segments = target.log().segments().unwrap();
    let live: u64 = segments.iter().map(|one| one.live_bytes).sum();
    assert_eq!(live, wanted + later);
    for info in segments.iter().filter(|info| info.sealed) {
        target
            .log()
            .compact(info.id, &|_, index| live_of(index))
            .unwrap();
    }
    check_payload(&target);
    target.log().read_slots(GROUP, 81, 0..4).unwrap();
}

#[test]
fn a_group_that_was_given_up_returns_its_space_and_can_be_filled_again() {
    let donor = source();
    let export = donor.log().export_snapshot(GROUP, point(80)).unwrap();
    let chunks = chunks(&export);
    let mut bench = source();
    for index in 1..=4 {
        bench.append(5, vec![entry(index, 4, 300)]).unwrap();
    }
    bench.vote(4, "for node 2").unwrap();
    bench.append(4, vec![entry(81, 2, 50)]).unwrap();
    let held = |bench: &Bench| bench.log().metrics().unwrap().segment_bytes;
    let before = held(&bench);
    assert_eq!(bench.log().is_vacated(GROUP).unwrap(), None);
    bench.log().vacate(GROUP, 80).unwrap();
    // Killed before it was purged.
    bench.kill();
    assert_eq!(bench.log().is_vacated(GROUP).unwrap(), Some(80));
    bench.purge(4, 80).unwrap();
    bench.log().seal().unwrap();
    bench.log().drop_dead_segments().unwrap();
    assert!(held(&bench) * 4 < before, "{} of {before}", held(&bench));
    for _ in 0..2 {
        bench.kill();
        assert_eq!(bench.log().is_vacated(GROUP).unwrap(), Some(80));
        assert!(state(&bench).is_empty());
        let found = bench.log().group_state(GROUP).unwrap();
        assert_eq!(
            (found.purged, found.last),
            (Some(point(80)), Some(point(81)))
        );
        assert_eq!(found.vote.as_deref(), Some(&b"for node 2"[..]));
        assert_eq!(bench.indexes(5), [1, 2, 3, 4]);
    }
    install(&bench, export.manifest(), &chunks);
    assert_eq!(bench.log().is_vacated(GROUP).unwrap(), None);
    for _ in 0..2 {
        assert_eq!(state(&bench), state(&donor));
        check_payload(&bench);
        assert_eq!(bench.indexes(4), [81]);
        bench.kill();
    }
}
