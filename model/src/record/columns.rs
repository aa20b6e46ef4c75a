//! Help for records that write their columns as differences to the line before.
//!
//! Numbers take seven bits a byte: bincode's own varint takes three bytes from 251 on and five from
//! 65,536 on, and most columns are just there.

use bincode::de::{Decode, Decoder};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

/// Copies a page's lines with room for the next ones: a page is copied when it is changed, mostly by
/// adding a line, which must not copy it a second time.
pub(super) fn copy_with_room<T: Copy>(lines: &[T], most: usize) -> Vec<T> {
    const ROOM: usize = 2;
    let mut copy = Vec::with_capacity((lines.len() + ROOM).min(most).max(lines.len()));
    copy.extend_from_slice(lines);
    copy
}

/// Writes a number, the lowest bits first; a byte's highest bit says that more follow.
pub(super) fn write_number<E: Encoder>(
    encoder: &mut E,
    number: impl Into<u64>,
) -> Result<(), EncodeError> {
    let mut rest = number.into();
    let mut bytes = [0; 10];
    let mut length = 0;
    loop {
        bytes[length] = rest as u8 & 0x7f;
        rest >>= 7;
        length += 1;
        if rest == 0 {
            return encoder.writer().write(&bytes[..length]);
        }
        bytes[length - 1] |= 0x80;
    }
}

/// Reads what [`write_number`] wrote, if it fits.
pub(super) fn read_number<N: TryFrom<u64>, D: Decoder>(decoder: &mut D) -> Result<N, DecodeError> {
    let mut number: u64 = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = u8::decode(decoder)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return N::try_from(number).map_err(|_| DecodeError::Other("a number is too large"));
        }
    }
    Err(DecodeError::Other("a number does not end"))
}

/// Writes `value` as its distance from `before`, small in both directions.
pub(super) fn write_difference<E: Encoder>(
    encoder: &mut E,
    value: u64,
    before: u64,
) -> Result<(), EncodeError> {
    // Wrapping, so that any two values have a distance and any distance leads back. The sign goes
    // into the lowest bit.
    let distance = value.wrapping_sub(before) as i64;
    write_number(encoder, ((distance << 1) ^ (distance >> 63)) as u64)
}

/// Reads what [`write_difference`] wrote.
pub(super) fn read_difference<D: Decoder>(
    decoder: &mut D,
    before: u64,
) -> Result<u64, DecodeError> {
    let folded: u64 = read_number(decoder)?;
    let distance = (folded >> 1) as i64 ^ -((folded & 1) as i64);
    Ok(before.wrapping_add(distance as u64))
}

/// Writes the length of a list.
pub(super) fn write_length<E: Encoder>(encoder: &mut E, length: usize) -> Result<(), EncodeError> {
    (length as u32).encode(encoder)
}

/// The length of a list that a page bounds.
pub(super) fn read_length<D: Decoder>(decoder: &mut D, most: usize) -> Result<usize, DecodeError> {
    let length = u32::decode(decoder)? as usize;
    if length > most {
        return Err(DecodeError::Other("a page has more lines than a page can"));
    }
    Ok(length)
}
