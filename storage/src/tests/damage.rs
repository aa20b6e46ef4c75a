//! Flipped bits, cut files, lost files and lost indexes: reported precisely, never served, and the
//! rest stays readable.

use std::ops::Range;
use std::path::PathBuf;

use proptest::prelude::*;

use super::support::{Bench, entry, point, slot_bytes};
use crate::{CheckpointBatch, GroupId, StorageError};

const GROUP: GroupId = GroupId(1);
const ENTRIES: u64 = 60;

fn filled() -> Bench {
    let bench = Bench::new();
    for index in 1..=ENTRIES {
        bench.append(1, vec![entry(index, 4, 200)]).unwrap();
    }
    bench
}

fn segment_paths(bench: &Bench) -> Vec<PathBuf> {
    let paths = bench.disk.paths();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "data");
    paths.into_iter().filter(is_segment).collect()
}

/// Reads everything; returns how many slots could not be read. Panics on a wrong byte.
fn unreadable_slots(bench: &Bench) -> usize {
    let mut unreadable = 0;
    for index in 1..=ENTRIES {
        for slot in 0..4 {
            match bench.log().read_slots(GROUP, index, slot..slot + 1) {
                Ok(read) => assert_eq!(read[0], slot_bytes(index, slot, 200, 0)),
                Err(error) => {
                    assert!(error.is_corruption(), "{index}/{slot}: {error}");
                    unreadable += 1;
                }
            }
        }
    }
    unreadable
}

