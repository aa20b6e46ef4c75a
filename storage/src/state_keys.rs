//! Keys and values of the state tree.
//!
//! A record's value may be of any size; sled's may not (large ones go to files it never syncs). So a
//! value is stored in pieces of at most 480 bytes. The key is escaped and ended, so that a shorter
//! key never runs into the piece number of another, and order and prefixes stay what they were.

use bytes::{Bytes, BytesMut};
use crc32c::crc32c;

use crate::error::{Result, StorageError};
use crate::segment::SegmentKey;
use crate::sled_guard::guarded;
use crate::{GroupId, SegmentId};

const PIECE_BYTES: usize = 480;
pub(crate) const KEY_BYTES_MAX: usize = 64;

pub(crate) const COMMITS_KEY: &[u8] = b"c";
pub(crate) const GROUP_PREFIX: &[u8] = b"a";
pub(crate) const DEAD_PREFIX: &[u8] = b"d";
pub(crate) const UNDO_PREFIX: &[u8] = b"u";
pub(crate) const RECORD_PREFIX: &[u8] = b"r";

const WHOLE: u8 = 0;
const IN_PIECES: u8 = 1;

pub(crate) fn group_key(group: GroupId) -> Vec<u8> {
    [GROUP_PREFIX, &group.0.to_be_bytes()].concat()
}

/// Prefix of all state records of a group in one epoch.
pub(crate) fn records_prefix(group: GroupId, epoch: u32) -> Vec<u8> {
    [RECORD_PREFIX, &group.0.to_be_bytes(), &epoch.to_be_bytes()].concat()
}

/// Prefix of the records that an export saved before they were changed.
pub(crate) fn undo_prefix(export: u32) -> Vec<u8> {
    [UNDO_PREFIX, &export.to_be_bytes()].concat()
}

/// Where a group's applied position is stored, in pieces like a record.
pub(crate) fn applied_prefix(group: GroupId, epoch: u32) -> Vec<u8> {
    [b"b", &group.0.to_be_bytes()[..], &epoch.to_be_bytes()].concat()
}

pub(crate) fn dead_key(segment: SegmentKey, group: GroupId) -> Vec<u8> {
    [
        DEAD_PREFIX,
        &segment.id.0.to_be_bytes(),
        &segment.generation.to_be_bytes(),
        &group.0.to_be_bytes(),
    ]
    .concat()
}

pub(crate) fn parse_dead_key(key: &[u8]) -> Option<(SegmentKey, GroupId)> {
    let segment = SegmentKey {
        id: SegmentId(u32::from_be_bytes(key.get(1..5)?.try_into().ok()?)),
        generation: u16::from_be_bytes(key.get(5..7)?.try_into().ok()?),
    };
    let group = u32::from_be_bytes(key.get(7..11)?.try_into().ok()?);
    Some((segment, GroupId(group)))
}

/// Appends the escaped form: a zero byte becomes 0x00 0xFF.
fn escape(out: &mut Vec<u8>, key: &[u8]) {
    for byte in key {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xFF);
        }
    }
}

/// The stored key of a record's first piece.
pub(crate) fn record_key(prefix: &[u8], key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(prefix.len() + key.len() + 4);
    out.extend_from_slice(prefix);
    escape(&mut out, key);
    out.extend_from_slice(&[0, 0]);
    out
}

/// What all stored keys of records whose key starts with `key` start with.
pub(crate) fn scan_prefix(prefix: &[u8], key: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    escape(&mut out, key);
    out
}

fn piece_key(first: &[u8], number: u32) -> Vec<u8> {
    [first, &number.to_be_bytes()].concat()
}

/// The record's key from a stored key, and whether it is the first piece.
pub(crate) fn parse_record_key(prefix_bytes: usize, stored: &[u8]) -> Result<(Vec<u8>, bool)> {
    let malformed = || StorageError::InvalidRecord {
        what: "state record key",
    };
    let mut rest = stored.get(prefix_bytes..).ok_or_else(malformed)?.iter();
    let mut key = Vec::new();
    loop {
        match rest.next().ok_or_else(malformed)? {
            0 => match rest.next().ok_or_else(malformed)? {
                0xFF => key.push(0),
                0 => return Ok((key, rest.len() == 0)),
                _ => return Err(malformed()),
            },
            byte => key.push(*byte),
        }
    }
}

