//! A small disk that can be filled. Needs root.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A mounted tmpfs; dropping it unmounts.
pub struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    pub fn mount(path: &Path, bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let (target, kind) = (c_string(path)?, c"tmpfs");
        let options = CString::new(format!("size={bytes},mode=0700"))?;
        // SAFETY: all pointers are to strings that live longer than the call.
        let result = unsafe {
            libc::mount(
                kind.as_ptr(),
                target.as_ptr(),
                kind.as_ptr(),
                libc::MS_NODEV | libc::MS_NOSUID,
                options.as_ptr().cast(),
            )
        };
        match result {
            0 => Ok(Self {
                path: path.to_owned(),
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn free_bytes(&self) -> u64 {
        let path = c_string(&self.path).expect("a path without a zero byte");
        // SAFETY: all zeros is a valid statvfs, which the call fills.
        let (result, stat) = unsafe {
            let mut stat: libc::statvfs = std::mem::zeroed();
            (libc::statvfs(path.as_ptr(), &mut stat), stat)
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        stat.f_bavail * stat.f_frsize
    }

    /// Writes a file until there is no space left.
    pub fn fill(&self, path: &Path) {
        let mut file = File::create(path).expect("a new file");
        let mut bytes = vec![0; 1 << 20];
        loop {
            match file.write(&bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => match bytes.len() {
                    1 => return,
                    len => bytes.truncate(len / 2),
                },
                Err(error) => panic!("could not fill the disk: {error}"),
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let path = c_string(&self.path).expect("a path without a zero byte");
        // Lazily: a process may just be ending on it.
        // SAFETY: the pointer is to a string that lives longer than the call.
        if unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } != 0 {
            eprintln!(
                "could not unmount {}: {}",
                self.path.display(),
                io::Error::last_os_error()
            );
        }
    }
}

fn c_string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