#[test]
fn a_flipped_payload_byte_costs_one_slot_and_names_the_place() {
    let mut bench = filled();
    bench.log().shutdown().unwrap();
    let path = segment_paths(&bench)[0].clone();
    let bytes = bench.disk.read_file(&path).unwrap();
    let wanted = b"3/2/0.";
    let at = bytes.windows(wanted.len()).position(|part| part == wanted);
    bench.disk.flip(&path, at.unwrap() as u64 + 50, 0x10);
    bench.open().unwrap();
    let error = bench.log().read_slots(GROUP, 3, 2..3).unwrap_err();
    assert!(
        matches!(
            error,
            StorageError::Corrupt {
                group: GROUP,
                index: 3,
                slot: Some(2),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(unreadable_slots(&bench), 1);
    let damage = bench.log().damage().unwrap();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(damage[0].entries, [(GROUP, 3..=3)]);
    assert!(bench.log().entries(GROUP, 3..4, 1).is_err());
    assert_eq!(
        bench.log().entries(GROUP, 1..9, usize::MAX).unwrap().len(),
        2
    );
    // The report outlives a restart.
    bench.restart();
    assert_eq!(bench.log().damage().unwrap(), damage);
}

/// After damage anywhere in what was durable, no index is given out twice.
fn check_after_damage(bench: &mut Bench, unreadable_max: usize) {
    let unreadable = unreadable_slots(bench);
    assert!(unreadable <= unreadable_max, "{unreadable} slots are gone");
    if unreadable > 0 {
        assert!(!bench.log().damage().unwrap().is_empty());
    }
    let state = bench.log().group_state(GROUP).unwrap();
    assert_eq!(state.last, Some(point(ENTRIES)));
    bench.append(1, vec![entry(ENTRIES + 1, 1, 10)]).unwrap();
    bench.kill();
    assert_eq!(unreadable_slots(bench), unreadable);
    let read = bench.log().read_slots(GROUP, ENTRIES + 1, 0..1).unwrap();
    assert_eq!(read[0], slot_bytes(ENTRIES + 1, 0, 10, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn one_flipped_bit_costs_one_entry_at_most(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0u8..8, lose_index in any::<bool>()) {
        let mut bench = filled();
        bench.log().shutdown().unwrap();
        let paths = segment_paths(&bench);
        let path = &paths[file.index(paths.len())];
        let at = at.index(bench.disk.file_len(path) as usize) as u64;
        bench.disk.flip(path, at, 1 << bit);
        if lose_index {
            std::fs::remove_dir_all(bench.config.index_dir()).unwrap();
        }
        bench.open().unwrap();
        if bench.log().group_state(GROUP).unwrap().suspect {
            // Only of the very last frame: what was in it nobody knows.
            prop_assert!(lose_index && path == paths.last().unwrap());
            prop_assert!(!bench.log().damage().unwrap().is_empty());
            return Ok(());
        }
        check_after_damage(&mut bench, 4);
    }

    #[test]
    fn a_cut_file_costs_what_was_cut(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let mut bench = filled();
        bench.log().seal().unwrap();
        let segments = bench.log().segments().unwrap();
        bench.log().shutdown().unwrap();
        let paths = segment_paths(&bench);
        // The last one is new and holds nothing.
        let number = file.index(paths.len() - 1);
        let (path, length) = (&paths[number], segments[number].bytes);
        let kept = at.index(length as usize) as u64;
        bench.disk.cut_file(path, kept);
        let report = bench.open().unwrap();
        prop_assert_eq!(report.damage.len(), 1);
        prop_assert_eq!(report.damage[0].offset, kept);
        prop_assert_eq!(report.damage[0].bytes, length - kept);
        let per_entry = 900;
        let cut_entries = (length - kept) as usize / per_entry + 2;
        check_after_damage(&mut bench, cut_entries * 4);
    }
}

/// Makes zeros of a part of a file.
fn wipe(bench: &Bench, path: &std::path::Path, part: Range<usize>) {
    let bytes = bench.disk.read_file(path).unwrap();
    for (at, byte) in part.clone().zip(&bytes[part]) {
        bench.disk.flip(path, at as u64, *byte);
    }
}

/// A log that ended with its last entry: nothing that was written later proves that it had been durable.
/// Gives where that entry's frame stands and ends.
fn killed_after_the_last_entry(bench: &mut Bench) -> (PathBuf, Range<usize>) {
    bench.log().shutdown().unwrap();
    bench.log = None;
    std::fs::remove_dir_all(bench.config.index_dir()).unwrap();
    let last = slot_bytes(ENTRIES, 3, 200, 0);
    let (path, end) = segment_paths(bench)
        .into_iter()
        .find_map(|path| {
            let bytes = bench.disk.read_file(&path).unwrap();
            let at = bytes
                .windows(last.len())
                .position(|part| part == &last[..])?;
            Some((path, at + last.len()))
        })
        .unwrap();
    let newer: Vec<PathBuf> = segment_paths(bench);
    for newer in newer.iter().filter(|newer| **newer > path) {
        crate::disk::Disk::remove(&bench.disk, newer).unwrap();
    }
    let bytes = bench.disk.read_file(&path).unwrap();
    let begin = bytes[..end].windows(4).rposition(|part| part == b"FLg1");
    wipe(bench, &path, end..bytes.len());
    (path, begin.unwrap()..end)
}

#[test]
fn a_flipped_bit_in_the_very_last_entry_is_damage_and_not_a_torn_tail() {
    let mut bench = filled();
    let (path, frame) = killed_after_the_last_entry(&mut bench);
    bench.disk.flip(&path, frame.end as u64 - 20, 4);
    let report = bench.open().unwrap();
    assert_eq!(report.cut_bytes, 0);
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].entries, [(GROUP, ENTRIES..=ENTRIES)]);
    assert!(!bench.log().group_state(GROUP).unwrap().suspect);
    check_after_damage(&mut bench, 1);
}

#[test]
fn a_flipped_bit_in_the_very_last_header_makes_the_group_suspect() {
    for at in [1, 6, 9, 20, 35, 66] {
        let mut bench = filled();
        let (path, frame) = killed_after_the_last_entry(&mut bench);
        bench.disk.flip(&path, frame.start as u64 + at, 2);
        let report = bench.open().unwrap();
        assert_eq!(report.cut_bytes, 0, "{at}");
        assert_eq!(report.damage.len(), 1, "{at}");
        assert_eq!(report.damage[0].offset, frame.start as u64);
        let state = bench.log().group_state(GROUP).unwrap();
        assert!(state.suspect, "{at}");
        assert_eq!(state.last, Some(point(ENTRIES - 1)));
    }
}

#[test]
fn what_a_crash_tore_off_the_very_last_entry_is_cut() {
    for hole in 0..3 {
        let mut bench = filled();
        let (path, frame) = killed_after_the_last_entry(&mut bench);
        let sector = frame.start.next_multiple_of(512);
        let hole = match hole {
            0 => frame.start..sector,
            1 => sector..sector + 512,
            _ => sector..frame.end,
        };
        assert!(hole.end <= frame.end, "{hole:?} in {frame:?}");
        wipe(&bench, &path, hole.clone());
        let report = bench.open().unwrap();
        assert_eq!(report.damage, [], "{hole:?}");
        assert!(report.cut_bytes > 0);
        let state = bench.log().group_state(GROUP).unwrap();
        assert!(!state.suspect);
        assert_eq!(state.last, Some(point(ENTRIES - 1)));
    }
}

#[test]
fn damage_before_the_index_caught_up_is_told_from_a_torn_tail() {
    let mut bench = filled();
    bench.log().shutdown().unwrap();
    // The index is lost; the damage lies in the segment before the last, so it is proven.
    std::fs::remove_dir_all(bench.config.index_dir()).unwrap();
    let paths = segment_paths(&bench);
    let path = &paths[paths.len() - 2];
    let bytes = bench.disk.read_file(path).unwrap();
    let frames: Vec<usize> = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, part)| part == b"FLg1")
        .map(|(at, _)| at)
        .collect();
    // The header of an entry in the middle.
    bench.disk.flip(path, frames[4] as u64 + 20, 1);
    let report = bench.open().unwrap();
    assert!(report.index_rebuilt);
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].offset, frames[4] as u64);
    assert_eq!(report.damage[0].bytes, (frames[5] - frames[4]) as u64);
    assert_eq!(report.damage[0].entries.len(), 1, "{:?}", report.damage);
    let (group, missing) = report.damage[0].entries[0].clone();
    assert_eq!((group, missing.start()), (GROUP, missing.end()));
    let error = bench
        .log()
        .read_slots(GROUP, *missing.start(), 0..1)
        .unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
    assert!(
        bench
            .log()
            .entries(GROUP, *missing.start()..99, 1)
            .unwrap_err()
            .is_corruption()
    );
    check_after_damage(&mut bench, 4);
}

