//! Whether a frame that fails its checksum was torn by a crash, or was whole and has been damaged since.
//!
//! Nothing proves that the last round before a crash was durable, but what it left does tell something. A
//! segment is zeros before it is written, and a disk writes sectors: of a frame that was written in part, a
//! sector or the end is still zeros. A frame without such a hole was written to its end, and if it does not
//! check, its bytes changed later. It may have been acknowledged, so it is damage, and not a tail to cut.
//! A payload that holds a sector of zeros, or ends with zeros, cannot be told apart and counts as torn.

use crate::error::Result;
use crate::frame::{FrameHeader, HEADER_BYTES, MAGIC};
use crate::segment::SegmentFile;

/// Disks write at least so much at once.
const SECTOR_BYTES: u64 = 512;
/// As many zeros at the end of a frame may be an end that was not written.
const END_BYTES: usize = 8;
/// A header without the zeros at its end.
const HEADER_FIELDS_BYTES: usize = HEADER_BYTES - 4;
/// Of the first five bytes of a header, which are always the same, so many are in one that is damaged.
const HEADER_SIGNS_MIN: usize = 3;
/// The version of frames, behind the magic.
const HEADER_SIGNS: [u8; 5] = [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], FrameHeader::VERSION];

impl SegmentFile {
    /// Whether all of a frame was written at `at`, from what its header says of it.
    pub(crate) fn holds_all_of(&self, at: u64, header: &FrameHeader) -> Result<bool> {
        let bytes = self.read_exact(at, header.frame_bytes() as usize)?;
        Ok(bytes.is_some_and(|bytes| has_no_hole(at, &bytes)))
    }

    /// Whether a whole header was written at `at`, though it does not check.
    pub(crate) fn holds_a_header(&self, at: u64) -> Result<bool> {
        let Some(bytes) = self.read_exact(at, HEADER_FIELDS_BYTES)? else {
            return Ok(false);
        };
        let pairs = bytes.iter().zip(HEADER_SIGNS);
        let signs = pairs.filter(|(found, wanted)| *found == wanted).count();
        Ok(signs >= HEADER_SIGNS_MIN && has_no_hole(at, &bytes))
    }
}

/// Whether every sector of a range has something in it, and so has its end.
fn has_no_hole(at: u64, bytes: &[u8]) -> bool {
    let is_zeros = |part: &[u8]| part.iter().all(|byte| *byte == 0);
    let to_sector = (at.next_multiple_of(SECTOR_BYTES) - at).min(bytes.len() as u64) as usize;
    let (head, rest) = bytes.split_at(to_sector);
    let end = &bytes[bytes.len().saturating_sub(END_BYTES)..];
    let mut sectors = rest.chunks(SECTOR_BYTES as usize);
    (head.is_empty() || !is_zeros(head)) && !sectors.any(is_zeros) && !is_zeros(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_of_zeros_or_an_end_of_zeros_is_a_hole() {
        let whole = vec![1u8; 2000];
        assert!(has_no_hole(100, &whole));
        let hole = |range: std::ops::Range<usize>| {
            let mut bytes = whole.clone();
            bytes[range].fill(0);
            !has_no_hole(100, &bytes)
        };
        // Sectors begin at 412, 924 and 1436 bytes of it.
        assert!(hole(0..412));
        assert!(hole(412..924));
        assert!(hole(1436..1948));
        assert!(hole(1948..2000));
        assert!(hole(1992..2000));
        // As large, but no sector.
        assert!(!hole(300..812));
        assert!(!hole(0..411));
        assert!(!hole(1991..1999));
        assert!(!has_no_hole(512, &[]));
    }
}
