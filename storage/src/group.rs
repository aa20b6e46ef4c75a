//! What the log knows of one group besides its entries.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Fields, put_optional, put_string};
use crate::error::Result;
use crate::{GroupId, LogPoint};

/// Votes and commit hints are part of a record that must fit one sled value.
pub(crate) const HINT_BYTES_MAX: usize = 160;

/// Kept in memory for every group, in the index, and at the start of every segment, so that the
/// segments that are left are always enough to rebuild it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupMeta {
    pub purged: Option<LogPoint>,
    pub last: Option<LogPoint>,
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    /// A part of the log that was damaged before it was indexed may have held a newer vote,
    /// truncation or last entry of this group.
    pub suspect: bool,
}

impl GroupMeta {
    pub(crate) fn last_index(&self) -> Option<u64> {
        self.last.map(|point| point.index)
    }

    /// First index that Raft may see.
    pub(crate) fn first_visible(&self) -> u64 {
        self.purged.map_or(0, |point| point.index + 1)
    }

    pub(crate) fn purge(&mut self, upto: LogPoint) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        self.purged = Some(upto);
        if self.last.is_none_or(|last| last.index < upto.index) {
            self.last = Some(upto);
        }
    }

    pub(crate) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(64);
        put_optional(&mut out, self.purged.as_ref(), put_point);
        put_optional(&mut out, self.last.as_ref(), put_point);
        put_optional(&mut out, self.vote.as_ref(), |out, vote| {
            put_string(out, vote)
        });
        put_optional(&mut out, self.committed.as_ref(), |out, committed| {
            put_string(out, committed)
        });
        out.put_u8(u8::from(self.suspect));
        out
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<GroupMeta> {
        Ok(GroupMeta {
            purged: fields.optional(take_point)?,
            last: fields.optional(take_point)?,
            vote: fields.optional(Fields::string)?,
            committed: fields.optional(Fields::string)?,
            suspect: fields.u8()? != 0,
        })
    }
}

fn put_point(out: &mut BytesMut, point: &LogPoint) {
    out.put_u64_le(point.index);
    out.put_u64_le(point.term);
    out.put_u64_le(point.leader);
}

fn take_point(fields: &mut Fields<'_>) -> Result<LogPoint> {
    Ok(LogPoint {
        index: fields.u64()?,
        term: fields.u64()?,
        leader: fields.u64()?,
    })
}

/// The groups as they stand after the frames seen so far, in log order.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupTable(BTreeMap<GroupId, GroupMeta>);

impl GroupTable {
    pub(crate) fn from_metas(metas: impl IntoIterator<Item = (GroupId, GroupMeta)>) -> GroupTable {
        GroupTable(metas.into_iter().collect())
    }

    pub(crate) fn get(&self, group: GroupId) -> Option<&GroupMeta> {
        self.0.get(&group)
    }

    pub(crate) fn get_mut(&mut self, group: GroupId) -> &mut GroupMeta {
        self.0.entry(group).or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupId, &GroupMeta)> {
        self.0.iter().map(|(group, meta)| (*group, meta))
    }

    pub(crate) fn mark_all_suspect(&mut self) {
        self.0.values_mut().for_each(|meta| meta.suspect = true);
    }

    pub(crate) fn preamble(&self, commits: u64) -> SegmentPreamble {
        SegmentPreamble {
            commits,
            groups: self
                .iter()
                .map(|(group, meta)| (group, meta.clone()))
                .collect(),
        }
    }
}

/// Body of the frame that opens a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentPreamble {
    /// Checkpoint commits that were durable when the segment was opened: an index database that
    /// knows of fewer has lost some.
    pub commits: u64,
    pub groups: Vec<(GroupId, GroupMeta)>,
}

impl SegmentPreamble {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u64_le(self.commits);
        out.put_u32_le(self.groups.len() as u32);
        for (group, meta) in &self.groups {
            out.put_u32_le(group.0);
            out.put_slice(&meta.encode());
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentPreamble> {
        let mut fields = Fields::new(bytes, "segment preamble");
        let commits = fields.u64()?;
        let count = fields.u32()?;
        let mut groups = Vec::new();
        for _ in 0..count {
            let group = GroupId(fields.u32()?);
            groups.push((group, GroupMeta::decode(&mut fields)?));
        }
        Ok(SegmentPreamble { commits, groups })
    }
}
