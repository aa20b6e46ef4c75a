//! Rewriting a segment that holds little of what is needed.
//!
//! A new generation is written beside the old one and gets its name when it is complete and
//! durable; then the index is pointed at it and the old one removed. Whatever step a crash comes
//! between, the next start finishes it; reads go on throughout.

use std::collections::{BTreeMap, HashMap};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};

use crate::checkpoint::Released;
use crate::core::Core;
use crate::error::{Result, StorageError};
use crate::frame::{Content, Frame, FrameHeader, FrameKind, Position};
use crate::log::NodeLog;
use crate::metrics::count;
use crate::read::read_frame;
use crate::records::{EntryKey, IndexRecord, SegmentRecord, Space};
use crate::retention::{LiveSlots, SegmentStats};
use crate::segment::{Scanned, Scanner, SegmentFile, SegmentKey, TEMPORARY_SUFFIX};
use crate::state_keys;
use crate::{EntryBody, GroupId, SegmentId};

/// Rewritten frames are handed to the disk in pieces of about this size.
const WRITE_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionReport {
    pub segment: SegmentId,
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub entries_kept: u64,
    pub entries_removed: u64,
}

type Moves = Vec<(EntryKey, Option<IndexRecord>)>;

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

/// What a compacted file holds, read back from it: for a switch that a crash interrupted.
pub(crate) fn survey(file: &Arc<SegmentFile>) -> Result<(Moves, SegmentStats)> {
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
            Scanned::NoFrame => match scanner.next_header(at + 1)? {
                Some((next, _)) => {
                    at = next;
                    continue;
                }
                None => break,
            },
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
    Ok((moves, stats))
}

impl NodeLog {
    /// Rewrites one sealed segment without the slots for which `live` says no. `live` must answer
    /// as of the latest durable checkpoint of the group: a slot that a checkpoint on disk refers to
    /// is live. Entries that are not purged are kept whole, and `live` is not asked.
    pub fn compact(
        &self,
        segment: SegmentId,
        live: &dyn Fn(GroupId, u64) -> LiveSlots,
    ) -> Result<CompactionReport> {
        self.core()?.compact(segment, live)
    }
}

impl Core {
    fn compact(
        &self,
        segment: SegmentId,
        live: &dyn Fn(GroupId, u64) -> LiveSlots,
    ) -> Result<CompactionReport> {
        let before = self.begin_compaction(segment)?;
        self.compacting_bytes
            .fetch_add(before.end, Ordering::Relaxed);
        let outcome = self.rewrite(&before, live);
        self.compacting_bytes
            .fetch_sub(before.end, Ordering::Relaxed);
        self.commits.lock().compacting.remove(&segment);
        if let Some(stats) = self.retention.lock().segments.get_mut(&segment) {
            stats.busy = false;
        }
        if outcome.is_ok() {
            count(&self.metrics.segments_compacted, 1);
        }
        outcome
    }

    /// Claims the segment, and has commits note from now on what they release in it.
    fn begin_compaction(&self, segment: SegmentId) -> Result<SegmentStats> {
        let refuse = |why| {
            Err(StorageError::SegmentBusy {
                segment,
                action: "compacted",
                why,
            })
        };
        let mut commits = self.commits.lock();
        let mut retention = self.retention.lock();
        let Some(stats) = retention.segments.get(&segment) else {
            return refuse("there is none of that number");
        };
        if !stats.sealed {
            return refuse("it is being written");
        }
        if stats.busy {
            return refuse("it is being worked on");
        }
        if stats.generation == u16::MAX {
            return refuse("it was rewritten too often");
        }
        if retention.is_pinned(stats) {
            return refuse("an export reads it");
        }
        let before = stats.clone();
        if let Some(stats) = retention.segments.get_mut(&segment) {
            stats.busy = true;
        }
        commits.compacting.insert(segment, Vec::new());
        Ok(before)
    }