/// How many pieces the stored value of a first piece says the record has.
fn piece_count(first: &[u8]) -> Result<u32> {
    let malformed = StorageError::InvalidRecord {
        what: "state record",
    };
    match first.split_first() {
        Some((&WHOLE, _)) => Ok(1),
        Some((&IN_PIECES, rest)) => match rest.first_chunk::<4>() {
            Some(count) => Ok(u32::from_le_bytes(*count)),
            None => Err(malformed),
        },
        _ => Err(malformed),
    }
}

/// The changes that store `value` (or remove the record), including the pieces of an older value
/// that would stay behind.
pub(crate) fn put(
    tree: &sled::Tree,
    prefix: &[u8],
    key: &[u8],
    value: Option<&[u8]>,
    changes: &mut Vec<(Vec<u8>, Option<Vec<u8>>)>,
) -> Result<()> {
    let first = record_key(prefix, key);
    let old_pieces = match guarded("read a state record", || tree.get(&first))? {
        Some(old) => piece_count(&old)?,
        None => 0,
    };
    let pieces = match value {
        None => 0,
        Some(value) if value.len() <= PIECE_BYTES => {
            let mut stored = Vec::with_capacity(value.len() + 1);
            stored.push(WHOLE);
            stored.extend_from_slice(value);
            changes.push((first.clone(), Some(stored)));
            1
        }
        Some(value) => {
            let count = value.len().div_ceil(PIECE_BYTES) as u32;
            let mut chunks = value.chunks(PIECE_BYTES);
            let mut stored = vec![IN_PIECES];
            stored.extend_from_slice(&count.to_le_bytes());
            // Tells pieces of one value from those of its successor.
            stored.extend_from_slice(&crc32c(value).to_le_bytes());
            stored.extend_from_slice(chunks.next().unwrap_or_default());
            changes.push((first.clone(), Some(stored)));
            for (number, chunk) in (1..).zip(chunks) {
                changes.push((piece_key(&first, number), Some(chunk.to_vec())));
            }
            count
        }
    };
    for number in pieces..old_pieces {
        let stale = if number == 0 {
            first.clone()
        } else {
            piece_key(&first, number)
        };
        changes.push((stale, None));
    }
    Ok(())
}

pub(crate) fn get(tree: &sled::Tree, prefix: &[u8], key: &[u8]) -> Result<Option<Bytes>> {
    let first = record_key(prefix, key);
    // The pieces of one record may be replaced between two reads of them: then read again.
    for _ in 0..8 {
        let Some(stored) = guarded("read a state record", || tree.get(&first))? else {
            return Ok(None);
        };
        if let Some(value) = assemble(tree, &first, &stored)? {
            return Ok(Some(value));
        }
    }
    Err(StorageError::InvalidRecord {
        what: "state record: a piece is missing",
    })
}

/// `None` when a piece is missing or belongs to another value.
pub(crate) fn assemble(tree: &sled::Tree, first_key: &[u8], first: &[u8]) -> Result<Option<Bytes>> {
    let count = piece_count(first)?;
    if count <= 1 {
        return Ok(Some(Bytes::copy_from_slice(&first[1..])));
    }
    let (Some(crc), Some(start)) = (first.get(5..9), first.get(9..)) else {
        return Err(StorageError::InvalidRecord {
            what: "state record",
        });
    };
    let mut value = BytesMut::from(start);
    for number in 1..count {
        let key = piece_key(first_key, number);
        match guarded("read a state record", || tree.get(&key))? {
            Some(piece) => value.extend_from_slice(&piece),
            None => return Ok(None),
        }
    }
    let matches = crc32c(&value).to_le_bytes() == crc;
    Ok(matches.then(|| value.freeze()))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stored_keys_keep_order_and_read_back(left in vec(0u8..3, 0..6), right in vec(0u8..3, 0..6)) {
            let (stored_left, stored_right) = (record_key(b"p", &left), record_key(b"p", &right));
            prop_assert_eq!(stored_left.cmp(&stored_right), left.cmp(&right));
            prop_assert_eq!(parse_record_key(1, &stored_left).unwrap(), (left.clone(), true));
            let piece = piece_key(&stored_left, 7);
            prop_assert_eq!(parse_record_key(1, &piece).unwrap(), (left.clone(), false));
            // A piece stays between its record and any later one.
            if left < right {
                prop_assert!(piece < stored_right);
            }
            prop_assert_eq!(
                stored_right.starts_with(&scan_prefix(b"p", &left)),
                right.starts_with(&left)
            );
        }
    }
}
