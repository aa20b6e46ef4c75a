//! Which bytes of real files would survive a power cut.
//!
//! sled writes its files itself, and so does a node its identity. They lie in memory, below
//! `current/`, and what was synced is copied to the same place below `durable/`. Names are durable at
//! once; bytes are when they were synced.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::kernel;
use super::random::Random;

/// Smaller files are copied whole.
const WHOLE_BYTES_MAX: u64 = 64 << 10;
/// What survives of writes that were not synced is decided per piece of this size.
const PAGE_BYTES: usize = 4 << 10;

#[derive(Default)]
struct Files {
    root: Option<PathBuf>,
    /// Nothing is ever synced.
    syncs_lie: bool,
    /// Written and not synced, by inode: (offset, bytes).
    dirty: BTreeMap<u64, Vec<(u64, u64)>>,
}

// Never held while a thread waits for another, so that it is never waited for.
static FILES: Mutex<Files> = Mutex::new(Files {
    root: None,
    syncs_lie: false,
    dirty: BTreeMap::new(),
});

fn files() -> MutexGuard<'static, Files> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to follow the files below `root/current`.
pub fn follow(root: &Path, syncs_lie: bool) -> io::Result<()> {
    fs::create_dir_all(root.join("current"))?;
    fs::create_dir_all(root.join("durable"))?;
    let mut files = files();
    files.root = Some(root.to_owned());
    files.syncs_lie = syncs_lie;
    Ok(())
}

/// Where the synced bytes of a file are, if it is one of those that are followed.
fn twin(root: &Path, path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(root.join("current")).ok()?;
    Some(root.join("durable").join(below))
}

fn inode(descriptor: c_int) -> Option<u64> {
    // SAFETY: an all-zero stat is a valid value of that plain C struct.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `found` lives across the call.
    let answer = unsafe { libc::fstat(descriptor, &mut found) };
    (answer == 0).then_some(found.st_ino)
}

pub fn written(descriptor: c_int, offset: u64, bytes: u64) {
    let mut files = files();
    if files.root.is_some()
        && let Some(inode) = inode(descriptor)
    {
        files.dirty.entry(inode).or_default().push((offset, bytes));
    }
}

pub fn synced(descriptor: c_int) {
    let mut files = files();
    let Some(root) = files.root.clone() else {
        return;
    };
    let Ok(path) = fs::read_link(format!("/proc/self/fd/{descriptor}")) else {
        return;
    };
    let (Some(twin), Some(inode)) = (twin(&root, &path), inode(descriptor)) else {
        return;
    };
    let dirty = files.dirty.remove(&inode).unwrap_or_default();
    // Who a node is must be known, or it would be another one.
    let is_identity = path.to_string_lossy().contains("node.identity");
    if files.syncs_lie && !is_identity {
        return;
    }
    if let Err(error) = copy_synced(&path, &twin, &dirty) {
        // The file was removed meanwhile, or is a directory.
        assert!(
            error.kind() == io::ErrorKind::NotFound || path.is_dir(),
            "cannot keep what was synced of {}: {error}",
            path.display()
        );
    }
}

fn copy_synced(path: &Path, twin: &Path, dirty: &[(u64, u64)]) -> io::Result<()> {
    if path.is_dir() {
        return fs::create_dir_all(twin);
    }
    let bytes = fs::metadata(path)?.size();
    if bytes <= WHOLE_BYTES_MAX || !twin.exists() {
        if let Some(parent) = twin.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(path, twin)?;
        return Ok(());
    }
    let from = File::open(path)?;
    let to = OpenOptions::new().write(true).open(twin)?;
    to.set_len(bytes)?;
    for (offset, length) in dirty {
        let mut buffer = vec![0; *length as usize];
        let end = bytes.min(offset + length);
        let kept = end.saturating_sub(*offset) as usize;
        from.read_exact_at(&mut buffer[..kept], *offset)?;
        write_all(&to, &buffer[..kept], *offset)?;
    }
    Ok(())
}

