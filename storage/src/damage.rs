//! Parts of the log that were durable once and cannot be read any more.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Fields, put_string};
use crate::error::Result;
use crate::{GroupId, SegmentId};

/// Reports beyond this many are counted in the log only.
pub(crate) const REPORTS_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    pub segment: SegmentId,
    pub offset: u64,
    pub bytes: u64,
    /// The entries that were hit, where that is known.
    pub entries: Vec<(GroupId, RangeInclusive<u64>)>,
    pub what: String,
}

impl DamagedRange {
    pub(crate) fn overlaps(&self, other: &DamagedRange) -> bool {
        self.segment == other.segment
            && self.offset < other.offset + other.bytes.max(1)
            && other.offset < self.offset + self.bytes.max(1)
    }

    /// Forgets what was hit of a group that has got it anew; tells whether nothing is left to report.
    /// Where it is not known who was hit, the report stands as long as the segment does.
    pub(crate) fn forget(&mut self, group: GroupId) -> bool {
        let was_known = !self.entries.is_empty();
        self.entries.retain(|(hit, _)| *hit != group);
        was_known && self.entries.is_empty()
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32_le(self.segment.0);
        out.put_u64_le(self.offset);
        out.put_u64_le(self.bytes);
        // The record must stay small for sled; a wider report is cut, its byte range is not.
        let entries = &self.entries[..self.entries.len().min(12)];
        out.put_u32_le(entries.len() as u32);
        for (group, range) in entries {
            out.put_u32_le(group.0);
            out.put_u64_le(*range.start());
            out.put_u64_le(*range.end());
        }
        let what = self.what.as_bytes();
        put_string(&mut out, &what[..what.len().min(128)]);
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<DamagedRange> {
        let mut fields = Fields::new(bytes, "damage report");
        let segment = SegmentId(fields.u32()?);
        let offset = fields.u64()?;
        let bytes = fields.u64()?;
        let mut entries = Vec::new();
        for _ in 0..fields.u32()? {
            let group = GroupId(fields.u32()?);
            entries.push((group, fields.u64()?..=fields.u64()?));
        }
        let what = String::from_utf8_lossy(&fields.string()?).into_owned();
        Ok(DamagedRange {
            segment,
            offset,
            bytes,
            entries,
            what,
        })
    }
}