    fn rewrite(
        &self,
        before: &SegmentStats,
        live: &dyn Fn(GroupId, u64) -> LiveSlots,
    ) -> Result<CompactionReport> {
        let old_key = before.key();
        let new_key = SegmentKey {
            id: old_key.id,
            generation: old_key.generation + 1,
        };
        let dir = self.config.log_dir();
        let path = new_key.path(&dir);
        let temporary = dir.join(format!("{}{TEMPORARY_SUFFIX}", new_key.file_name()));
        let old = self
            .segments
            .get(old_key)
            .ok_or(StorageError::SegmentBusy {
                segment: old_key.id,
                action: "compacted",
                why: "its file is missing",
            })?;
        let file = self
            .disk
            .create(&temporary)
            .map_err(StorageError::io("create", &temporary))?;
        let new = Arc::new(SegmentFile {
            key: new_key,
            path: path.clone(),
            file,
        });
        let written = self.write_live(&old, before.end, &new, live);
        let Rewritten {
            moves,
            mut stats,
            kept,
            removed,
        } = match written {
            Ok(rewritten) => rewritten,
            Err(error) => {
                if let Err(error) = self.disk.remove(&temporary) {
                    tracing::warn!(path = %temporary.display(), %error, "failed to remove an unfinished segment");
                }
                return Err(error);
            }
        };
        let io = |action, path| StorageError::io(action, path);
        new.file.sync_data().map_err(io("sync", &temporary))?;
        self.disk
            .rename(&temporary, &path)
            .map_err(io("rename", &temporary))?;
        self.disk.sync_dir(&dir).map_err(io("sync", &dir))?;

        // From here on the new generation is what a restart would take. No checkpoint may be
        // committed while the counts change over.
        let commits = self.commits.lock();
        self.segments.insert(new.clone());
        let released = commits
            .compacting
            .get(&old_key.id)
            .map_or(&[][..], Vec::as_slice);
        self.count_dead(&new, &moves, released, &mut stats)?;
        let mut batch = sled::Batch::default();
        for (group, share) in &stats.shares {
            batch.insert(
                state_keys::dead_key(new_key, *group),
                &share.dead.to_le_bytes(),
            );
        }
        let bytes_after = stats.end;
        self.applier.lock().move_segment(old_key, &moves, stats)?;
        self.index.apply_state(batch)?;
        let groups: Vec<GroupId> = before.shares.keys().copied().collect();
        self.remove_dead_counts(old_key, &groups)?;
        self.index.flush()?;
        drop(commits);
        self.remove_file(old_key)?;
        Ok(CompactionReport {
            segment: old_key.id,
            bytes_before: before.end,
            bytes_after,
            entries_kept: kept,
            entries_removed: removed,
        })
    }

    fn write_live(
        &self,
        old: &Arc<SegmentFile>,
        end: u64,
        new: &Arc<SegmentFile>,
        live: &dyn Fn(GroupId, u64) -> LiveSlots,
    ) -> Result<Rewritten> {
        let mut scanner = Scanner::new(old.clone(), end);
        let mut output = Output::new(new.clone());
        let mut rewritten = Rewritten {
            moves: Vec::new(),
            stats: SegmentStats::new(
                new.key.id,
                SegmentRecord {
                    generation: new.key.generation,
                    end: 0,
                    sealed: true,
                },
            ),
            kept: 0,
            removed: 0,
        };
        let mut at = 0;
        while at < end {
            let Scanned::Frame { header, content } = scanner.frame(at)? else {
                // Damage stays where it is reported, with all that is readable around it.
                return Err(StorageError::SegmentBusy {
                    segment: old.key.id,
                    action: "compacted",
                    why: "it is damaged",
                });
            };
            let offset = at as u32;
            at += header.stride();
            let kept = match content {
                Content::Preamble(_) => Some(content),
                Content::Entry { .. } | Content::Restored { .. } => {
                    let Some(key) = key_of(&header) else {
                        continue;
                    };
                    let is_current = self
                        .index
                        .get(key)?
                        .is_some_and(|record| record.segment == old.key && record.offset == offset);
                    if !is_current {
                        continue;
                    }
                    let kept = thin(content, &self.live_of(key, live));
                    rewritten.count(key, kept.as_ref(), new.key, &output);
                    kept
                }
                // Folded into the preamble of every later segment.
                _ => None,
            };
            if let Some(content) = kept {
                output.put(&header, content)?;
            }
        }
        output.write()?;
        rewritten.stats.end = output.offset;
        Ok(rewritten)
    }

    /// What must be kept of an entry.
    fn live_of(&self, key: EntryKey, live: &dyn Fn(GroupId, u64) -> LiveSlots) -> LiveSlots {
        let boundary = self.commits.boundary(key.group);
        match key.space {
            Space::Import(import) if boundary.map(|(_, current)| current) != Some(import) => {
                LiveSlots::None
            }
            Space::Import(_) => live(key.group, key.index),
            Space::Log => {
                let state = self.state.lock();
                let first_visible = state
                    .tail
                    .meta(key.group)
                    .map_or(0, |meta| meta.first_visible());
                drop(state);
                if key.index >= first_visible {
                    LiveSlots::All
                } else if boundary.is_some_and(|(upto, _)| key.index <= upto) {
                    LiveSlots::None
                } else {
                    live(key.group, key.index)
                }
            }
        }
    }

