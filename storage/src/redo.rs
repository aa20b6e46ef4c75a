//! Makes a set of state changes of any size atomic without one long sled batch.
//!
//! sled holds a process-wide lock while it applies a batch, and every read waits: a checkpoint of
//! 200,000 records would stop the node for a second. So a large commit is first written as one file;
//! when its name is durable the commit is decided. The changes then reach sled in small batches. A
//! restart that finds the file applies it again, which gives the same records.

use std::io::IoSlice;
use std::path::PathBuf;

use bytes::{BufMut, Bytes, BytesMut};
use crc32c::crc32c;

use crate::codec::{Fields, put_string};
use crate::config::LogConfig;
use crate::disk::Disk;
use crate::error::{Result, StorageError};
use crate::index::Index;
use crate::segment::TEMPORARY_SUFFIX;

const MAGIC: u64 = u64::from_le_bytes(*b"FLredo01");
/// Changes per sled batch.
pub(crate) const CHUNK: usize = 256;

/// Key and new value; `None` removes.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

pub(crate) fn batch_of(changes: &[Change]) -> sled::Batch {
    let mut batch = sled::Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(&key[..], &value[..]),
            None => batch.remove(&key[..]),
        }
    }
    batch
}

/// Applies changes as one: all or none of them are there after a crash, and all are durable when
/// this returns.
pub(crate) fn commit(
    config: &LogConfig,
    disk: &dyn Disk,
    index: &Index,
    changes: &[Change],
) -> Result<()> {
    if changes.len() <= CHUNK {
        index.apply_state(batch_of(changes))?;
        return index.flush();
    }
    write_file(config, disk, changes)?;
    apply(index, changes)?;
    index.flush()?;
    remove_file(config, disk)
}

fn apply(index: &Index, changes: &[Change]) -> Result<()> {
    for chunk in changes.chunks(CHUNK) {
        index.apply_state(batch_of(chunk))?;
    }
    Ok(())
}

/// Finishes a commit that was decided before a crash. Returns whether there was one.
pub(crate) fn finish(config: &LogConfig, disk: &dyn Disk, index: &Index) -> Result<bool> {
    let path = path_of(config);
    let files = disk
        .list(&config.dir)
        .map_err(StorageError::io("list", &config.dir))?;
    let Some((_, bytes)) = files.iter().find(|(name, _)| {
        path.file_name()
            .is_some_and(|wanted| wanted == name.as_str())
    }) else {
        return Ok(false);
    };
    let file = disk.open(&path).map_err(StorageError::io("open", &path))?;
    let mut buffer = BytesMut::zeroed(*bytes as usize);
    let filled = file
        .read_at(0, &mut buffer)
        .map_err(StorageError::io("read", &path))?;
    buffer.truncate(filled);
    // The file got its name after it was synced, so one that does not check is damaged, not torn.
    let changes = decode(&buffer)?;
    apply(index, &changes)?;
    index.flush()?;
    remove_file(config, disk)?;
    Ok(true)
}

fn path_of(config: &LogConfig) -> PathBuf {
    config.dir.join("redo")
}

fn encode(changes: &[Change]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u64_le(MAGIC);
    out.put_u64_le(changes.len() as u64);
    for (key, value) in changes {
        put_string(&mut out, key);
        match value {
            Some(value) => {
                out.put_u8(1);
                put_string(&mut out, value);
            }
            None => out.put_u8(0),
        }
    }
    let crc = crc32c(&out);
    out.put_u32_le(crc);
    out.freeze()
}

fn decode(bytes: &[u8]) -> Result<Vec<Change>> {
    let malformed = || StorageError::InvalidRecord {
        what: "checkpoint redo file",
    };
    let (covered, crc) = bytes.split_last_chunk::<4>().ok_or_else(malformed)?;
    if crc32c(covered) != u32::from_le_bytes(*crc) {
        return Err(malformed());
    }
    let mut fields = Fields::new(covered, "checkpoint redo file");
    if fields.u64()? != MAGIC {
        return Err(malformed());
    }
    let mut changes = Vec::new();
    for _ in 0..fields.u64()? {
        let key = fields.string()?.to_vec();
        let value = fields.optional(Fields::string)?;
        changes.push((key, value.map(|value| value.to_vec())));
    }
    Ok(changes)
}

fn write_file(config: &LogConfig, disk: &dyn Disk, changes: &[Change]) -> Result<()> {
    let path = path_of(config);
    let temporary = path.with_extension(&TEMPORARY_SUFFIX[1..]);
    let file = disk
        .create(&temporary)
        .map_err(StorageError::io("create", &temporary))?;
    file.write_at(0, &[IoSlice::new(&encode(changes))])
        .map_err(StorageError::io("write", &temporary))?;
    file.sync_data()
        .map_err(StorageError::io("sync", &temporary))?;
    disk.rename(&temporary, &path)
        .map_err(StorageError::io("rename", &temporary))?;
    disk.sync_dir(&config.dir)
        .map_err(StorageError::io("sync", &config.dir))
}

fn remove_file(config: &LogConfig, disk: &dyn Disk) -> Result<()> {
    let path = path_of(config);
    disk.remove(&path)
        .map_err(StorageError::io("remove", &path))?;
    disk.sync_dir(&config.dir)
        .map_err(StorageError::io("sync", &config.dir))
}
