//! Segment files: their names, the table of open ones, and the scanner that walks their frames.
//!
//! A segment is `NNNNNNNNNN-GGGGG.data`: its number, and a generation that compaction raises. Numbers
//! only grow; the highest one is being written, all others are sealed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;

use crate::SegmentId;
use crate::disk::DiskFile;
use crate::error::{Result, StorageError};
use crate::frame::{Content, FrameHeader, HEADER_BYTES, MAGIC, Position};

const SUFFIX: &str = ".data";
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// Bytes the scanner asks the disk for at once.
const WINDOW_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentKey {
    pub id: SegmentId,
    pub generation: u16,
}

impl SegmentKey {
    pub(crate) fn file_name(&self) -> String {
        format!("{:010}-{:05}{SUFFIX}", self.id.0, self.generation)
    }

    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.file_name())
    }

    pub(crate) fn parse(name: &str) -> Option<SegmentKey> {
        let (id, generation) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let key = SegmentKey {
            id: SegmentId(id.parse().ok()?),
            generation: generation.parse().ok()?,
        };
        (key.file_name() == name).then_some(key)
    }
}

pub(crate) struct SegmentFile {
    pub key: SegmentKey,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
}

impl SegmentFile {
    /// Exactly `bytes` from `offset`; `None` where the file ends before.
    pub(crate) fn read_exact(&self, offset: u64, bytes: usize) -> Result<Option<Bytes>> {
        let mut buffer = BytesMut::zeroed(bytes);
        let filled = self
            .file
            .read_at(offset, &mut buffer)
            .map_err(StorageError::io("read", &self.path))?;
        Ok((filled == bytes).then(|| buffer.freeze()))
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.file
            .size()
            .map_err(StorageError::io("measure", &self.path))
    }
}

/// The segments that can be read. While compaction swaps one, both generations are here.
#[derive(Default)]
pub(crate) struct SegmentTable {
    files: RwLock<BTreeMap<SegmentKey, Arc<SegmentFile>>>,
}

impl SegmentTable {
    pub(crate) fn get(&self, key: SegmentKey) -> Option<Arc<SegmentFile>> {
        self.files.read().get(&key).cloned()
    }

    pub(crate) fn insert(&self, file: Arc<SegmentFile>) {
        self.files.write().insert(file.key, file);
    }

    pub(crate) fn remove(&self, key: SegmentKey) {
        self.files.write().remove(&key);
    }
}

/// What is found at a place in a segment.
pub(crate) enum Scanned {
    Frame {
        header: FrameHeader,
        content: Content,
    },
    /// The header is whole, so the next frame's place is known; the body is not.
    DamagedBody { header: FrameHeader },
    /// No frame starts here: the end of what was written, or damage.
    NoFrame,
}

/// Walks the frames of one segment with a bounded window of memory (one frame at least).
pub(crate) struct Scanner {
    file: Arc<SegmentFile>,
    /// Nothing at or behind this offset is looked at.
    end: u64,
    window: Bytes,
    window_at: u64,
}

impl Scanner {
    pub(crate) fn new(file: Arc<SegmentFile>, end: u64) -> Scanner {
        Scanner {
            file,
            end,
            window: Bytes::new(),
            window_at: 0,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Up to `bytes` from `offset`, fewer at the end of the segment.
    fn fetch(&mut self, offset: u64, bytes: usize) -> Result<Bytes> {
        let bytes = bytes.min(self.end.saturating_sub(offset) as usize);
        let window_end = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + bytes as u64 > window_end {
            let wanted = bytes
                .max(WINDOW_BYTES)
                .min(self.end.saturating_sub(offset) as usize);
            let mut buffer = BytesMut::zeroed(wanted);
            let filled = self
                .file
                .file
                .read_at(offset, &mut buffer)
                .map_err(StorageError::io("read", &self.file.path))?;
            buffer.truncate(filled);
            self.window = buffer.freeze();
            self.window_at = offset;
        }
        let start = (offset - self.window_at) as usize;
        let stop = (start + bytes).min(self.window.len());
        Ok(self.window.slice(start.min(stop)..stop))
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<FrameHeader>> {
        let id = self.file.key.id;
        let bytes = self.fetch(offset, HEADER_BYTES)?;
        let Ok(place) = u32::try_from(offset) else {
            return Ok(None);
        };
        let place = Position {
            segment: id,
            offset: place,
        };
        match FrameHeader::parse(&bytes, place) {
            Ok(header) => Ok(Some(header)),
            // A whole frame of a newer build must not be taken for damage and cut off.
            Err(error @ StorageError::Version { .. }) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The header alone, for walks that need no bodies.
    pub(crate) fn header(&mut self, offset: u64) -> Result<Option<FrameHeader>> {
        self.header_at(offset)
    }

    pub(crate) fn frame(&mut self, offset: u64) -> Result<Scanned> {
        let Some(header) = self.header_at(offset)? else {
            return Ok(Scanned::NoFrame);
        };
        let body_bytes = header.body_bytes as usize;
        let body_at = offset + HEADER_BYTES as u64;
        if body_at + body_bytes as u64 > self.end {
            return Ok(Scanned::DamagedBody { header });
        }
        let body = self.fetch(body_at, body_bytes)?;
        if body.len() < body_bytes {
            return Ok(Scanned::DamagedBody { header });
        }
        match header.content(body) {
            Ok(content) => Ok(Scanned::Frame { header, content }),
            Err(_) => Ok(Scanned::DamagedBody { header }),
        }
    }

    /// The first place after `offset` where a whole header stands.
    pub(crate) fn next_header(&mut self, offset: u64) -> Result<Option<(u64, FrameHeader)>> {
        let mut at = offset.next_multiple_of(8);
        while at + HEADER_BYTES as u64 <= self.end {
            let window = self.fetch(at, WINDOW_BYTES)?;
            if window.len() < HEADER_BYTES {
                break;
            }
            let candidate = (0..=window.len() - MAGIC.len())
                .step_by(8)
                .find(|start| window[*start..*start + MAGIC.len()] == MAGIC);
            match candidate {
                Some(start) => {
                    at += start as u64;
                    if let Some(header) = self.header_at(at)? {
                        return Ok(Some((at, header)));
                    }
                    at += 8;
                }
                None => at += (window.len() as u64 - 1) / 8 * 8 + 8,
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_are_left_alone() {
        let key = SegmentKey {
            id: SegmentId(12),
            generation: 3,
        };
        assert_eq!(SegmentKey::parse(&key.file_name()), Some(key));
        for other in ["12-3.data", "0000000012-00003.tmp", "LOCK", "-.data"] {
            assert_eq!(SegmentKey::parse(other), None);
        }
    }
}
