//! The promises of the lossy filesystem, first of the disk alone, then through the kernel.

use super::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

fn cut(disk: &Disk, survival: Survival, seed: u64) -> Disk {
    disk.after_power_cut(survival, &mut StdRng::seed_from_u64(seed))
}

fn content_of(disk: &Disk, file: &str) -> Option<Vec<u8>> {
    let inode = disk.lookup(ROOT, name(file)).ok()?;
    Some(
        disk.read(inode, 0, u64::MAX)
            .expect("a file that was looked up"),
    )
}

/// A file `kept` that is durable with `bytes`.
fn disk_with_durable_file(bytes: &[u8]) -> (Disk, Inode) {
    let mut disk = Disk::new(SyncBehaviour::Honest);
    let inode = disk.create(ROOT, name("kept")).unwrap();
    disk.write(inode, 0, bytes).unwrap();
    disk.sync_file(inode).unwrap();
    disk.sync_directory(ROOT).unwrap();
    (disk, inode)
}

#[test]
fn a_synced_file_in_a_synced_directory_survives() {
    let (disk, _) = disk_with_durable_file(b"synced");
    let after = cut(&disk, Survival::Nothing, 0);
    assert_eq!(content_of(&after, "kept").unwrap(), b"synced");
}

#[test]
fn bytes_that_were_not_synced_are_forgotten() {
    let (mut disk, inode) = disk_with_durable_file(b"synced");
    disk.write(inode, 0, b"later and longer").unwrap();
    assert_eq!(content_of(&disk, "kept").unwrap(), b"later and longer");
    let after = cut(&disk, Survival::Nothing, 0);
    assert_eq!(content_of(&after, "kept").unwrap(), b"synced");
}

#[test]
fn a_truncation_that_was_not_synced_is_undone() {
    let (mut disk, inode) = disk_with_durable_file(&[7; 10_000]);
    disk.set_len(inode, 3).unwrap();
    let after = cut(&disk, Survival::Nothing, 0);
    assert_eq!(content_of(&after, "kept").unwrap(), [7; 10_000]);
    disk.sync_file(inode).unwrap();
    let after = cut(&disk, Survival::Nothing, 0);
    assert_eq!(content_of(&after, "kept").unwrap(), [7; 3]);
}

#[test]
fn a_synced_file_is_lost_with_its_unsynced_name() {
    let mut disk = Disk::new(SyncBehaviour::Honest);
    let inode = disk.create(ROOT, name("nameless")).unwrap();
    disk.write(inode, 0, b"bytes").unwrap();
    disk.sync_file(inode).unwrap();
    assert!(content_of(&cut(&disk, Survival::Nothing, 0), "nameless").is_none());
    disk.sync_directory(ROOT).unwrap();
    assert_eq!(
        content_of(&cut(&disk, Survival::Nothing, 0), "nameless").unwrap(),
        b"bytes"
    );
}

#[test]
fn a_removed_file_comes_back_until_the_directory_is_synced() {
    let (mut disk, _) = disk_with_durable_file(b"synced");
    disk.remove_file(ROOT, name("kept")).unwrap();
    assert!(content_of(&disk, "kept").is_none());
    assert!(content_of(&cut(&disk, Survival::Nothing, 0), "kept").is_some());
    disk.sync_directory(ROOT).unwrap();
    assert!(content_of(&cut(&disk, Survival::Nothing, 0), "kept").is_none());
}

#[test]
fn a_rename_is_undone_until_the_directory_is_synced() {
    let (mut disk, _) = disk_with_durable_file(b"synced");
    disk.rename((ROOT, name("kept")), (ROOT, name("moved")), true)
        .unwrap();
    let before = cut(&disk, Survival::Nothing, 0);
    assert!(content_of(&before, "kept").is_some() && content_of(&before, "moved").is_none());
    disk.sync_directory(ROOT).unwrap();
    let after = cut(&disk, Survival::Nothing, 0);
    assert!(content_of(&after, "kept").is_none() && content_of(&after, "moved").is_some());
}

/// A torn cut leaves every page either as it was synced or as it was written last, and over many
/// seeds it leaves both.
#[test]
fn a_torn_cut_keeps_whole_pages_of_either_side() {
    let pages = 8;
    let (mut disk, inode) = disk_with_durable_file(&vec![b'o'; pages * PAGE_BYTES as usize]);
    disk.write(inode, 0, &vec![b'n'; pages * PAGE_BYTES as usize])
        .unwrap();
    let mut mixtures = 0;
    for seed in 0..50 {
        let content = content_of(&cut(&disk, Survival::Torn, seed), "kept").unwrap();
        assert_eq!(content.len(), pages * PAGE_BYTES as usize);
        let firsts: Vec<u8> = content
            .chunks(PAGE_BYTES as usize)
            .map(|page| page[0])
            .collect();
        for page in content.chunks(PAGE_BYTES as usize) {
            assert!(page.iter().all(|byte| *byte == page[0]), "a page is whole");
            assert!(page[0] == b'o' || page[0] == b'n');
        }
        mixtures += u32::from(firsts.contains(&b'o') && firsts.contains(&b'n'));
    }
    assert!(
        mixtures > 25,
        "only {mixtures} of 50 cuts mixed old and new pages"
    );
}

