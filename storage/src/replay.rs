//! Brings the index up to the segments, and the segments' directory up to the index.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::SegmentId;
use crate::applier::{Applier, LogOp, LoggedOp};
use crate::checkpoint::Commits;
use crate::compact::{Survey, survey};
use crate::damage::DamagedRange;
use crate::dead_counts::load_dead_counts;
use crate::disk::Disk;
use crate::error::{Result, StorageError};
use crate::frame::Position;
use crate::index::Index;
use crate::records::EntryKey;
use crate::recovery::{RecoveryReport, preamble_of};
use crate::retention::{Retention, SegmentStats};
use crate::scan::SegmentScan;
use crate::segment::SegmentFile;

pub(crate) struct Replay<'a> {
    pub disk: &'a dyn Disk,
    pub index: &'a Index,
    pub log_dir: &'a Path,
    pub applier: &'a mut Applier,
    pub retention: &'a Mutex<Retention>,
    pub commits: &'a Commits,
    pub files: BTreeMap<SegmentId, Arc<SegmentFile>>,
    pub report: &'a mut RecoveryReport,
}

impl Replay<'_> {
    fn remove_file(&mut self, id: SegmentId) -> Result<()> {
        if let Some(file) = self.files.remove(&id) {
            self.disk
                .remove(&file.path)
                .map_err(StorageError::io("remove", &file.path))?;
            self.disk
                .sync_dir(self.log_dir)
                .map_err(StorageError::io("sync", self.log_dir))?;
        }
        Ok(())
    }

    /// Segments made ahead of need that nothing was ever written to. Any byte in a segment proves
    /// that the one before it was durable to its end; an unused one proves nothing.
    pub(crate) fn drop_unused(&mut self) -> Result<()> {
        let begun = self.applier.reached().position;
        while let Some((id, file)) = self.files.last_key_value() {
            let is_known = begun != Position::default() && *id <= begun.segment && begun.offset > 0;
            if is_known || !is_blank(file)? {
                break;
            }
            let id = *id;
            self.remove_file(id)?;
        }
        Ok(())
    }

    /// A segment that left the index durably, but whose file was not removed before the crash.
    pub(crate) fn drop_orphans(&mut self) -> Result<()> {
        let passed = self.applier.reached().position.segment;
        let orphans: Vec<SegmentId> = {
            let retention = self.retention.lock();
            self.files
                .keys()
                .filter(|id| **id < passed && !retention.segments.contains_key(*id))
                .copied()
                .collect()
        };
        for id in orphans {
            self.remove_file(id)?;
        }
        Ok(())
    }

    /// A compaction that gave its file the final name, but was not in the index before the crash.
    pub(crate) fn adopt_compacted(&mut self) -> Result<()> {
        let moved: Vec<(SegmentStats, Arc<SegmentFile>)> = {
            let retention = self.retention.lock();
            self.files
                .values()
                .filter_map(|file| {
                    let stats = retention.segments.get(&file.key.id)?;
                    (stats.generation != file.key.generation).then(|| (stats.clone(), file.clone()))
                })
                .collect()
        };
        for (before, file) in moved {
            let Survey {
                mut moves,
                mut stats,
                is_whole,
            } = survey(&file)?;
            load_dead_counts(self.index, &mut stats)?;
            if is_whole {
                let kept: HashSet<EntryKey> = moves.iter().map(|(key, _)| *key).collect();
                let known = self.index.entries_in(&before)?.into_iter();
                let left_out = known.filter(|(key, _)| !kept.contains(key));
                moves.extend(left_out.map(|(key, _)| (key, None)));
                self.applier.settle_segment(before.id);
            }
            self.applier.move_segment(before.key(), &moves, stats)?;
        }
        Ok(())
    }

    /// Applies every frame from `from` on and returns where the log ends.
    pub(crate) fn scan(&mut self, from: Option<Position>) -> Result<Position> {
        let from = from.unwrap_or_default();
        let ids: Vec<SegmentId> = self
            .files
            .keys()
            .copied()
            .filter(|id| *id >= from.segment)
            .collect();
        let mut end = from;
        for (number, id) in ids.iter().enumerate() {
            let start = if *id == from.segment {
                u64::from(from.offset)
            } else {
                0
            };
            end = self.scan_segment(*id, start, ids.get(number + 1).copied())?;
        }
        if ids.is_empty() && from != Position::default() {
            // The open segment is gone as a whole; the log goes on behind it.
            let next = Position {
                segment: SegmentId(from.segment.0 + 1),
                offset: 0,
            };
            self.end_segment(from, next)?;
        }
        Ok(end)
    }

    fn end_segment(&mut self, at: Position, next: Position) -> Result<()> {
        self.applier.apply(&LoggedOp {
            at,
            generation: 0,
            op: LogOp::SegmentEnded {
                end: u64::from(at.offset),
            },
            next,
            round: 0,
        })
    }

    fn scan_segment(
        &mut self,
        id: SegmentId,
        start: u64,
        following: Option<SegmentId>,
    ) -> Result<Position> {
        let Some(file) = self.files.get(&id).cloned() else {
            return Ok(Position::default());
        };
        let known_end = match following.and_then(|next| self.files.get(&next)) {
            Some(next) => preamble_of(next)?
                .filter(|(header, _)| header.durable.segment == id)
                .map(|(header, _)| u64::from(header.durable.offset)),
            None => None,
        };
        let mut scan = SegmentScan::new(&file, known_end, following.is_some())?;
        let applier = &mut *self.applier;
        let commits = self.commits;
        let outcome = scan.run(start, |logged| {
            if let LogOp::SegmentStarted(Some(preamble)) = &logged.op {
                commits.raise_durable(preamble.commits);
            }
            applier.apply(&logged)
        })?;
        self.report.scanned_frames += outcome.frames;
        self.report.scanned_bytes += outcome.end.saturating_sub(start);
        let length = file.len()?;
        let at = Position {
            segment: id,
            offset: outcome.end as u32,
        };
        let next_id = following.unwrap_or(SegmentId(id.0.saturating_add(1)));
        let next = Position {
            segment: next_id,
            offset: 0,
        };
        if following.is_none() {
            self.report.cut_bytes += outcome.torn_bytes;
            if length > outcome.end {
                file.file
                    .set_len(outcome.end)
                    .map_err(StorageError::io("cut", &file.path))?;
                file.file
                    .sync_data()
                    .map_err(StorageError::io("sync", &file.path))?;
            }
        }
        self.end_segment(at, next)?;
        if !outcome.has_content {
            // Made ahead of need and never used, or nothing but a preamble: keep no empty files.
            self.applier.remove_segment(file.key, &[])?;
            self.remove_file(id)?;
        }
        Ok(at)
    }

    /// Segments that are shorter than the index knows them, or not there at all.
    pub(crate) fn report_missing(&mut self) -> Result<()> {
        let known: Vec<(SegmentId, u64)> = {
            let retention = self.retention.lock();
            let segments = retention.segments.values();
            segments.map(|stats| (stats.id, stats.end)).collect()
        };
        for (segment, end) in known {
            let (length, what) = match self.files.get(&segment) {
                Some(file) => (file.len()?, "the file ends before it"),
                None => (0, "the file is missing"),
            };
            if length >= end {
                continue;
            }
            let range = DamagedRange {
                segment,
                offset: length,
                bytes: end - length,
                entries: Vec::new(),
                what: what.to_owned(),
            };
            if !self
                .applier
                .damage()
                .iter()
                .any(|known| known.overlaps(&range))
            {
                self.applier.add_damage(range);
            }
        }
        Ok(())
    }
}

/// Whether a file holds nothing but zeros.
fn is_blank(file: &SegmentFile) -> Result<bool> {
    let length = file.len()?;
    let mut at = 0;
    while at < length {
        let bytes = (length - at).min(1 << 20) as usize;
        match file.read_exact(at, bytes)? {
            Some(chunk) if chunk.iter().any(|byte| *byte != 0) => return Ok(false),
            Some(_) => at += bytes as u64,
            None => break,
        }
    }
    Ok(true)
}
