//! The seam between the log and the operating system.
//!
//! Everything the log does to segment files goes through [`Disk`], so that tests can fail, delay or
//! forget any single step (see `testing`). sled opens its own file and is not behind this seam.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::dirs::{create_dir_durably, sync_dir};

pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Makes a new file for reading and writing; an old one of that name is replaced.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// File names and lengths; directories are left out.
    fn list(&self, path: &Path) -> io::Result<Vec<(String, u64)>>;
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

pub trait DiskFile: Send + Sync {
    /// Writes all of `parts`, one after another, from `offset` on.
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;
    /// Fills `buffer` as far as the file reaches and tells how far that was.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts or grows the file.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Reserves space for the first `bytes`, so that later writes cannot run out of it.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    fn size(&self) -> io::Result<u64>;
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

struct RealFile(File);

/// Parts per `pwritev`; Linux refuses more than 1,024.
const PARTS_MAX: usize = 1024;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        sync_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        create_dir_durably(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                files.push((name, metadata.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::CString::new(path.as_os_str().as_bytes())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: an all-zero statvfs is a valid value of that plain C struct.
        let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends in NUL and `answer` lives across the call.
        if unsafe { libc::statvfs(path.as_ptr(), &mut answer) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, mut offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        for chunk in parts.chunks(PARTS_MAX) {
            let wanted: usize = chunk.iter().map(|part| part.len()).sum();
            // SAFETY: IoSlice has the layout of iovec, the slices live across the call, and the
            // chunk is at most PARTS_MAX long, which fits the count's type.
            let wrote = retry_interrupted(|| unsafe {
                libc::pwritev(
                    self.0.as_raw_fd(),
                    chunk.as_ptr().cast(),
                    chunk.len() as libc::c_int,
                    offset as libc::off_t,
                )
            })?;
            if wrote < wanted {
                self.write_rest(offset, chunk, wrote)?;
            }
            offset += wanted as u64;
        }
        Ok(())
    }

    fn read_at(&self, mut offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset) {
                Ok(0) => break,
                Ok(bytes) => {
                    filled += bytes;
                    offset += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        // SAFETY: plain integers; the descriptor is open as long as `self` lives.
        let outcome = unsafe { libc::posix_fallocate(self.0.as_raw_fd(), 0, bytes as libc::off_t) };
        match outcome {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl RealFile {
    /// Goes on after a short write, part by part.
    fn write_rest(&self, offset: u64, parts: &[IoSlice<'_>], wrote: usize) -> io::Result<()> {
        let mut at = offset;
        let mut skip = wrote;
        for part in parts {
            if skip < part.len() {
                self.0.write_all_at(&part[skip..], at + skip as u64)?;
            }
            skip = skip.saturating_sub(part.len());
            at += part.len() as u64;
        }
        Ok(())
    }
}

fn retry_interrupted(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        let outcome = call();
        if outcome >= 0 {
            return Ok(outcome as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_parts_than_the_kernel_takes_at_once_are_written_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("file")).unwrap();
        let parts: Vec<Vec<u8>> = (0..3 * PARTS_MAX + 7)
            .map(|number| vec![number as u8; number % 11])
            .collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        file.write_at(100, &slices).unwrap();
        let wanted = parts.concat();
        let mut read = vec![0; wanted.len() + 1];
        assert_eq!(file.read_at(100, &mut read).unwrap(), wanted.len());
        assert_eq!(read[..wanted.len()], wanted[..]);
    }
}
