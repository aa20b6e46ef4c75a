//! Walks one segment from a position to its end and says what each frame, gap or tear means.

use std::sync::Arc;

use crate::applier::{LogOp, LoggedOp};
use crate::body::SlotTable;
use crate::damage::DamagedRange;
use crate::error::Result;
use crate::frame::{Content, FrameHeader, FrameKind, HEADER_BYTES, Position};
use crate::group::SegmentPreamble;
use crate::records::Space;
use crate::segment::{Scanned, Scanner, SegmentFile};

pub(crate) struct SegmentScan {
    file: Arc<SegmentFile>,
    scanner: Scanner,
    length: u64,
    /// Everything before this offset is known to have been durable.
    proven: u64,
    /// Whether the segment's frames were searched for a proof.
    searched: bool,
    /// A later segment exists, so this one was durable to its end.
    sealed: bool,
}

#[derive(Default)]
pub(crate) struct ScanOutcome {
    pub end: u64,
    pub frames: u64,
    pub torn_bytes: u64,
    /// Anything but the preamble was found.
    pub has_content: bool,
}

impl SegmentScan {
    pub(crate) fn new(
        file: &Arc<SegmentFile>,
        known_end: Option<u64>,
        sealed: bool,
    ) -> Result<SegmentScan> {
        let length = file.len()?;
        // A compacted segment got its name when it was complete and durable.
        let known_end = match file.key.generation {
            0 => known_end,
            _ => Some(length),
        };
        Ok(SegmentScan {
            file: file.clone(),
            scanner: Scanner::new(file.clone(), length.min(known_end.unwrap_or(length))),
            length,
            proven: known_end.unwrap_or(0),
            searched: false,
            sealed,
        })
    }

    /// Calls `apply` for every frame and every damaged range, in order.
    pub(crate) fn run(
        &mut self,
        start: u64,
        mut apply: impl FnMut(LoggedOp) -> Result<()>,
    ) -> Result<ScanOutcome> {
        // Where the index had been is proven by the index.
        self.proven = self.proven.max(start);
        let mut outcome = ScanOutcome {
            end: start,
            has_content: start > self.preamble_end()?,
            ..ScanOutcome::default()
        };
        let mut at = start;
        loop {
            match self.scanner.frame(at)? {
                Scanned::Frame { header, content } => {
                    let next = at + header.stride();
                    outcome.has_content |=
                        !matches!(header.kind, FrameKind::Preamble | FrameKind::Mark);
                    outcome.frames += 1;
                    apply(self.logged(at, next, header.round, op_of(&header, content)?))?;
                    at = next;
                }
                Scanned::DamagedBody { header }
                    if self.is_proven(at)? || self.file.holds_all_of(at, &header)? =>
                {
                    let next = (at + header.stride()).min(self.scanner.end());
                    outcome.has_content = true;
                    self.damaged_frame(at, next, &header, &mut apply)?;
                    at = next;
                }
                Scanned::DamagedBody { .. } => {
                    outcome.torn_bytes = self.torn_bytes(at)?;
                    break;
                }
                Scanned::NoFrame => match self.next_after_gap(at)? {
                    Some(next) => {
                        outcome.has_content = true;
                        apply(self.gap(at, next))?;
                        at = next;
                    }
                    None => {
                        let stop = self.end_of_damage(at)?;
                        if stop == at {
                            outcome.torn_bytes = self.torn_bytes(at)?;
                            break;
                        }
                        outcome.has_content = true;
                        apply(self.gap(at, stop))?;
                        at = stop;
                    }
                },
            }
        }
        outcome.end = at;
        Ok(outcome)
    }

    /// Where the first frame behind the preamble stands; zero if that cannot be told.
    fn preamble_end(&mut self) -> Result<u64> {
        let header = self.scanner.header(0)?;
        Ok(header
            .filter(|header| header.kind == FrameKind::Preamble)
            .map_or(0, |header| header.stride()))
    }

    fn gap(&self, from: u64, to: u64) -> LoggedOp {
        let op = LogOp::Damaged {
            range: self.range(from, to, "no frame is readable here"),
            contents_unknown: true,
        };
        self.logged(from, to, 0, op)
    }

    fn range(&self, from: u64, to: u64, what: &str) -> DamagedRange {
        DamagedRange {
            segment: self.file.key.id,
            offset: from,
            bytes: to - from,
            entries: Vec::new(),
            what: what.to_owned(),
        }
    }

    fn logged(&self, at: u64, next: u64, round: u64, op: LogOp) -> LoggedOp {
        let position = |offset: u64| Position {
            segment: self.file.key.id,
            // Offsets in a segment fit 32 bits: the writer sees to it.
            offset: offset as u32,
        };
        LoggedOp {
            at: position(at),
            generation: self.file.key.generation,
            op,
            next: position(next),
            round,
        }
    }

    /// Bytes from `end` to the last one that is not zero: what a torn round left.
    fn torn_bytes(&mut self, end: u64) -> Result<u64> {
        let mut last = end;
        let mut at = end;
        while at < self.length {
            let bytes = (self.length - at).min(1 << 20) as usize;
            let Some(chunk) = self.file.read_exact(at, bytes)? else {
                break;
            };
            if let Some(position) = chunk.iter().rposition(|byte| *byte != 0) {
                last = at + position as u64 + 1;
            }
            at += bytes as u64;
        }
        Ok(last - end)
    }

