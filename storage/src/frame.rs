//! The frames a segment is made of.
//!
//! ```text
//!  0     4       5    6          7    8     12       16    24                 32
//!  +-----+-------+----+----------+----+-----+--------+-----+------------------+
//!  |magic|version|kind|entry kind|flag|group|body len|round|durable up to     |
//!  +-----+-------+----+----------+----+-----+--------+-----+------------------+
//!  32    40   48     56    60       64         68     72
//!  +-----+----+------+-----+--------+----------+------+
//!  |index|term|leader|extra|body crc|header crc| zero | body, zeros up to a multiple of 8
//!  +-----+----+------+-----+--------+----------+------+
//! ```
//!
//! "Durable up to" is the end of what was known to be synced when the frame was written (segment,
//! offset). It lets recovery tell a torn tail, which nobody was told about, from damage to bytes
//! that had been durable. The header CRC covers the first 64 bytes and the frame's own place
//! (segment, offset), so that stale or misplaced bytes never pass for a frame. The body CRC of an
//! entry is the table CRC of its body, which vouches for the rest.

use bytes::{BufMut, Bytes, BytesMut};
use crc32c::{crc32c, crc32c_append};

use crate::codec::Fields;
use crate::error::{Result, StorageError};
use crate::{EntryBody, GroupId, LogPoint, SegmentId};

pub(crate) const HEADER_BYTES: usize = 72;
pub(crate) const MAGIC: [u8; 4] = *b"FLg1";
const ALIGN: u64 = 8;
const ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];
const FLAG_SOME: u8 = 1;

/// A place in the log; ordered as the log was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub segment: SegmentId,
    pub offset: u32,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Opens a segment; the body is a `SegmentPreamble`.
    Preamble(Bytes),
    Entry {
        point: LogPoint,
        kind: u8,
        body: EntryBody,
    },
    /// An entry whose live slots came with a snapshot: payload only, no part of Raft's log.
    Restored {
        point: LogPoint,
        kind: u8,
        import: u32,
        body: EntryBody,
    },
    Vote(Bytes),
    Committed(Bytes),
    /// Drops what follows the given entry; `None` drops all.
    Truncate(Option<LogPoint>),
    Purge(LogPoint),
    /// Says only how far the log is durable.
    Mark,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub group: GroupId,
    pub round: u64,
    pub durable: Position,
    pub content: Content,
}

