//! Turns operations into frames, segment by segment.

use std::sync::Arc;

use bytes::Bytes;

use super::{Op, Stored, Writer};
use crate::applier::{LogOp, LoggedOp};
use crate::error::{Result, StorageError};
use crate::frame::{Content, Frame, HEADER_BYTES, Position};
use crate::metrics::count;
use crate::records::{IndexRecord, Space};
use crate::segment::SegmentFile;
use crate::{GroupId, LogEntry, SegmentId};

impl Writer {
    pub(super) fn put_op(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Entries {
                group,
                first_id,
                entries,
            } => {
                for (id, entry) in (*first_id..).zip(entries) {
                    let content = Content::Entry {
                        point: entry.point(),
                        kind: entry.kind,
                        body: entry.body.clone(),
                    };
                    let record = self.put_entry(*group, Space::Log, entry, content)?;
                    self.groups.get_mut(*group).last = Some(entry.point());
                    self.stored.push(Stored {
                        group: *group,
                        index: entry.index,
                        id,
                        record,
                    });
                }
                count(&self.core.metrics.entries, entries.len() as u64);
            }
            Op::Restored {
                group,
                import,
                entries,
            } => {
                for entry in entries {
                    let content = Content::Restored {
                        point: entry.point(),
                        kind: entry.kind,
                        import: *import,
                        body: entry.body.clone(),
                    };
                    self.put_entry(*group, Space::Import(*import), entry, content)?;
                }
            }
            Op::Vote { group, vote } => {
                let op = LogOp::Vote(*group, vote.clone());
                self.put(*group, Content::Vote(vote.clone()), op)?;
                self.groups.get_mut(*group).vote = Some(vote.clone());
            }
            Op::Truncate { group, last_kept } => {
                let op = LogOp::Truncate(*group, *last_kept);
                self.put(*group, Content::Truncate(*last_kept), op)?;
                let meta = self.groups.get_mut(*group);
                meta.last = last_kept.or(meta.purged);
            }
            Op::Purge { group, upto } => {
                let op = LogOp::Purge(*group, *upto);
                self.put(*group, Content::Purge(*upto), op)?;
                self.groups.get_mut(*group).purge(*upto);
            }
            Op::Healed { group } => {
                self.groups.get_mut(*group).suspect = false;
                let at = self.position();
                // No frame says so: segments that are begun from now on do, and until then the index.
                // A start that has neither finds the group suspect once more, which is safe.
                self.logged.push(LoggedOp {
                    at,
                    generation: self.segment.key.generation,
                    op: LogOp::Healed(*group),
                    next: at,
                    round: self.round,
                });
            }
            Op::Rotate => {
                if self.offset > self.first_frame_at {
                    self.rotate()?;
                }
            }
            Op::Sync => {}
        }
        Ok(())
    }

    pub(super) fn put_hints(&mut self, hints: Vec<(GroupId, Bytes)>) -> Result<()> {
        for (group, committed) in hints {
            let op = LogOp::Committed(group, committed.clone());
            self.put(group, Content::Committed(committed.clone()), op)?;
            self.groups.get_mut(group).committed = Some(committed);
        }
        Ok(())
    }

    fn put_entry(
        &mut self,
        group: GroupId,
        space: Space,
        entry: &LogEntry,
        content: Content,
    ) -> Result<IndexRecord> {
        let op = LogOp::Entry {
            group,
            space,
            point: entry.point(),
            kind: entry.kind,
            frame_bytes: (HEADER_BYTES + entry.body.len()) as u32,
            payload_bytes: entry.body.payload_len(),
        };
        let place = self.put(group, content, op)?;
        Ok(IndexRecord {
            segment: self.segment.key,
            offset: place.offset,
            frame_bytes: (HEADER_BYTES + entry.body.len()) as u32,
            kind: entry.kind,
            term: entry.term,
            leader: entry.leader,
            payload_bytes: entry.body.payload_len(),
        })
    }

    pub(super) fn put(&mut self, group: GroupId, content: Content, op: LogOp) -> Result<Position> {
        let mut frame = Frame {
            group,
            round: self.round,
            durable: self.durable,
            content,
        };
        if self.offset + frame.stride() > self.core.config.segment_bytes
            && self.offset > self.first_frame_at
        {
            self.rotate()?;
            frame.durable = self.durable;
        }
        Ok(self.put_frame(&frame, op))
    }

    fn put_frame(&mut self, frame: &Frame, op: LogOp) -> Position {
        let place = self.position();
        self.offset += frame.put(place, &mut self.headers, &mut self.parts);
        self.logged.push(LoggedOp {
            at: place,
            generation: self.segment.key.generation,
            op,
            next: self.position(),
            round: self.round,
        });
        place
    }

    pub(super) fn position(&self) -> Position {
        Position {
            segment: self.segment.key.id,
            // A segment holds at most its own bound or one entry, both below 4 GiB.
            offset: self.offset as u32,
        }
    }

    /// Seals the open segment, durable to its end, and goes on in the next one.
    fn rotate(&mut self) -> Result<()> {
        self.write_parts()?;
        self.sync()?;
        let next = self.core.preparer.take(self.next_segment_id()?)?;
        let sealed = std::mem::replace(&mut self.segment, next.clone());
        let at = Position {
            segment: sealed.key.id,
            offset: self.offset as u32,
        };
        self.logged.push(LoggedOp {
            at,
            generation: sealed.key.generation,
            op: LogOp::SegmentEnded { end: self.offset },
            next: Position {
                segment: next.key.id,
                offset: 0,
            },
            round: self.round,
        });
        self.core.preparer.trim(sealed, self.offset);
        self.enter(next);
        Ok(())
    }

    fn next_segment_id(&self) -> Result<SegmentId> {
        self.segment
            .key
            .id
            .0
            .checked_add(1)
            .map(SegmentId)
            .ok_or_else(|| StorageError::Failed {
                reason: "segment numbers are used up".to_owned(),
            })
    }

    pub(super) fn enter(&mut self, segment: Arc<SegmentFile>) {
        self.segment = segment.clone();
        self.core.segments.insert(segment);
        self.offset = 0;
        self.parts_at = 0;
        let preamble = self.groups.preamble(self.core.commits_durable());
        let frame = Frame {
            group: GroupId(0),
            round: self.round,
            durable: self.durable,
            content: Content::Preamble(preamble.encode()),
        };
        self.put_frame(&frame, LogOp::SegmentStarted(None));
        self.first_frame_at = self.offset;
        if let Some(next) = self.segment.key.id.0.checked_add(1) {
            self.core.preparer.want(SegmentId(next));
        }
    }
}
