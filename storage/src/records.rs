//! Keys and values of the index tree. Keys sort by kind, group, index; numbers in them are big-endian.

use bytes::{BufMut, BytesMut};

use crate::codec::Fields;
use crate::error::Result;
use crate::frame::Position;
use crate::segment::SegmentKey;
use crate::{GroupId, LogPoint, SegmentId};

/// Where an entry lies and what Raft asks about it without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexRecord {
    pub segment: SegmentKey,
    pub offset: u32,
    /// Header and body, without padding.
    pub frame_bytes: u32,
    pub kind: u8,
    pub term: u64,
    pub leader: u64,
    pub payload_bytes: u32,
}

impl IndexRecord {
    pub(crate) fn point(&self, index: u64) -> LogPoint {
        LogPoint {
            index,
            term: self.term,
            leader: self.leader,
        }
    }

    pub(crate) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(40);
        out.put_u32_le(self.segment.id.0);
        out.put_u16_le(self.segment.generation);
        out.put_u32_le(self.offset);
        out.put_u32_le(self.frame_bytes);
        out.put_u8(self.kind);
        out.put_u64_le(self.term);
        out.put_u64_le(self.leader);
        out.put_u32_le(self.payload_bytes);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<IndexRecord> {
        let mut fields = Fields::new(bytes, "index record");
        Ok(IndexRecord {
            segment: SegmentKey {
                id: SegmentId(fields.u32()?),
                generation: fields.u16()?,
            },
            offset: fields.u32()?,
            frame_bytes: fields.u32()?,
            kind: fields.u8()?,
            term: fields.u64()?,
            leader: fields.u64()?,
            payload_bytes: fields.u32()?,
        })
    }
}

/// Which of a group's two sets of entries a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Space {
    /// Raft's log.
    Log,
    /// Payload that came with the snapshot of that number.
    Import(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryKey {
    pub space: Space,
    pub group: GroupId,
    pub index: u64,
}

impl EntryKey {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut key = entry_prefix(self.space, self.group);
        key.extend_from_slice(&self.index.to_be_bytes());
        key
    }
}

pub(crate) fn entry_prefix(space: Space, group: GroupId) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    match space {
        Space::Log => key.push(b'e'),
        Space::Import(_) => key.push(b'i'),
    }
    key.extend_from_slice(&group.0.to_be_bytes());
    if let Space::Import(import) = space {
        key.extend_from_slice(&import.to_be_bytes());
    }
    key
}

/// The index at the end of an entry's key.
pub(crate) fn index_of_key(key: &[u8]) -> Option<u64> {
    let (_, index) = key.split_last_chunk::<8>()?;
    Some(u64::from_be_bytes(*index))
}

pub(crate) const POSITION_KEY: &[u8] = b"p";

/// How far the log is in the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexed {
    pub position: Position,
    pub round: u64,
}

impl Indexed {
    pub(crate) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(16);
        out.put_u32_le(self.position.segment.0);
        out.put_u32_le(self.position.offset);
        out.put_u64_le(self.round);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Indexed> {
        let mut fields = Fields::new(bytes, "index position");
        Ok(Indexed {
            position: Position {
                segment: SegmentId(fields.u32()?),
                offset: fields.u32()?,
            },
            round: fields.u64()?,
        })
    }
}

pub(crate) const GROUP_PREFIX: &[u8] = b"g";
pub(crate) const SEGMENT_PREFIX: &[u8] = b"s";
pub(crate) const SHARE_PREFIX: &[u8] = b"t";
pub(crate) const DAMAGE_PREFIX: &[u8] = b"x";

pub(crate) fn group_key(group: GroupId) -> Vec<u8> {
    [GROUP_PREFIX, &group.0.to_be_bytes()].concat()
}

pub(crate) fn segment_key(segment: SegmentId) -> Vec<u8> {
    [SEGMENT_PREFIX, &segment.0.to_be_bytes()].concat()
}

pub(crate) fn share_key(segment: SegmentId, group: GroupId) -> Vec<u8> {
    [
        SHARE_PREFIX,
        &segment.0.to_be_bytes(),
        &group.0.to_be_bytes(),
    ]
    .concat()
}

pub(crate) fn damage_key(number: u32) -> Vec<u8> {
    [DAMAGE_PREFIX, &number.to_be_bytes()].concat()
}

/// A segment as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRecord {
    pub generation: u16,
    pub end: u64,
    pub sealed: bool,
}

impl SegmentRecord {
    pub(crate) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(11);
        out.put_u16_le(self.generation);
        out.put_u64_le(self.end);
        out.put_u8(u8::from(self.sealed));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentRecord> {
        let mut fields = Fields::new(bytes, "segment record");
        Ok(SegmentRecord {
            generation: fields.u16()?,
            end: fields.u64()?,
            sealed: fields.u8()? != 0,
        })
    }
}

/// What one group has in one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShareRecord {
    /// Highest index of an entry of Raft's log; an upper bound after a truncation.
    pub index_max: u64,
    pub entries: u64,
    pub payload_bytes: u64,
    /// Payload of entries that came with a snapshot, by the latest import only.
    pub import: u32,
    pub import_bytes: u64,
}

impl ShareRecord {
    pub(crate) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(36);
        out.put_u64_le(self.index_max);
        out.put_u64_le(self.entries);
        out.put_u64_le(self.payload_bytes);
        out.put_u32_le(self.import);
        out.put_u64_le(self.import_bytes);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<ShareRecord> {
        let mut fields = Fields::new(bytes, "segment share");
        Ok(ShareRecord {
            index_max: fields.u64()?,
            entries: fields.u64()?,
            payload_bytes: fields.u64()?,
            import: fields.u32()?,
            import_bytes: fields.u64()?,
        })
    }
}

pub(crate) fn number_at(key: &[u8], at: usize) -> Option<u32> {
    let bytes = key.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
