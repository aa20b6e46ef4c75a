//! Snapshots on their way in and out, beside each other and on a full disk.

use std::path::Path;

use bytes::Bytes;

use super::snapshots::{GROUP, check_payload, chunks, commit, source, state};
use super::support::{Bench, entry, point};
use crate::{Disk, LiveSlots, LogHealth, SnapshotExport, SnapshotImport, StorageError};

fn import(target: &Bench, export: &SnapshotExport) -> SnapshotImport {
    let manifest = export.manifest().clone();
    target.log().import_snapshot(manifest).unwrap()
}

fn take(import: &mut SnapshotImport, chunks: &[Bytes]) {
    for chunk in chunks {
        import.chunk(chunk).unwrap();
    }
}

fn staged(target: &Bench) -> usize {
    let dir = target.log().config().dir.join("staging");
    target.disk.list(&dir).unwrap().len()
}

/// Seals what was written and rewrites it for a state that refers to nothing. Tells how many entries stay.
fn rewrite_all(target: &Bench) -> u64 {
    target.log().seal().unwrap();
    let segments = target.log().segments().unwrap();
    let sealed = segments.iter().filter(|segment| segment.sealed);
    sealed
        .map(|segment| {
            let report = target.log().compact(segment.id, &|_, _| LiveSlots::None);
            report.unwrap().entries_kept
        })
        .sum()
}

#[test]
fn a_snapshot_is_refused_before_it_takes_the_reserve() {
    let source = source();
    let export = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let chunks = chunks(&export);
    let bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    let target = Bench::with(|config| config.reserve_bytes = Some(20 << 10));
    let reserve = target.log().room_bytes().map(|room| (1 << 40) - room);
    assert_eq!(reserve.unwrap(), 20 << 10);
    let used = target.disk.used_bytes();
    // Room for what is staged, but not for what installing it writes.
    target
        .disk
        .set_capacity(Some(used + (20 << 10) + bytes * 3 / 2));
    let mut import = target
        .log()
        .import_snapshot(export.manifest().clone())
        .unwrap();
    let taken = chunks
        .iter()
        .take_while(|chunk| import.chunk(chunk).is_ok())
        .count();
    assert!(taken < chunks.len(), "{taken}");
    let refused = import.chunk(&chunks[taken]).unwrap_err();
    assert!(matches!(refused, StorageError::Full { .. }), "{refused}");
    assert_eq!(target.log().health(), LogHealth::Healthy);
    // It goes on where it was once there is room.
    target.disk.set_capacity(None);
    for chunk in &chunks[taken..] {
        import.chunk(chunk).unwrap();
    }
    import.install().unwrap();
    target.purge(4, 80).unwrap();
    check_payload(&target);
}

#[test]
fn what_another_snapshot_will_take_counts() {
    let source = source();
    let export = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let chunks = chunks(&export);
    let bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    let target = Bench::with(|config| config.reserve_bytes = Some(20 << 10));
    let room = target.log().room_bytes().unwrap();
    // Room for one, staged and installed, and for another one that is staged, but not installed.
    let used = target.disk.used_bytes();
    let capacity = used + (20 << 10) + bytes * 7 / 2;
    target.disk.set_capacity(Some(capacity));
    let mut first = import(&target, &export);
    take(&mut first, &chunks);
    let mut second = import(&target, &export);
    let refused = chunks.iter().find_map(|chunk| second.chunk(chunk).err());
    assert!(matches!(refused, Some(StorageError::Full { .. })));
    drop(second);
    first.install().unwrap();
    assert_eq!(target.log().health(), LogHealth::Healthy);
    target.disk.set_capacity(None);
    // What was staged is forgotten with it.
    assert_eq!(target.log().room_bytes().unwrap(), room);
}

#[test]
fn two_snapshots_of_one_group_do_not_touch_each_other() {
    let source = source();
    let export = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let chunks = chunks(&export);
    let target = Bench::new();
    let mut first = import(&target, &export);
    take(&mut first, &chunks[..chunks.len() / 2]);
    let mut second = import(&target, &export);
    take(&mut second, &chunks[..1]);
    drop(second);
    take(&mut first, &chunks[chunks.len() / 2..]);
    assert_eq!(staged(&target), 1);
    first.install().unwrap();
    target.purge(4, 80).unwrap();
    assert_eq!(state(&target), state(&source));
    check_payload(&target);
    assert_eq!(staged(&target), 0);
}

/// Segments are looked after whenever a checkpoint of any group ends.
#[test]
fn what_is_being_installed_is_kept_before_the_state_refers_to_it() {
    let source = source();
    let export = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let mut target = Bench::new();
    let mut incoming = import(&target, &export);
    take(&mut incoming, &chunks(&export));
    let mark = incoming.write_payload().unwrap();
    let entries = (1..=80).filter(|index| index % 3 != 1).count() as u64;
    assert_eq!(rewrite_all(&target), entries);
    target.log().drop_dead_segments().unwrap();
    incoming.switch_to(&mark).unwrap();
    drop(mark);
    drop(incoming);
    target.purge(4, 80).unwrap();
    for _ in 0..2 {
        assert_eq!(state(&target), state(&source));
        check_payload(&target);
        target.kill();
    }
}

#[test]
fn what_a_broken_off_install_has_written_is_not_kept() {
    let source = source();
    let export = source.log().export_snapshot(GROUP, point(80)).unwrap();
    let chunks = chunks(&export);
    let target = Bench::new();
    let mut first = import(&target, &export);
    take(&mut first, &chunks);
    let mark = first.write_payload().unwrap();
    drop(mark);
    drop(first);
    assert_eq!(rewrite_all(&target), 0);
    let mut second = import(&target, &export);
    take(&mut second, &chunks);
    second.install().unwrap();
    target.purge(4, 80).unwrap();
    check_payload(&target);
}

#[test]
fn what_was_staged_before_a_crash_is_removed() {
    let mut target = Bench::new();
    let left = target
        .log()
        .config()
        .dir
        .join("staging")
        .join("group-4-7.import");
    target.disk.create(Path::new(&left)).unwrap();
    assert_eq!(staged(&target), 1);
    target.kill();
    assert_eq!(staged(&target), 0);
}

/// Its database can be open only once, and whoever exports holds it.
#[test]
fn a_log_that_is_held_while_disk_space_is_back_is_opened_again_later() {
    let source = Bench::with(|config| config.segment_bytes = 8 << 10);
    source.append(4, vec![entry(1, 4, 300)]).unwrap();
    commit(&source, Vec::new(), "at 1");
    let export = source.log().export_snapshot(GROUP, point(1)).unwrap();
    source
        .disk
        .set_capacity(Some(source.disk.used_bytes() + (16 << 10)));
    let mut last = 1;
    while source.append(4, vec![entry(last + 1, 4, 1000)]).is_ok() {
        last += 1;
    }
    source.disk.set_capacity(None);
    let waits = || matches!(source.log().health(), LogHealth::FullWaiting { .. });
    assert!(waits());
    assert!(source.log().try_recover().is_err());
    assert!(waits(), "it is tried again");
    // Whoever holds it is told to let go.
    let ended = export.records().next().unwrap().unwrap_err();
    assert!(matches!(ended, StorageError::FullWaiting { .. }), "{ended}");
    drop(export);
    assert!(source.log().try_recover().unwrap().is_some());
    assert_eq!(source.log().health(), LogHealth::Healthy);
}