/// A frame's checked header, before its body was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub kind: FrameKind,
    pub entry_kind: u8,
    flag: u8,
    pub group: GroupId,
    pub body_bytes: u32,
    pub round: u64,
    pub durable: Position,
    pub point: LogPoint,
    pub extra: u32,
    body_crc: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Preamble = 1,
    Entry = 2,
    Restored = 3,
    Vote = 4,
    Committed = 5,
    Truncate = 6,
    Purge = 7,
    Mark = 8,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<FrameKind> {
        use FrameKind::*;
        [
            Preamble, Entry, Restored, Vote, Committed, Truncate, Purge, Mark,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

impl FrameHeader {
    pub(crate) const VERSION: u8 = 1;

    /// Bytes of header and body, without the padding that follows.
    pub(crate) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }

    /// Bytes up to where the next frame starts.
    pub(crate) fn stride(&self) -> u64 {
        padded(self.frame_bytes())
    }

    pub(crate) fn parse(bytes: &[u8], place: Position) -> Result<FrameHeader> {
        let mut fields = Fields::new(bytes, "frame header");
        let covered = bytes
            .get(..64)
            .ok_or_else(|| invalid("shorter than its header"))?;
        if fields.take(4)? != MAGIC {
            return Err(invalid("no frame starts here"));
        }
        let version = fields.u8()?;
        let kind = fields.u8()?;
        let entry_kind = fields.u8()?;
        let flag = fields.u8()?;
        let group = GroupId(fields.u32()?);
        let body_bytes = fields.u32()?;
        let round = fields.u64()?;
        let durable = Position {
            segment: SegmentId(fields.u32()?),
            offset: fields.u32()?,
        };
        let point = LogPoint {
            index: fields.u64()?,
            term: fields.u64()?,
            leader: fields.u64()?,
        };
        let extra = fields.u32()?;
        let body_crc = fields.u32()?;
        let header_crc = fields.u32()?;
        if header_crc != header_crc_of(covered, place) {
            return Err(invalid("header fails its checksum"));
        }
        if version != FrameHeader::VERSION {
            return Err(StorageError::Version {
                what: "frame",
                found: u32::from(version),
                known: u32::from(FrameHeader::VERSION),
            });
        }
        let kind = FrameKind::from_byte(kind).ok_or_else(|| invalid("unknown kind"))?;
        Ok(FrameHeader {
            kind,
            entry_kind,
            flag,
            group,
            body_bytes,
            round,
            durable,
            point,
            extra,
            body_crc,
        })
    }

    /// Checks that a body (or an entry body's table) belongs to this header.
    pub(crate) fn check_table_crc(&self, table_crc: u32) -> Result<()> {
        if self.body_crc != table_crc {
            return Err(invalid("body belongs to another header"));
        }
        Ok(())
    }

    /// Takes the body; an entry's layout and every slot of it are checked too.
    pub(crate) fn content(&self, body: Bytes) -> Result<Content> {
        let is_entry = matches!(self.kind, FrameKind::Entry | FrameKind::Restored);
        if !is_entry && crc32c(&body) != self.body_crc {
            return Err(invalid("body fails its checksum"));
        }
        Ok(match self.kind {
            FrameKind::Entry | FrameKind::Restored => self.entry_content(body)?,
            FrameKind::Preamble => Content::Preamble(body),
            FrameKind::Vote => Content::Vote(body),
            FrameKind::Committed => Content::Committed(body),
            FrameKind::Truncate => {
                Content::Truncate((self.flag & FLAG_SOME != 0).then_some(self.point))
            }
            FrameKind::Purge => Content::Purge(self.point),
            FrameKind::Mark => Content::Mark,
        })
    }
}

impl FrameHeader {
    fn entry_content(&self, body: Bytes) -> Result<Content> {
        let body = EntryBody::parse(body)?;
        self.check_table_crc(body.table_crc())?;
        body.verify()?;
        let (point, kind) = (self.point, self.entry_kind);
        Ok(match self.kind {
            FrameKind::Restored => Content::Restored {
                point,
                kind,
                import: self.extra,
                body,
            },
            _ => Content::Entry { point, kind, body },
        })
    }
}

impl Frame {
    fn body_bytes(&self) -> usize {
        match &self.content {
            Content::Entry { body, .. } | Content::Restored { body, .. } => body.len(),
            Content::Preamble(body) | Content::Vote(body) | Content::Committed(body) => body.len(),
            Content::Truncate(_) | Content::Purge(_) | Content::Mark => 0,
        }
    }

    fn body_crc(&self) -> u32 {
        match &self.content {
            Content::Entry { body, .. } | Content::Restored { body, .. } => body.table_crc(),
            Content::Preamble(body) | Content::Vote(body) | Content::Committed(body) => {
                crc32c(body)
            }
            Content::Truncate(_) | Content::Purge(_) | Content::Mark => crc32c(&[]),
        }
    }

    pub(crate) fn stride(&self) -> u64 {
        padded((HEADER_BYTES + self.body_bytes()) as u64)
    }

    /// Appends header, body and padding to `parts`; the body is shared, not copied, and an entry's
    /// is not read again. Returns the bytes appended.
    pub(crate) fn put(
        &self,
        place: Position,
        headers: &mut BytesMut,
        parts: &mut Vec<Bytes>,
    ) -> u64 {
        let body_bytes = self.body_bytes();
        let (kind, entry_kind, flag, point, extra) = match &self.content {
            Content::Preamble(_) => (FrameKind::Preamble, 0, 0, LogPoint::default(), 0),
            Content::Entry { point, kind, .. } => (FrameKind::Entry, *kind, 0, *point, 0),
            Content::Restored {
                point,
                kind,
                import,
                ..
            } => (FrameKind::Restored, *kind, 0, *point, *import),
            Content::Vote(_) => (FrameKind::Vote, 0, 0, LogPoint::default(), 0),
            Content::Committed(_) => (FrameKind::Committed, 0, 0, LogPoint::default(), 0),
            Content::Truncate(last_kept) => {
                let flag = if last_kept.is_some() { FLAG_SOME } else { 0 };
                (
                    FrameKind::Truncate,
                    0,
                    flag,
                    last_kept.unwrap_or_default(),
                    0,
                )
            }
            Content::Purge(point) => (FrameKind::Purge, 0, 0, *point, 0),
            Content::Mark => (FrameKind::Mark, 0, 0, LogPoint::default(), 0),
        };
        headers.reserve(HEADER_BYTES);
        let start = headers.len();
        headers.put_slice(&MAGIC);
        headers.put_u8(FrameHeader::VERSION);
        headers.put_u8(kind as u8);
        headers.put_u8(entry_kind);
        headers.put_u8(flag);
        headers.put_u32_le(self.group.0);
        headers.put_u32_le(body_bytes as u32);
        headers.put_u64_le(self.round);
        headers.put_u32_le(self.durable.segment.0);
        headers.put_u32_le(self.durable.offset);
        headers.put_u64_le(point.index);
        headers.put_u64_le(point.term);
        headers.put_u64_le(point.leader);
        headers.put_u32_le(extra);
        headers.put_u32_le(self.body_crc());
        let header_crc = header_crc_of(&headers[start..], place);
        headers.put_u32_le(header_crc);
        headers.put_u32_le(0);
        parts.push(headers.split().freeze());
        match &self.content {
            Content::Entry { body, .. } | Content::Restored { body, .. } => {
                parts.extend(body.parts().cloned());
            }
            Content::Preamble(body) | Content::Vote(body) | Content::Committed(body) => {
                parts.push(body.clone());
            }
            Content::Truncate(_) | Content::Purge(_) | Content::Mark => {}
        }
        let bytes = (HEADER_BYTES + body_bytes) as u64;
        let stride = padded(bytes);
        if stride > bytes {
            parts.push(Bytes::from_static(&ZEROS[..(stride - bytes) as usize]));
        }
        stride
    }
}

fn header_crc_of(covered: &[u8], place: Position) -> u32 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&place.segment.0.to_le_bytes());
    bytes[4..].copy_from_slice(&place.offset.to_le_bytes());
    crc32c_append(crc32c(covered), &bytes)
}

