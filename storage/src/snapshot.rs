//! Snapshots: a group's records and the payload they refer to, as a stream of bounded chunks.
//!
//! An export is a frozen view: commits go on, and keep the old value of every record they change
//! for it. Segments with entries of the group are pinned. The receiver collects the chunks in a
//! staging file, checks them, and installs them: payload becomes frames of the log under the same
//! index and slots, records become a new epoch of the group's state, and one small change switches
//! to both.
//!
//! ```text
//!   chunk: crc u32 | number u64 | items          item: entry | record | end (totals, digest)
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use crc32c::{crc32c, crc32c_append};

use crate::codec::{Fields, put_string};
use crate::error::{Result, StorageError};
use crate::retention::LiveSlots;
use crate::{EntryBody, GroupId, LogEntry, LogPoint};

const VERSION: u32 = 1;
/// A chunk is sent when it reaches this size; one entry may make it larger.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
pub(crate) const CHUNK_HEADER_BYTES: usize = 12;
/// Larger chunks than the largest entry makes are refused.
pub(crate) const CHUNK_BYTES_MAX: usize = crate::ENTRY_BYTES_MAX + CHUNK_BYTES + (1 << 16);

pub(crate) const ITEM_ENTRY: u8 = 1;
pub(crate) const ITEM_RECORD: u8 = 2;
pub(crate) const ITEM_END: u8 = 3;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotManifest {
    pub group: GroupId,
    /// The entry the state is the result of. References up to it are carried by the snapshot.
    pub upto: LogPoint,
    /// As given to the checkpoint.
    pub applied: Bytes,
}

impl SnapshotManifest {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32_le(VERSION);
        out.put_u32_le(self.group.0);
        out.put_u64_le(self.upto.index);
        out.put_u64_le(self.upto.term);
        out.put_u64_le(self.upto.leader);
        put_string(&mut out, &self.applied);
        out.freeze()
    }

    pub fn decode(bytes: &[u8]) -> Result<SnapshotManifest> {
        let mut fields = Fields::new(bytes, "snapshot manifest");
        let version = fields.u32()?;
        if version != VERSION {
            return Err(StorageError::Version {
                what: "snapshot",
                found: version,
                known: VERSION,
            });
        }
        Ok(SnapshotManifest {
            group: GroupId(fields.u32()?),
            upto: LogPoint {
                index: fields.u64()?,
                term: fields.u64()?,
                leader: fields.u64()?,
            },
            applied: fields.string()?,
        })
    }
}

/// What of one entry the state refers to. Indexes come in order, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRange {
    pub index: u64,
    pub slots: LiveSlots,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub entries: u64,
    pub records: u64,
    pub payload_bytes: u64,
    /// Live slots that could not be read: the receiver will not have them either.
    pub damaged_slots: u64,
    /// CRC over the CRCs of all chunks before the last.
    pub digest: u32,
}

pub(crate) fn chunk_crc(number: u64, items: &[u8]) -> u32 {
    crc32c_append(crc32c(&number.to_le_bytes()), items)
}

pub(crate) enum Item {
    Entry(LogEntry),
    Record(Vec<u8>, Bytes),
    End(Totals),
}

pub(crate) fn take_item(fields: &mut Fields<'_>) -> Result<Item> {
    Ok(match fields.u8()? {
        ITEM_ENTRY => Item::Entry(LogEntry {
            index: fields.u64()?,
            term: fields.u64()?,
            leader: fields.u64()?,
            kind: fields.u8()?,
            body: EntryBody::parse(fields.string()?)?,
        }),
        ITEM_RECORD => Item::Record(fields.string()?.to_vec(), fields.string()?),
        ITEM_END => Item::End(Totals {
            entries: fields.u64()?,
            records: fields.u64()?,
            payload_bytes: fields.u64()?,
            damaged_slots: fields.u64()?,
            digest: fields.u32()?,
        }),
        _ => return Err(wrong("an unknown item")),
    })
}

pub(crate) fn wrong(what: &'static str) -> StorageError {
    StorageError::Snapshot { what }
}

pub(crate) fn check_chunk(chunk: &[u8], number: u64) -> Result<&[u8]> {
    let mut fields = Fields::new(chunk, "snapshot chunk");
    let crc = fields.u32()?;
    let found = fields.u64()?;
    let items = &chunk[CHUNK_HEADER_BYTES..];
    if crc != chunk_crc(found, items) {
        return Err(wrong("a chunk fails its checksum"));
    }
    if found != number {
        return Err(wrong("a chunk is out of order"));
    }
    Ok(items)
}
