//! Rewriting a segment that holds little of what is needed.
//!
//! A new generation is written beside the old one and gets its name when it is complete and
//! durable; then the index is pointed at it and the old one removed. Whatever step a crash comes
//! between, the next start finishes it; reads go on throughout.

mod damage;
mod output;
mod survey;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::checkpoint::{CommitState, Released};
use crate::core::Core;
use crate::error::{Result, StorageError};
use crate::frame::Content;
use crate::group::{GroupMeta, GroupTable};
use crate::log::NodeLog;
use crate::metrics::count;
use crate::read::read_frame;
use crate::records::{EntryKey, IndexRecord, Space};
use crate::retention::{LiveSlots, SegmentStats};
use crate::segment::{Scanned, Scanner, SegmentFile, SegmentKey, TEMPORARY_SUFFIX};
use crate::{EntryBody, GroupId, SegmentId};

use damage::damaged;
use output::{Output, thin};
use survey::{Moves, Rewritten};
pub(crate) use survey::{Survey, key_of, survey};

const STOPPED: &str = "the log has stopped";
const PINNED: &str = "an export reads it";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionReport {
    pub segment: SegmentId,
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub entries_kept: u64,
    pub entries_removed: u64,
}

/// What is needed of a segment's entries.
struct Needs<'a> {
    /// As the index knew them: what is purged there is purged after a crash, too.
    groups: GroupTable,
    live: &'a dyn Fn(GroupId, u64) -> LiveSlots,
}

impl Needs<'_> {
    /// Whether Raft may still ask for an entry: then it is kept whole.
    fn is_for_raft(&self, key: EntryKey) -> bool {
        let first_visible = || {
            self.groups
                .get(key.group)
                .map_or(0, GroupMeta::first_visible)
        };
        key.space == Space::Log && key.index >= first_visible()
    }
}

fn refusal(segment: SegmentId, why: &'static str) -> StorageError {
    StorageError::SegmentBusy {
        segment,
        action: "compacted",
        why,
    }
}

