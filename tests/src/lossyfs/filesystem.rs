//! The kernel's requests, carried out on a [`Disk`].

use super::disk::{Disk, DiskError, Inode};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nothing changes behind the kernel's back, so it may trust what it was told for long.
const TRUST: Duration = Duration::from_secs(3600);
const BLOCK_BYTES: u64 = 4096;
/// What `statfs` reports as the size; the disk itself is only limited by memory.
const CAPACITY_BYTES: u64 = 64 << 30;

pub struct LossyFilesystem {
    pub disk: Arc<Mutex<Disk>>,
}

impl LossyFilesystem {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slow disk is slow for everything that comes after the sync too.
    fn delay_sync(&self) {
        let delay = self.disk().sync_delay();
        std::thread::sleep(delay);
    }
}

impl From<DiskError> for Errno {
    fn from(error: DiskError) -> Errno {
        match error {
            DiskError::NotFound => Errno::ENOENT,
            DiskError::Exists => Errno::EEXIST,
            DiskError::NotADirectory => Errno::ENOTDIR,
            DiskError::IsADirectory => Errno::EISDIR,
            DiskError::NotEmpty => Errno::ENOTEMPTY,
            DiskError::PowerOff | DiskError::SyncFailed => Errno::EIO,
        }
    }
}

fn attributes(disk: &Disk, inode: Inode) -> Result<FileAttr, DiskError> {
    let len = disk.file_len(inode)?;
    let (kind, perm) = match len {
        Some(_) => (FileType::RegularFile, 0o644),
        None => (FileType::Directory, 0o755),
    };
    let size = len.unwrap_or(0);
    Ok(FileAttr {
        ino: INodeNo(inode.0),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES as u32,
        flags: 0,
    })
}

fn entry(reply: ReplyEntry, disk: &Disk, inode: Result<Inode, DiskError>) {
    match inode.and_then(|inode| attributes(disk, inode)) {
        Ok(attributes) => reply.entry(&TRUST, &attributes, Generation(0)),
        Err(error) => reply.error(error.into()),
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), DiskError>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

impl Filesystem for LossyFilesystem {
    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk();
        let found = disk.lookup(Inode(parent.0), name);
        entry(reply, &disk, found);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.disk(), Inode(ino.0)) {
            Ok(attributes) => reply.attr(&TRUST, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        let inode = Inode(ino.0);
        let changed = size.map_or(Ok(()), |size| disk.set_len(inode, size));
        match changed.and_then(|()| attributes(&disk, inode)) {
            Ok(attributes) => reply.attr(&TRUST, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let mut disk = self.disk();
        let made = disk.make_directory(Inode(parent.0), name);
        entry(reply, &disk, made);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.disk().remove_file(Inode(parent.0), name));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.disk().remove_directory(Inode(parent.0), name));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let replace = match flags {
            RenameFlags::RENAME_NOREPLACE => false,
            flags if flags.is_empty() => true,
            _ => return reply.error(Errno::EINVAL),
        };
        let (from, to) = ((Inode(parent.0), name), (Inode(newparent.0), newname));
        empty(reply, self.disk().rename(from, to, replace));
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut disk = self.disk();
        let created = disk.create(Inode(parent.0), name);
        match created.and_then(|inode| attributes(&disk, inode)) {
            Ok(attributes) => {
                let (handle, flags) = (FileHandle(0), FopenFlags::empty());
                reply.created(&TRUST, &attributes, Generation(0), handle, flags);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().read(Inode(ino.0), offset, u64::from(size)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disk().write(Inode(ino.0), offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error.into()),
        }
    }

    /// Called at each `close`, which promises nothing about durability.
    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.delay_sync();
        empty(reply, self.disk().sync_file(Inode(ino.0)));
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.delay_sync();
        empty(reply, self.disk().sync_directory(Inode(ino.0)));
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.disk().list(Inode(ino.0)) {
            Ok(entries) => entries,
            Err(error) => return reply.error(error.into()),
        };
        for (index, (name, inode, is_directory)) in entries.iter().enumerate().skip(offset as usize)
        {
            let kind = if *is_directory {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            if reply.add(INodeNo(inode.0), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let blocks = CAPACITY_BYTES / BLOCK_BYTES;
        let free = blocks.saturating_sub(self.disk().used_bytes() / BLOCK_BYTES);
        reply.statfs(
            blocks,
            free,
            free,
            1 << 20,
            1 << 20,
            BLOCK_BYTES as u32,
            255,
            BLOCK_BYTES as u32,
        );
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut disk = self.disk();
        let inode = Inode(ino.0);
        let zeroing = mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0;
        let known =
            libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & !known != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let result = disk.file_len(inode).and_then(|len| {
            let len = len.ok_or(DiskError::IsADirectory)?;
            if zeroing {
                disk.zero(inode, offset, length)?;
            }
            if mode & libc::FALLOC_FL_KEEP_SIZE == 0 && offset + length > len {
                disk.set_len(inode, offset + length)?;
            }
            Ok(())
        });
        empty(reply, result);
    }
}