    /// Whether the byte at `offset` had been durable.
    fn is_proven(&mut self, offset: u64) -> Result<bool> {
        if offset < self.proven {
            return Ok(true);
        }
        if !self.searched {
            self.search_proof(offset)?;
        }
        Ok(offset < self.proven)
    }

    /// Looks at every whole header from `offset` on for how far it says the log was durable.
    fn search_proof(&mut self, offset: u64) -> Result<()> {
        self.searched = true;
        let id = self.file.key.id;
        if self.sealed {
            // The next segment's preamble is unreadable, but a segment is left only when it is
            // durable; all that looks like a frame counts.
            self.proven = self.proven.max(self.last_header_end(offset)?);
            return Ok(());
        }
        let mut at = offset;
        while let Some((found, header)) = self.scanner.next_header(at)? {
            if header.durable.segment == id {
                self.proven = self.proven.max(u64::from(header.durable.offset));
            }
            // Step over the whole frame: payload may look like anything.
            at = (found + header.stride()).max(found + 8);
        }
        Ok(())
    }

    fn last_header_end(&mut self, offset: u64) -> Result<u64> {
        let mut end = offset;
        while let Some((found, header)) = self.scanner.next_header(end)? {
            end = (found + header.stride()).min(self.scanner.end());
            if end <= found {
                break;
            }
        }
        Ok(end)
    }

    /// Where the next frame stands, if the bytes at `offset` had been durable.
    fn next_after_gap(&mut self, offset: u64) -> Result<Option<u64>> {
        if offset >= self.scanner.end() || !self.is_proven(offset)? {
            return Ok(None);
        }
        Ok(self
            .scanner
            .next_header(offset + 1)?
            .map(|(found, _)| found)
            // Behind the proof a readable header may be a part of the torn round.
            .filter(|found| *found < self.proven || self.follows_proof(*found)))
    }

    /// Where damage at `offset` ends that no readable frame is known to follow; `offset` itself if what is
    /// there may be a torn round.
    fn end_of_damage(&mut self, offset: u64) -> Result<u64> {
        if offset < self.proven {
            return Ok(self.proven);
        }
        if offset >= self.scanner.end() || !self.file.holds_a_header(offset)? {
            return Ok(offset);
        }
        // How long the frame was is not known.
        Ok(match self.scanner.next_header(offset + 1)? {
            Some((found, _)) => found,
            None => (offset + self.torn_bytes(offset)?)
                .next_multiple_of(8)
                .min(self.scanner.end()),
        })
    }

    /// The first frame behind a proven gap may itself be unproven: it still ends the gap.
    fn follows_proof(&self, found: u64) -> bool {
        found == self.proven
    }

    fn damaged_frame(
        &mut self,
        at: u64,
        next: u64,
        header: &FrameHeader,
        apply: &mut impl FnMut(LoggedOp) -> Result<()>,
    ) -> Result<()> {
        let mut range = self.range(at, next, "a frame's body fails its checksum");
        let is_entry = matches!(header.kind, FrameKind::Entry | FrameKind::Restored);
        if is_entry {
            range.entries = vec![(header.group, header.point.index..=header.point.index)];
            // It keeps its index, so that this is never given out again.
            let op = LogOp::Entry {
                group: header.group,
                space: space_of(header),
                point: header.point,
                kind: header.entry_kind,
                frame_bytes: header.frame_bytes() as u32,
                payload_bytes: self.payload_bytes(at, header)?,
            };
            apply(self.logged(at, next, header.round, op))?;
        }
        let op = LogOp::Damaged {
            range,
            contents_unknown: !is_payload(header.kind),
        };
        apply(self.logged(at, next, header.round, op))
    }

    /// From the table if that is whole, else an upper bound: counting too much keeps a segment too
    /// long, counting too little would drop one too early.
    fn payload_bytes(&self, at: u64, header: &FrameHeader) -> Result<u32> {
        let body_bytes = header.body_bytes as usize;
        let table = self
            .file
            .read_exact(at + HEADER_BYTES as u64, body_bytes)?
            .and_then(|body| SlotTable::parse(&body).ok());
        Ok(table.map_or(header.body_bytes, |table| table.payload_bytes()))
    }
}

fn space_of(header: &FrameHeader) -> Space {
    match header.kind {
        FrameKind::Restored => Space::Import(header.extra),
        _ => Space::Log,
    }
}

fn op_of(header: &FrameHeader, content: Content) -> Result<LogOp> {
    let group = header.group;
    Ok(match content {
        Content::Preamble(body) => LogOp::SegmentStarted(Some(SegmentPreamble::decode(&body)?)),
        Content::Entry { point, kind, body }
        | Content::Restored {
            point, kind, body, ..
        } => LogOp::Entry {
            group,
            space: space_of(header),
            point,
            kind,
            frame_bytes: header.frame_bytes() as u32,
            payload_bytes: body.payload_len(),
        },
        Content::Vote(vote) => LogOp::Vote(group, vote),
        Content::Committed(committed) => LogOp::Committed(group, committed),
        Content::Truncate(last_kept) => LogOp::Truncate(group, last_kept),
        Content::Purge(upto) => LogOp::Purge(group, upto),
        Content::Mark => LogOp::Mark,
    })
}

/// Frames that say what they hold even though their body is damaged.
fn is_payload(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::Entry | FrameKind::Restored | FrameKind::Mark | FrameKind::Committed
    )
}