impl NodeLog {
    /// Rewrites one sealed segment without the slots for which `live` says no. `live` must answer
    /// as of the latest durable checkpoint of the group: a slot that a checkpoint on disk refers to
    /// is live. Entries that are not purged are kept whole; what is not live of them only counts as dead.
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
        let needs = Needs {
            // A segment is known as sealed a moment before its last entries are in the index: whoever puts them there
            // holds this all the time.
            groups: self.applier.lock().groups().clone(),
            live,
        };
        let outcome = self.rewrite(&before, &needs);
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
        let refuse = |why| Err(refusal(segment, why));
        if self.is_stopped() {
            return refuse(STOPPED);
        }
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
            return refuse(PINNED);
        }
        let before = stats.clone();
        if let Some(stats) = retention.segments.get_mut(&segment) {
            stats.busy = true;
        }
        commits.compacting.insert(segment, Vec::new());
        Ok(before)
    }

    fn rewrite(&self, before: &SegmentStats, needs: &Needs) -> Result<CompactionReport> {
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
            .ok_or_else(|| refusal(old_key.id, "its file is missing"))?;
        let file = self
            .disk
            .create(&temporary)
            .map_err(StorageError::io("create", &temporary))?;
        let new = Arc::new(SegmentFile {
            key: new_key,
            path: path.clone(),
            file,
        });
        let io = |action, path| StorageError::io(action, path);
        let written = self
            .write_live(&old, before, &new, needs)
            .and_then(|rewritten| {
                let synced = new.file.sync_data().map_err(io("sync", &temporary));
                synced.map(|()| rewritten)
            });
        let Rewritten {
            moves,
            mut stats,
            kept,
            removed,
            dead,
        } = match written {
            Ok(rewritten) => rewritten,
            Err(error) => {
                self.discard(&temporary);
                return Err(error);
            }
        };
        // No checkpoint may be committed while the counts change over.
        let commits = self.commits.lock();
        let named = self
            .released_meanwhile(&commits, before)
            .and_then(|released| self.count_dead(&new, &moves, &dead, released, &mut stats))
            .and_then(|()| self.store_dead_counts(&stats))
            .and_then(|()| {
                let renamed = self.disk.rename(&temporary, &path);
                renamed.map_err(io("rename", &temporary))
            });
        if let Err(error) = named {
            self.discard(&temporary);
            return Err(error);
        }
        // From here on the new generation is what a restart would take, with its counts.
        let bytes_after = stats.end;
        self.disk
            .sync_dir(&dir)
            .map_err(io("sync", &dir))
            .and_then(|()| self.switch(before, &new, &moves, stats))
            .map_err(|error| self.stopped_by(error))?;
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

    /// What was released while the segment was rewritten; refuses when what was written says too little, or when a
    /// restart may not know of these releases.
    fn released_meanwhile<'a>(
        &self,
        commits: &'a CommitState,
        before: &SegmentStats,
    ) -> Result<&'a Vec<(GroupId, Released)>> {
        let released = commits.compacting.get(&before.id);
        let why = if self.is_stopped() {
            STOPPED
        } else if self.retention.lock().is_pinned(before) {
            PINNED
        } else if let Some(released) = released {
            return Ok(released);
        } else {
            "the state of a group in it was replaced meanwhile"
        };
        Err(refusal(before.id, why))
    }

    /// Points everything at the new generation.
    fn switch(
        &self,
        before: &SegmentStats,
        new: &Arc<SegmentFile>,
        moves: &Moves,
        stats: SegmentStats,
    ) -> Result<()> {
        self.segments.insert(new.clone());
        {
            let mut applier = self.applier.lock();
            // All that is left of it was read and checked.
            applier.settle_segment(before.id);
            applier.move_segment(before.key(), moves, stats)?;
        }
        let groups: Vec<GroupId> = before.shares.keys().copied().collect();
        self.remove_dead_counts(before.key(), &groups)?;
        self.index.flush()
    }

    fn discard(&self, temporary: &Path) {
        if let Err(error) = self.disk.remove(temporary) {
            tracing::warn!(path = %temporary.display(), %error, "failed to remove an unfinished segment");
        }
    }

    fn write_live(
        &self,
        old: &Arc<SegmentFile>,
        before: &SegmentStats,
        new: &Arc<SegmentFile>,
        needs: &Needs,
    ) -> Result<Rewritten> {
        let end = before.end;
        let mut scanner = Scanner::new(old.clone(), end);
        let mut output = Output::new(new.clone());
        let mut rewritten = Rewritten::new(new.key);
        let mut at = 0;
        while at < end {
            let (header, content) = match scanner.frame(at)? {
                Scanned::Frame { header, content } => (header, content),
                Scanned::DamagedBody { header } if !self.is_needed(&header, at, old, needs)? => {
                    if let Some(key) = key_of(&header)
                        && self.is_current(key, old.key, at as u32)?
                    {
                        rewritten.count(key, None, new.key, output.offset);
                    }
                    at += header.stride();
                    continue;
                }
                // Damage stays where it is reported, with all that is readable around it.
                Scanned::DamagedBody { .. } => return Err(damaged(old)),
                Scanned::NoFrame => {
                    let next = scanner.next_header(at + 1)?;
                    let next = next.map_or(end, |(found, _)| found);
                    let Some(dead) = self.dead_in_gap(at..next, before, needs)? else {
                        return Err(damaged(old));
                    };
                    for key in dead {
                        rewritten.count(key, None, new.key, output.offset);
                    }
                    at = next;
                    continue;
                }
            };
            let offset = at as u32;
            at += header.stride();
            let kept = match content {
                Content::Preamble(_) => Some(content),
                Content::Entry { .. } | Content::Restored { .. } => {
                    let Some(key) = key_of(&header) else {
                        continue;
                    };
                    if !self.is_current(key, old.key, offset)? {
                        continue;
                    }
                    if needs.is_for_raft(key) {
                        rewritten.count(key, Some(&content), new.key, output.offset);
                        rewritten.count_dead(key, &content, self.live_of_state(key, needs));
                        Some(content)
                    } else {
                        let kept = thin(content, &self.live_of_state(key, needs));
                        rewritten.count(key, kept.as_ref(), new.key, output.offset);
                        kept
                    }
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
    fn live_of(&self, key: EntryKey, needs: &Needs) -> LiveSlots {
        if needs.is_for_raft(key) {
            LiveSlots::All
        } else {
            self.live_of_state(key, needs)
        }
    }

    /// What the state refers to of an entry.
    fn live_of_state(&self, key: EntryKey, needs: &Needs) -> LiveSlots {
        // Asked before the boundary: the mark goes only when that names the import, or the attempt is over.
        if let Space::Import(import) = key.space
            && self.installing.contains(key.group, import)
        {
            return LiveSlots::All;
        }
        let boundary = self.commits.boundary(key.group);
        match key.space {
            Space::Import(import) if boundary.map(|(_, current)| current) != Some(import) => {
                LiveSlots::None
            }
            Space::Log if boundary.is_some_and(|(upto, _)| key.index <= upto) => LiveSlots::None,
            _ => (needs.live)(key.group, key.index),
        }
    }

    /// What was released while the segment was rewritten, as far as it is still in the new file and was not
    /// found dead already.
    fn count_dead(
        &self,
        new: &SegmentFile,
        moves: &Moves,
        dead: &HashMap<EntryKey, LiveSlots>,
        released: &[(GroupId, Released)],
        stats: &mut SegmentStats,
    ) -> Result<()> {
        if released.is_empty() {
            return Ok(());
        }
        let moved: HashMap<EntryKey, IndexRecord> = moves
            .iter()
            .filter_map(|(key, record)| Some((*key, (*record)?)))
            .collect();
        let mut bodies: HashMap<EntryKey, EntryBody> = HashMap::new();
        for (group, released) in released {
            // Where the state has referred to since the compaction began: it gives up when that changes.
            let boundary = self.commits.boundary(*group);
            let import = boundary.filter(|(upto, _)| released.index <= *upto);
            let entry = EntryKey {
                space: import.map_or(Space::Log, |(_, import)| Space::Import(import)),
                group: *group,
                index: released.index,
            };
            let Some(record) = moved.get(&entry) else {
                continue;
            };
            if !bodies.contains_key(&entry) {
                let (_, body) = read_frame(new, record)?;
                // One body at a time: releases come entry by entry.
                bodies.clear();
                bodies.insert(entry, EntryBody::parse(body)?);
            }
            let lived = dead.get(&entry).unwrap_or(&LiveSlots::All);
            if let Some(body) = bodies.get(&entry)
                && let Some(share) = stats.shares.get_mut(group)
            {
                share.dead += released
                    .slots
                    .clone()
                    .filter(|slot| lived.contains(*slot))
                    .map(|slot| u64::from(body.slot_len(slot)))
                    .sum::<u64>();
            }
        }
        Ok(())
    }
}