#[test]
fn a_lost_segment_file_is_reported_and_the_rest_is_served() {
    let mut bench = filled();
    bench.log().shutdown().unwrap();
    let path = segment_paths(&bench)[1].clone();
    crate::disk::Disk::remove(&bench.disk, &path).unwrap();
    let report = bench.open().unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert!(report.damage[0].what.contains("missing"));
    check_after_damage(&mut bench, 20 * 4);
}

#[test]
fn a_lost_index_is_built_anew_and_equals_the_old_one() {
    let mut bench = filled();
    bench.vote(1, "v").unwrap();
    bench.truncate(1, Some(50)).unwrap();
    bench.append(1, vec![entry(51, 2, 100)]).unwrap();
    bench.restart();
    let before = bench.log().segments().unwrap();
    let state = bench.log().group_state(GROUP).unwrap();
    bench.log().shutdown().unwrap();
    std::fs::remove_dir_all(bench.config.index_dir()).unwrap();
    let report = bench.open().unwrap();
    assert!(report.index_rebuilt);
    assert_eq!(report.lost_groups, []);
    assert_eq!(bench.log().group_state(GROUP).unwrap(), state);
    assert_eq!(bench.indexes(1), (1..=51).collect::<Vec<_>>());
    let after = bench.log().segments().unwrap();
    let sealed = |segments: &[crate::SegmentInfo]| -> Vec<(u64, u64)> {
        segments
            .iter()
            .filter(|segment| segment.sealed && segment.payload_bytes > 0)
            .map(|segment| (segment.bytes, segment.payload_bytes))
            .collect()
    };
    assert_eq!(sealed(&before), sealed(&after));
}

#[test]
fn a_group_whose_state_is_lost_for_good_says_so_and_others_go_on() {
    let mut bench = filled();
    bench.append(2, vec![entry(1, 1, 10)]).unwrap();
    let store = bench.log().checkpoints();
    store
        .commit(
            GROUP,
            CheckpointBatch {
                applied: "at 40".into(),
                ..CheckpointBatch::default()
            },
        )
        .unwrap();
    bench.purge(1, 40).unwrap();
    bench.log().shutdown().unwrap();
    drop(store);
    std::fs::remove_dir_all(bench.config.index_dir()).unwrap();
    let report = bench.open().unwrap();
    assert_eq!(report.lost_groups, [GROUP]);
    for _ in 0..2 {
        let error = bench.log().group_state(GROUP).unwrap_err();
        assert!(matches!(error, StorageError::StateLost { purged: 40, .. }));
        assert!(bench.log().checkpoints().applied(GROUP).is_err());
        assert_eq!(bench.indexes(2), [1]);
        bench.restart();
    }
    // A snapshot from elsewhere brings it back.
    bench
        .log()
        .checkpoints()
        .replace(GROUP, [(vec![1], "x".into())], "at 60".into())
        .unwrap();
    bench.log().group_state(GROUP).unwrap();
}

#[test]
fn a_damaged_database_is_set_aside_and_built_anew() {
    let mut bench = filled();
    bench.log().shutdown().unwrap();
    bench.log = None;
    let db = bench.config.index_dir().join("db");
    let mut bytes = std::fs::read(&db).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5A);
    std::fs::write(&db, bytes).unwrap();
    bench.open().unwrap();
    assert_eq!(unreadable_slots(&bench), 0);
    assert_eq!(bench.indexes(1).len() as u64, ENTRIES);
}

#[test]
fn an_index_that_fell_behind_is_noticed() {
    let mut bench = filled();
    let store = bench.log().checkpoints();
    bench.log().shutdown().unwrap();
    bench.log = None;
    let copy = tempfile::tempdir().unwrap();
    let old = copy.path().join("index");
    let status = std::process::Command::new("cp")
        .arg("-r")
        .args([&bench.config.index_dir(), &old])
        .status()
        .unwrap();
    assert!(status.success());
    drop(store);
    bench.open().unwrap();
    let batch = CheckpointBatch {
        applied: "later".into(),
        ..CheckpointBatch::default()
    };
    bench.log().checkpoints().commit(GROUP, batch).unwrap();
    bench.log().seal().unwrap();
    bench.append(1, vec![entry(ENTRIES + 1, 1, 10)]).unwrap();
    bench.log().seal().unwrap();
    bench.purge(1, 10).unwrap();
    bench.log().shutdown().unwrap();
    bench.log = None;
    std::fs::remove_dir_all(bench.config.index_dir()).unwrap();
    std::fs::rename(&old, bench.config.index_dir()).unwrap();
    let report = bench.open().unwrap();
    assert!(
        report.index_rebuilt,
        "an old checkpoint must not pass for the latest"
    );
    assert_eq!(report.lost_groups, [GROUP]);
}
