//! The frames of a rewritten segment on their way to the disk.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::EntryBody;
use crate::error::{Result, StorageError};
use crate::frame::{Content, Frame, FrameHeader, Position};
use crate::retention::LiveSlots;
use crate::segment::SegmentFile;

/// Rewritten frames are handed to the disk in pieces of about this size.
const WRITE_BYTES: u64 = 1 << 20;

/// The entry without its dead slots; `None` when nothing of it is left.
pub(super) fn thin(content: Content, live: &LiveSlots) -> Option<Content> {
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

/// Frames on their way into a new generation.
pub(super) struct Output {
    file: Arc<SegmentFile>,
    pub offset: u64,
    written: u64,
    headers: BytesMut,
    parts: Vec<Bytes>,
}

impl Output {
    pub(super) fn new(file: Arc<SegmentFile>) -> Output {
        Output {
            file,
            offset: 0,
            written: 0,
            headers: BytesMut::new(),
            parts: Vec::new(),
        }
    }

    pub(super) fn put(&mut self, header: &FrameHeader, content: Content) -> Result<()> {
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

    pub(super) fn write(&mut self) -> Result<()> {
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