pub(crate) fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN)
}

fn invalid(what: &'static str) -> StorageError {
    StorageError::InvalidFrame { what }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(content: Content) -> Frame {
        Frame {
            group: GroupId(7),
            round: 9,
            durable: Position {
                segment: SegmentId(3),
                offset: 4096,
            },
            content,
        }
    }

    fn bytes_of(frame: &Frame, place: Position) -> Vec<u8> {
        let (mut headers, mut parts) = (BytesMut::new(), Vec::new());
        let stride = frame.put(place, &mut headers, &mut parts);
        let bytes = parts.concat();
        assert_eq!(bytes.len() as u64, stride);
        assert_eq!(stride, frame.stride());
        bytes
    }

    fn contents() -> impl Strategy<Value = Content> {
        let point =
            (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(index, term, leader)| LogPoint {
                index,
                term,
                leader,
            });
        let body = proptest::collection::vec(any::<u8>(), 0..40).prop_map(|slot| {
            EntryBody::builder()
                .slots([Bytes::from(slot)])
                .build()
                .unwrap()
        });
        let bytes = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            (point.clone(), any::<u8>(), body.clone())
                .prop_map(|(point, kind, body)| { Content::Entry { point, kind, body } }),
            (point.clone(), any::<u8>(), any::<u32>(), body).prop_map(
                |(point, kind, import, body)| Content::Restored {
                    point,
                    kind,
                    import,
                    body
                }
            ),
            bytes.clone().prop_map(Content::Vote),
            bytes.prop_map(Content::Committed),
            proptest::option::of(point.clone()).prop_map(Content::Truncate),
            point.prop_map(Content::Purge),
            Just(Content::Mark),
        ]
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_only_from_its_own_place(content in contents(), segment in any::<u32>(), offset in any::<u32>()) {
            let place = Position { segment: SegmentId(segment), offset };
            let written = frame(content);
            let bytes = bytes_of(&written, place);
            let header = FrameHeader::parse(&bytes, place).unwrap();
            prop_assert_eq!(header.stride() as usize, bytes.len());
            let body = Bytes::copy_from_slice(&bytes[HEADER_BYTES..header.frame_bytes() as usize]);
            prop_assert_eq!(header.content(body).unwrap(), written.content);
            let elsewhere = Position { segment: SegmentId(segment), offset: offset ^ 8 };
            prop_assert!(FrameHeader::parse(&bytes, elsewhere).is_err());
        }

        #[test]
        fn a_flipped_bit_is_found(content in contents(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let place = Position::default();
            let written = frame(content);
            let mut bytes = bytes_of(&written, place);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(header) = FrameHeader::parse(&bytes, place) {
                let body = Bytes::copy_from_slice(&bytes[HEADER_BYTES..header.frame_bytes() as usize]);
                // Only the unused last word of the header and the padding are not covered.
                match header.content(body) {
                    Ok(content) => {
                        prop_assert_eq!(content, written.content);
                        prop_assert!((68..72).contains(&at) || at as u64 >= header.frame_bytes());
                    }
                    Err(error) => prop_assert!(error.is_corruption()),
                }
            }
        }
    }
}