/// Without the function that tells of it.
fn write_all(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    while !bytes.is_empty() {
        let arguments = [
            file.as_raw_fd() as usize,
            bytes.as_ptr() as usize,
            bytes.len(),
            offset as usize,
            0,
            0,
        ];
        // SAFETY: the bytes live across the call.
        let wrote = unsafe { kernel::call(libc::SYS_pwrite64, arguments) };
        if wrote <= 0 {
            return Err(io::Error::from_raw_os_error(-wrote as i32));
        }
        bytes = &bytes[wrote as usize..];
        offset += wrote as u64;
    }
    Ok(())
}

pub fn renamed(from: &CStr, to: &CStr) {
    let Some(root) = files().root.clone() else {
        return;
    };
    let path_of = |name: &CStr| PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes()));
    let (Some(from), Some(to)) = (twin(&root, &path_of(from)), twin(&root, &path_of(to))) else {
        return;
    };
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes());
    if let (Ok(old), Ok(new)) = (name(&from), name(&to))
        && kernel::rename(&old, &new) != 0
    {
        // What is replaced may be a directory with something in it, or nothing was synced.
        let _ = fs::remove_dir_all(&to);
        kernel::rename(&old, &new);
    }
}

pub fn unlinked(name: &CStr) {
    let Some(root) = files().root.clone() else {
        return;
    };
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes()));
    if let Some(twin) = twin(&root, &path)
        && let Ok(twin) = CString::new(twin.as_os_str().as_bytes())
    {
        kernel::unlink(&twin);
    }
}

/// How much of what was not synced is there after the end of a life.
pub enum Unsynced {
    Kept,
    Lost,
    /// Page by page.
    Torn(Random),
}

/// Makes the directory of a node's next life out of that of the last one. Both are names below
/// `current`; the old one stays, for threads that do not know yet that they are dead.
pub fn revive(last: &str, next: &str, unsynced: Unsynced) -> io::Result<()> {
    let Some(root) = files().root.clone() else {
        return Ok(());
    };
    let (current, durable) = (root.join("current"), root.join("durable"));
    if let Unsynced::Kept = unsynced {
        copy_tree(&current.join(last), &current.join(next))?;
        return copy_tree(&durable.join(last), &durable.join(next));
    }
    copy_tree(&durable.join(last), &durable.join(next))?;
    if let Unsynced::Torn(mut random) = unsynced {
        tear_tree(&current.join(last), &durable.join(next), &mut random)?;
    }
    copy_tree(&durable.join(next), &current.join(next))
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    if !from.exists() {
        return Ok(());
    }
    for (name, is_dir) in listed(from)? {
        match is_dir {
            true => copy_tree(&from.join(&name), &to.join(&name))?,
            false => {
                fs::copy(from.join(&name), to.join(&name))?;
            }
        }
    }
    Ok(())
}

/// The names in a directory in a fixed order, and whether each is a directory.
fn listed(path: &Path) -> io::Result<Vec<(std::ffi::OsString, bool)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        names.push((entry.file_name(), entry.file_type()?.is_dir()));
    }
    names.sort();
    Ok(names)
}

/// Lets some pages of the written files survive where they differ from what was synced. A file of
/// which nothing was synced may be there as well, with some of its bytes.
fn tear_tree(written: &Path, survivor: &Path, random: &mut Random) -> io::Result<()> {
    for (name, is_dir) in listed(written)? {
        let (from, to) = (written.join(&name), survivor.join(&name));
        if is_dir {
            fs::create_dir_all(&to)?;
            tear_tree(&from, &to, random)?;
            continue;
        }
        let new = fs::read(&from)?;
        let mut bytes = fs::read(&to).unwrap_or_default();
        if bytes == new || random.once_in(2) {
            continue;
        }
        bytes.resize(new.len(), 0);
        let pages = bytes.chunks_mut(PAGE_BYTES).zip(new.chunks(PAGE_BYTES));
        for (kept, written) in pages {
            if kept != written && random.once_in(2) {
                kept.copy_from_slice(written);
            }
        }
        fs::write(&to, bytes)?;
    }
    Ok(())
}