/// Nothing that was synced is touched by a torn cut, whatever was appended behind it.
#[test]
fn a_torn_cut_keeps_what_was_synced() {
    let (mut disk, inode) = disk_with_durable_file(&[7; 5000]);
    disk.write(inode, 5000, &[9; 20_000]).unwrap();
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let content = content_of(&cut(&disk, Survival::Torn, seed), "kept").unwrap();
        assert_eq!(content[..5000], [7; 5000]);
        assert!(content[5000..].iter().all(|byte| *byte == 0 || *byte == 9));
        lengths.insert(content.len());
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [5000, 25_000]);
}

#[test]
fn a_disk_that_ignores_syncs_forgets_what_was_synced() {
    let (mut disk, inode) = disk_with_durable_file(b"synced");
    let other = disk.create(ROOT, name("other")).unwrap();
    disk.sync_directory(ROOT).unwrap();
    disk.set_syncs(SyncBehaviour::Ignores(|name| name == "kept"));
    for inode in [inode, other] {
        disk.write(inode, 0, b"SYNCED").unwrap();
        disk.sync_file(inode).unwrap();
    }
    let after = cut(&disk, Survival::Nothing, 0);
    assert_eq!(content_of(&after, "kept").unwrap(), b"synced");
    assert_eq!(content_of(&after, "other").unwrap(), b"SYNCED");
}

#[test]
fn a_disk_that_ignores_all_syncs_forgets_names_too() {
    let (mut disk, _) = disk_with_durable_file(b"synced");
    disk.set_syncs(SyncBehaviour::IgnoresAll);
    disk.rename((ROOT, name("kept")), (ROOT, name("moved")), true)
        .unwrap();
    disk.sync_directory(ROOT).unwrap();
    let after = cut(&disk, Survival::Nothing, 0);
    assert_eq!(content_of(&after, "kept").unwrap(), b"synced");
    assert!(content_of(&after, "moved").is_none());
}

#[test]
fn a_failing_sync_makes_nothing_durable() {
    let (mut disk, inode) = disk_with_durable_file(b"synced");
    disk.set_syncs(SyncBehaviour::Fails);
    disk.write(inode, 0, b"SYNCED").unwrap();
    assert_eq!(disk.sync_file(inode), Err(DiskError::SyncFailed));
    let after = cut(&disk, Survival::Nothing, 0);
    assert_eq!(content_of(&after, "kept").unwrap(), b"synced");
}

#[test]
fn nothing_can_be_synced_after_the_cut() {
    let (mut disk, inode) = disk_with_durable_file(b"synced");
    disk.cut_power();
    assert_eq!(disk.sync_file(inode), Err(DiskError::PowerOff));
    assert_eq!(disk.write(inode, 0, b"late"), Err(DiskError::PowerOff));
}

/// What an ordinary program does on a filesystem works through the kernel, and the cut undoes
/// exactly what it did not sync.
#[test]
fn a_mounted_disk_forgets_what_a_program_did_not_sync() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(Disk::new(SyncBehaviour::Honest), directory.path())
        .expect("mounting needs root and /dev/fuse");
    let top = directory.path();

    fs::create_dir(top.join("log")).unwrap();
    let mut file = File::create(top.join("log/one.tmp")).unwrap();
    file.write_all(&vec![1; 300_000]).unwrap();
    file.sync_data().unwrap();
    fs::rename(top.join("log/one.tmp"), top.join("log/one")).unwrap();
    File::open(top.join("log")).unwrap().sync_all().unwrap();
    File::open(top).unwrap().sync_all().unwrap();
    file.write_all(&[2; 1000]).unwrap();
    fs::write(top.join("log/two"), b"never synced").unwrap();

    assert_eq!(fs::metadata(top.join("log/one")).unwrap().len(), 301_000);
    assert_eq!(fs::read(top.join("log/two")).unwrap(), b"never synced");
    let mut names: Vec<_> = fs::read_dir(top.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["one", "two"]);

    mounted.disk().cut_power();
    assert!(
        file.write_all(b"x")
            .and_then(|()| file.sync_data())
            .is_err()
    );
    drop(file);
    let after = cut(&mounted.unmount().unwrap(), Survival::Nothing, 0);

    let mounted = Mounted::new(after, top).unwrap();
    let mut content = Vec::new();
    File::open(top.join("log/one"))
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    assert_eq!(content, vec![1; 300_000]);
    assert!(!top.join("log/two").exists());
    mounted.unmount().unwrap();
}

/// The calls that the log and its index use: positioned reads and writes, preallocation, locks.
#[test]
fn a_mounted_disk_serves_the_calls_that_storage_uses() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(Disk::new(SyncBehaviour::Honest), directory.path()).unwrap();
    let path = directory.path().join("db");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .unwrap();
    file.try_lock().unwrap();
    assert!(
        File::open(&path).unwrap().try_lock().is_err(),
        "a second lock is refused"
    );

    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for the whole call.
    assert_eq!(
        unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, 1 << 20) },
        0
    );
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    file.write_all_at(b"here", 70_000).unwrap();
    let before = mounted.disk().sync_count();
    file.sync_data().unwrap();
    assert_eq!(mounted.disk().sync_count(), before + 1);
    let mut read = [0; 4];
    file.read_exact_at(&mut read, 70_000).unwrap();
    assert_eq!(&read, b"here");
    file.set_len(70_002).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(b"!").unwrap();
    assert_eq!(&fs::read(&path).unwrap()[70_000..], b"he!");
    drop(file);
    mounted.unmount().unwrap();
}
