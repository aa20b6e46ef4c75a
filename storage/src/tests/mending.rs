//! Damage is forgotten when nobody misses anything by it any more, and not before.

use std::collections::BTreeSet;

use super::support::{Bench, entry, point, slot_bytes};
use crate::{CheckpointBatch, GroupId, LiveRange, LiveSlots};

const GROUP: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);
const ENTRIES: u64 = 12;

/// A segment of one group's entries and, behind it, one of another's.
fn filled() -> Bench {
    let bench = Bench::new();
    for group in [GROUP, OTHER] {
        for index in 1..=ENTRIES {
            bench.append(group.0, vec![entry(index, 4, 200)]).unwrap();
        }
        bench.log().seal().unwrap();
    }
    bench
}

/// Flips a bit of a slot of every group that has such an entry.
fn flip(bench: &mut Bench, index: u64, slot: u32) {
    bench.log().shutdown().unwrap();
    let wanted = slot_bytes(index, slot, 200, 0);
    for path in bench.disk.paths() {
        let bytes = bench.disk.read_file(&path).unwrap();
        let mut places = bytes.windows(wanted.len());
        if let Some(at) = places.position(|part| part == &wanted[..]) {
            bench.disk.flip(&path, at as u64, 1);
        }
    }
    bench.open().unwrap();
}

fn hit(bench: &Bench) -> BTreeSet<GroupId> {
    bench.log().damaged_groups().unwrap()
}

/// Gives a group a new state that refers to nothing of the old.
fn replace(bench: &Bench, group: GroupId) {
    let source = Bench::new();
    source.append(group.0, vec![entry(ENTRIES, 1, 10)]).unwrap();
    let batch = CheckpointBatch {
        applied: "later".into(),
        ..CheckpointBatch::default()
    };
    source.log().checkpoints().commit(group, batch).unwrap();
    let export = source.log().export_snapshot(group, point(ENTRIES)).unwrap();
    let mut import = bench
        .log()
        .import_snapshot(export.manifest().clone())
        .unwrap();
    for chunk in export.chunks(std::iter::empty()) {
        import.chunk(&chunk.unwrap()).unwrap();
    }
    import.install().unwrap();
    bench.purge(group.0, ENTRIES).unwrap();
    bench.wait(|log, done| log.healed(group, done)).unwrap();
    // The index follows behind.
    bench.log().seal().unwrap();
}

#[test]
fn a_group_that_has_everything_anew_is_not_damaged_any_more() {
    let mut bench = filled();
    flip(&mut bench, 3, 2);
    assert!(hit(&bench).is_empty(), "nobody has looked yet");
    for group in [GROUP, OTHER] {
        assert!(bench.log().read_slots(group, 3, 2..3).is_err());
    }
    assert_eq!(hit(&bench), BTreeSet::from([GROUP, OTHER]));
    replace(&bench, GROUP);
    for _ in 0..2 {
        assert_eq!(hit(&bench), BTreeSet::from([OTHER]));
        assert_eq!(bench.log().damage().unwrap().len(), 1);
        bench.restart();
    }
}

#[test]
fn what_a_frozen_view_cannot_read_is_reported() {
    let mut bench = filled();
    flip(&mut bench, 3, 2);
    let batch = CheckpointBatch::default();
    bench.log().checkpoints().commit(GROUP, batch).unwrap();
    let export = bench.log().export_snapshot(GROUP, point(ENTRIES)).unwrap();
    let range = |index| LiveRange {
        index,
        slots: LiveSlots::All,
    };
    assert_eq!(export.check(&range(4)).unwrap().damaged, 0);
    assert!(hit(&bench).is_empty());
    let checked = export.check(&range(3)).unwrap();
    assert_eq!((checked.messages, checked.damaged), (3, 1));
    assert_eq!(hit(&bench), BTreeSet::from([GROUP]));
}

#[test]
fn a_lost_file_concerns_those_who_need_what_was_in_it() {
    let mut bench = filled();
    bench.log().shutdown().unwrap();
    let path = bench.disk.paths().into_iter().min().unwrap();
    crate::disk::Disk::remove(&bench.disk, &path).unwrap();
    bench.open().unwrap();
    assert_eq!(hit(&bench), BTreeSet::from([GROUP]));
    replace(&bench, GROUP);
    assert!(hit(&bench).is_empty());
    // What was in it is gone for good, and with it the report.
    let dropped = bench.log().drop_dead_segments().unwrap();
    assert!(!dropped.is_empty());
    for _ in 0..2 {
        assert_eq!(bench.log().damage().unwrap(), []);
        bench.restart();
    }
    assert_eq!(bench.indexes(OTHER.0).len() as u64, ENTRIES);
}

#[test]
fn damage_that_nobody_needs_keeps_no_segment_from_being_rewritten() {
    let mut bench = filled();
    flip(&mut bench, 3, 2);
    assert!(bench.log().read_slots(GROUP, 3, 2..3).is_err());
    bench.purge(GROUP.0, ENTRIES).unwrap();
    bench.log().seal().unwrap();
    let segment = bench.log().segments().unwrap()[0].clone();
    assert_eq!(segment.groups, [GROUP]);
    let all = |_: GroupId, _: u64| LiveSlots::All;
    assert!(bench.log().compact(segment.id, &all).is_err());
    let but_that = |_: GroupId, index: u64| match index {
        3 => LiveSlots::None,
        _ => LiveSlots::All,
    };
    let report = bench.log().compact(segment.id, &but_that).unwrap();
    assert_eq!(
        (report.entries_kept, report.entries_removed),
        (ENTRIES - 1, 1)
    );
    for _ in 0..2 {
        assert_eq!(bench.log().damage().unwrap(), []);
        let read = bench.log().read_slots(GROUP, 4, 1..2).unwrap();
        assert_eq!(read[0], slot_bytes(4, 1, 200, 0));
        bench.restart();
    }
}

#[test]
fn a_suspect_group_stays_one_until_it_is_healed() {
    let mut bench = filled();
    bench
        .append(GROUP.0, vec![entry(ENTRIES + 1, 1, 10)])
        .unwrap();
    bench
        .append(GROUP.0, vec![entry(ENTRIES + 2, 1, 10)])
        .unwrap();
    bench.log().shutdown().unwrap();
    std::fs::remove_dir_all(bench.config.index_dir()).unwrap();
    // The header of a frame that may have been anything.
    let paths = bench.disk.paths();
    let last_filled = paths.iter().rfind(|path| {
        let bytes = bench.disk.read_file(path).unwrap();
        bytes.windows(6).any(|part| part == b"13/0/0")
    });
    let path = last_filled.unwrap().clone();
    let bytes = bench.disk.read_file(&path).unwrap();
    let at = bytes.windows(6).position(|part| part == b"13/0/0").unwrap();
    let header = bytes[..at].windows(4).rposition(|part| part == b"FLg1");
    bench.disk.flip(&path, header.unwrap() as u64 + 20, 1);
    bench.open().unwrap();
    let state = bench.log().group_state(GROUP).unwrap();
    assert!(state.suspect);
    assert_eq!(state.last, Some(point(ENTRIES + 2)));
    bench.restart();
    assert!(bench.log().group_state(GROUP).unwrap().suspect);
    bench.wait(|log, done| log.healed(GROUP, done)).unwrap();
    for _ in 0..2 {
        assert!(!bench.log().group_state(GROUP).unwrap().suspect);
        assert!(bench.log().group_state(OTHER).unwrap().suspect);
        bench.restart();
    }
}
