//! The data directory: made if it is missing, and held by one process at a time.
//!
//! The lock is the kernel's, on the open file `LOCK`: it ends with the process however that ends, so
//! a file left behind by a crash locks nobody out. The number in it is only for the error message.
//! Which node and which format a directory belongs to is kept by the cluster, in `node.json`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flotilla_storage::create_dir_durably;

use crate::error::DaemonError;

/// The file that is locked.
const LOCK_FILE: &str = "LOCK";
/// Longest text read from it: more than a process number was not written by us.
const HOLDER_BYTES_MAX: u64 = 32;

/// Holds the data directory until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, DaemonError> {
        // Messages are nobody else's business: only the owner may look.
        create_dir_durably(path)
            .map_err(|source| failed("create the data directory", path, source))?;
        let path = path
            .canonicalize()
            .map_err(|source| failed("find the data directory", path, source))?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|source| failed("open", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DaemonError::DataDirLocked {
                    path,
                    holder: holder(&mut lock),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &lock_path, source)),
        }
        write_holder(&mut lock).map_err(|source| failed("write", &lock_path, source))?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> DaemonError {
    DaemonError::DataDir {
        action,
        path: path.to_owned(),
        source,
    }
}

fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// Who holds the lock, as far as that can be read.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock.take(HOLDER_BYTES_MAX).read_to_string(&mut text);
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        // It is between taking the lock and writing its number, or cannot be read.
        _ => "(number unknown)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_made_with_its_parents() {
        let temp = tempfile::tempdir().unwrap();
        let wanted = temp.path().join("a/b");
        let dir = DataDir::open(&wanted).unwrap();
        assert!(wanted.is_dir());
        assert_eq!(dir.path(), wanted.canonicalize().unwrap());
    }

    #[test]
    fn only_the_owner_can_look_into_it() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&temp.path().join("data")).unwrap();
        let mode = dir.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_second_holder_is_refused_and_told_who_holds_it() {
        let temp = tempfile::tempdir().unwrap();
        let first = DataDir::open(temp.path()).unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&std::process::id().to_string()) && text.contains("in use"),
            "{text}"
        );
        drop(first);
        DataDir::open(temp.path()).unwrap();
    }

    #[test]
    fn a_lock_file_left_by_a_crash_locks_nobody_out() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join(LOCK_FILE), "123456789\nand more").unwrap();
        drop(DataDir::open(temp.path()).unwrap());
        let written = std::fs::read_to_string(temp.path().join(LOCK_FILE)).unwrap();
        assert_eq!(written.trim(), std::process::id().to_string());
    }

    #[test]
    fn a_path_that_cannot_be_a_directory_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = DataDir::open(&file.join("data")).unwrap_err();
        assert!(error.to_string().contains("file/data"), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}
