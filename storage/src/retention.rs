//! Which segments still hold something that is needed.
//!
//! A segment's payload starts all live. Checkpoints report what died; only what a *durable*
//! checkpoint reported counts. Live = payload in the index - dead in the state tree. A segment may
//! go when it is sealed, all its entries are purged, nothing in it is live and no export pins it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::group::GroupTable;
use crate::records::{IndexRecord, SegmentRecord, ShareRecord, Space};
use crate::segment::SegmentKey;
use crate::{GroupId, SegmentId};

/// What of an entry is still referenced, as of the latest durable checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveSlots {
    All,
    None,
    Some(Vec<Range<u32>>),
}

impl LiveSlots {
    pub fn contains(&self, slot: u32) -> bool {
        match self {
            LiveSlots::All => true,
            LiveSlots::None => false,
            LiveSlots::Some(ranges) => ranges.iter().any(|range| range.contains(&slot)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub id: SegmentId,
    /// Bytes of the file that hold frames.
    pub bytes: u64,
    /// Payload that is referenced, as of the latest durable checkpoints.
    pub live_bytes: u64,
    pub payload_bytes: u64,
    /// Payload that stays if it is rewritten now, at most: what is live, and all of groups of which something in it
    /// is not purged.
    pub kept_bytes: u64,
    pub sealed: bool,
    pub groups: Vec<GroupId>,
    /// Whether it can be dropped now.
    pub droppable: bool,
    /// Whether an export reads it, so that it stays as it is until that ends.
    pub pinned: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub record: ShareRecord,
    /// Released by durable checkpoints.
    pub dead: u64,
}

impl Share {
    pub(crate) fn live(&self) -> u64 {
        self.record.payload_bytes.saturating_sub(self.dead)
    }

    fn is_purged(&self, group: GroupId, groups: &GroupTable) -> bool {
        self.record.entries == 0
            || groups
                .get(group)
                .is_some_and(|meta| self.record.index_max < meta.first_visible())
    }
}

impl ShareRecord {
    pub(crate) fn add(&mut self, space: Space, index: u64, payload_bytes: u64) {
        self.payload_bytes += payload_bytes;
        match space {
            Space::Log => {
                self.index_max = self.index_max.max(index);
                self.entries += 1;
            }
            Space::Import(import) => {
                if self.import != import {
                    self.import = import;
                    self.import_bytes = 0;
                }
                self.import_bytes += payload_bytes;
            }
        }
    }

    /// Takes back what was added of an entry.
    pub(crate) fn subtract(&mut self, space: Space, record: &IndexRecord) {
        let bytes = u64::from(record.payload_bytes);
        self.payload_bytes = self.payload_bytes.saturating_sub(bytes);
        match space {
            Space::Log => self.entries = self.entries.saturating_sub(1),
            Space::Import(import) if self.import == import => {
                self.import_bytes = self.import_bytes.saturating_sub(bytes);
            }
            Space::Import(_) => {}
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SegmentStats {
    pub id: SegmentId,
    pub generation: u16,
    pub end: u64,
    pub sealed: bool,
    pub shares: BTreeMap<GroupId, Share>,
    /// A drop or a compaction works on it.
    pub busy: bool,
}

impl SegmentStats {
    pub(crate) fn new(id: SegmentId, record: SegmentRecord) -> SegmentStats {
        SegmentStats {
            id,
            generation: record.generation,
            end: record.end,
            sealed: record.sealed,
            shares: BTreeMap::new(),
            busy: false,
        }
    }

    pub(crate) fn key(&self) -> SegmentKey {
        SegmentKey {
            id: self.id,
            generation: self.generation,
        }
    }

    pub(crate) fn record(&self) -> SegmentRecord {
        SegmentRecord {
            generation: self.generation,
            end: self.end,
            sealed: self.sealed,
        }
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.shares.values().map(Share::live).sum()
    }

    fn kept_bytes(&self, groups: &GroupTable) -> u64 {
        let shares = self.shares.iter();
        let kept = |(group, share): (&GroupId, &Share)| match share.is_purged(*group, groups) {
            true => share.live(),
            false => share.record.payload_bytes,
        };
        shares.map(kept).sum()
    }

    /// No entry in it is part of what Raft may still ask for.
    fn is_purged(&self, groups: &GroupTable) -> bool {
        let mut shares = self.shares.iter();
        shares.all(|(group, share)| share.is_purged(*group, groups))
    }

    /// The groups that something in it may be needed of.
    pub(crate) fn needed_by<'a>(
        &'a self,
        groups: &'a GroupTable,
    ) -> impl Iterator<Item = GroupId> + 'a {
        let is_needed =
            |group: &GroupId, share: &Share| share.live() > 0 || !share.is_purged(*group, groups);
        let shares = self.shares.iter();
        shares
            .filter(move |(group, share)| is_needed(group, share))
            .map(|(group, _)| *group)
    }
}

#[derive(Default)]
pub(crate) struct Retention {
    pub segments: BTreeMap<SegmentId, SegmentStats>,
    /// Exports that run, per group: what they read must stay.
    pub pins: BTreeMap<GroupId, u32>,
}

impl Retention {
    pub(crate) fn share(&mut self, segment: SegmentId, group: GroupId) -> Option<&mut Share> {
        let stats = self.segments.get_mut(&segment)?;
        Some(stats.shares.entry(group).or_default())
    }

    pub(crate) fn is_pinned(&self, stats: &SegmentStats) -> bool {
        stats
            .shares
            .keys()
            .any(|group| self.pins.get(group).is_some_and(|pins| *pins > 0))
    }

    pub(crate) fn is_droppable(&self, stats: &SegmentStats, groups: &GroupTable) -> bool {
        stats.sealed
            && !stats.busy
            && stats.live_bytes() == 0
            && stats.is_purged(groups)
            && !self.is_pinned(stats)
    }

    pub(crate) fn infos(&self, groups: &GroupTable) -> Vec<SegmentInfo> {
        self.segments
            .values()
            .map(|stats| SegmentInfo {
                id: stats.id,
                bytes: stats.end,
                live_bytes: stats.live_bytes(),
                payload_bytes: stats
                    .shares
                    .values()
                    .map(|share| share.record.payload_bytes)
                    .sum(),
                kept_bytes: stats.kept_bytes(groups),
                sealed: stats.sealed,
                groups: stats.shares.keys().copied().collect(),
                droppable: self.is_droppable(stats, groups),
                pinned: self.is_pinned(stats),
            })
            .collect()
    }
}
