//! A [`Disk`] mounted where a server can run on it. Needs root and `/dev/fuse`.

use super::disk::Disk;
use super::filesystem::LossyFilesystem;
use fuser::{BackgroundSession, Config, MountOption};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A mounted disk; dropping it unmounts.
pub struct Mounted {
    disk: Arc<Mutex<Disk>>,
    session: BackgroundSession,
}

impl Mounted {
    pub fn new(disk: Disk, mountpoint: &Path) -> io::Result<Self> {
        let disk = Arc::new(Mutex::new(disk));
        let filesystem = LossyFilesystem { disk: disk.clone() };
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("lossyfs".to_owned()),
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoAtime,
        ];
        let session = fuser::spawn_mount(filesystem, mountpoint, &config)?;
        Ok(Self { disk, session })
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unmounts and gives the disk back. Every process on it must have ended.
    pub fn unmount(self) -> io::Result<Disk> {
        match self.session.umount_and_join() {
            // The kernel closes the files of a killed process late. Unmounting ends the connection
            // while it hands such a request over, and says so to the thread that was taking it:
            // nobody is left to miss the answer. Had the thread not ended, it would hold the disk.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            ended => ended?,
        }
        let disk = Arc::into_inner(self.disk)
            .ok_or_else(|| io::Error::other("the filesystem still holds its disk"))?;
        Ok(disk.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
