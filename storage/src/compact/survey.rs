//! What a rewritten segment holds: counted while it is written, or read back from it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::frame::{Content, FrameHeader, FrameKind, HEADER_BYTES};
use crate::records::{EntryKey, IndexRecord, SegmentRecord, Space};
use crate::retention::{LiveSlots, SegmentStats};
use crate::segment::{Scanned, Scanner, SegmentFile, SegmentKey};

/// Where entries are now; `None` for those that are gone.
pub(crate) type Moves = Vec<(EntryKey, Option<IndexRecord>)>;

pub(crate) fn key_of(header: &FrameHeader) -> Option<EntryKey> {
    let space = match header.kind {
        FrameKind::Entry => Space::Log,
        FrameKind::Restored => Space::Import(header.extra),
        _ => return None,
    };
    Some(EntryKey {
        space,
        group: header.group,
        index: header.point.index,
    })
}

/// What a compacted file holds.
pub(crate) struct Survey {
    pub moves: Moves,
    pub stats: SegmentStats,
    /// Whether all of it could be read: then what is not in `moves` was left out of the file.
    pub is_whole: bool,
}

/// Reads it back from the file: for a switch that a crash interrupted.
pub(crate) fn survey(file: &Arc<SegmentFile>) -> Result<Survey> {
    let mut is_whole = true;
    let end = file.len()?;
    let mut scanner = Scanner::new(file.clone(), end);
    let record = SegmentRecord {
        generation: file.key.generation,
        end,
        sealed: true,
    };
    let mut stats = SegmentStats::new(file.key.id, record);
    let mut moves = Vec::new();
    let mut at = 0;
    while at < end {
        let (header, payload_bytes) = match scanner.frame(at)? {
            Scanned::Frame { header, content } => match content {
                Content::Entry { body, .. } | Content::Restored { body, .. } => {
                    (header, body.payload_len())
                }
                _ => (header, 0),
            },
            // An upper bound: it keeps the segment too long rather than too short.
            Scanned::DamagedBody { header } => (header, header.body_bytes),
            Scanned::NoFrame => {
                is_whole = false;
                match scanner.next_header(at + 1)? {
                    Some((next, _)) => {
                        at = next;
                        continue;
                    }
                    None => break,
                }
            }
        };
        if let Some(key) = key_of(&header) {
            let record = IndexRecord {
                segment: file.key,
                offset: at as u32,
                frame_bytes: header.frame_bytes() as u32,
                kind: header.entry_kind,
                term: header.point.term,
                leader: header.point.leader,
                payload_bytes,
            };
            let share = stats.shares.entry(key.group).or_default();
            share
                .record
                .add(key.space, key.index, u64::from(payload_bytes));
            moves.push((key, Some(record)));
        }
        at += header.stride();
    }
    Ok(Survey {
        moves,
        stats,
        is_whole,
    })
}

pub(super) struct Rewritten {
    pub moves: Moves,
    pub stats: SegmentStats,
    pub kept: u64,
    pub removed: u64,
    /// What lives of entries that are kept whole though some of them is dead, which is counted by now.
    pub dead: HashMap<EntryKey, LiveSlots>,
}

impl Rewritten {
    pub(super) fn new(segment: SegmentKey) -> Rewritten {
        let record = SegmentRecord {
            generation: segment.generation,
            end: 0,
            sealed: true,
        };
        Rewritten {
            moves: Vec::new(),
            stats: SegmentStats::new(segment.id, record),
            kept: 0,
            removed: 0,
            dead: HashMap::new(),
        }
    }

    /// Counts what is dead of an entry that is kept whole: it would count as live for good.
    pub(super) fn count_dead(&mut self, key: EntryKey, content: &Content, live: LiveSlots) {
        let (Content::Entry { body, .. } | Content::Restored { body, .. }) = content else {
            return;
        };
        let dead: u64 = (0..body.slot_count())
            .filter(|slot| !live.contains(*slot))
            .map(|slot| u64::from(body.slot_len(slot)))
            .sum();
        if dead > 0 {
            self.stats.shares.entry(key.group).or_default().dead += dead;
            self.dead.insert(key, live);
        }
    }

    /// `offset` is where what was kept of the entry stands.
    pub(super) fn count(
        &mut self,
        key: EntryKey,
        kept: Option<&Content>,
        segment: SegmentKey,
        offset: u64,
    ) {
        let record = kept.and_then(|content| match content {
            Content::Entry { point, kind, body }
            | Content::Restored {
                point, kind, body, ..
            } => Some(IndexRecord {
                segment,
                offset: offset as u32,
                frame_bytes: (HEADER_BYTES + body.len()) as u32,
                kind: *kind,
                term: point.term,
                leader: point.leader,
                payload_bytes: body.payload_len(),
            }),
            _ => None,
        });
        match record {
            Some(record) => {
                self.kept += 1;
                let share = self.stats.shares.entry(key.group).or_default();
                share
                    .record
                    .add(key.space, key.index, u64::from(record.payload_bytes));
            }
            None => self.removed += 1,
        }
        self.moves.push((key, record));
    }
}