    /// What was released while the segment was rewritten, as far as it is still in the new file.
    fn count_dead(
        &self,
        new: &SegmentFile,
        moves: &Moves,
        released: &[(GroupId, Released)],
        stats: &mut SegmentStats,
    ) -> Result<()> {
        if released.is_empty() {
            return Ok(());
        }
        let moved: HashMap<(GroupId, u64), IndexRecord> = moves
            .iter()
            .filter_map(|(key, record)| Some(((key.group, key.index), (*record)?)))
            .collect();
        let mut bodies: BTreeMap<(GroupId, u64), EntryBody> = BTreeMap::new();
        for (group, released) in released {
            let entry = (*group, released.index);
            let Some(record) = moved.get(&entry) else {
                continue;
            };
            if !bodies.contains_key(&entry) {
                let (_, body) = read_frame(new, record)?;
                // One body at a time: releases come entry by entry.
                bodies.clear();
                bodies.insert(entry, EntryBody::parse(body)?);
            }
            if let Some(body) = bodies.get(&entry)
                && let Some(share) = stats.shares.get_mut(group)
            {
                share.dead += released
                    .slots
                    .clone()
                    .map(|slot| u64::from(body.slot_len(slot)))
                    .sum::<u64>();
            }
        }
        Ok(())
    }
}

/// The entry without its dead slots; `None` when nothing of it is left.
fn thin(content: Content, live: &LiveSlots) -> Option<Content> {
    let thinned = |body: EntryBody| match live {
        LiveSlots::All => Some(body),
        LiveSlots::None => None,
        LiveSlots::Some(_) => {
            let all = (0..body.slot_count()).all(|slot| live.contains(slot));
            let any = (0..body.slot_count()).any(|slot| body.has_slot(slot) && live.contains(slot));
            match (all, any) {
                (true, _) => Some(body),
                (false, true) => Some(body.thinned(|slot| live.contains(slot))),
                (false, false) => None,
            }
        }
    };
    Some(match content {
        Content::Entry { point, kind, body } => Content::Entry {
            point,
            kind,
            body: thinned(body)?,
        },
        Content::Restored {
            point,
            kind,
            import,
            body,
        } => Content::Restored {
            point,
            kind,
            import,
            body: thinned(body)?,
        },
        other => other,
    })
}

struct Rewritten {
    moves: Moves,
    stats: SegmentStats,
    kept: u64,
    removed: u64,
}

impl Rewritten {
    fn count(
        &mut self,
        key: EntryKey,
        kept: Option<&Content>,
        segment: SegmentKey,
        output: &Output,
    ) {
        let record = kept.and_then(|content| match content {
            Content::Entry { point, kind, body }
            | Content::Restored {
                point, kind, body, ..
            } => Some(IndexRecord {
                segment,
                offset: output.offset as u32,
                frame_bytes: (crate::frame::HEADER_BYTES + body.len()) as u32,
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

/// Frames on their way into a new generation.
struct Output {
    file: Arc<SegmentFile>,
    offset: u64,
    written: u64,
    headers: BytesMut,
    parts: Vec<Bytes>,
}

impl Output {
    fn new(file: Arc<SegmentFile>) -> Output {
        Output {
            file,
            offset: 0,
            written: 0,
            headers: BytesMut::new(),
            parts: Vec::new(),
        }
    }

    fn put(&mut self, header: &FrameHeader, content: Content) -> Result<()> {
        let frame = Frame {
            group: header.group,
            round: header.round,
            durable: header.durable,
            content,
        };
        let place = Position {
            segment: self.file.key.id,
            offset: self.offset as u32,
        };
        self.offset += frame.put(place, &mut self.headers, &mut self.parts);
        if self.offset - self.written >= WRITE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let slices: Vec<IoSlice<'_>> = self.parts.iter().map(|part| IoSlice::new(part)).collect();
        self.file
            .file
            .write_at(self.written, &slices)
            .map_err(StorageError::io("write", &self.file.path))?;
        self.parts.clear();
        self.written = self.offset;
        Ok(())
    }
}
