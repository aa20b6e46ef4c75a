//! Index records of a topic, which say where its messages are.
//!
//! Offsets and records are dense, so a page writes its first line in full and the rest as
//! differences: about ten bytes a record.

use bincode::de::{BorrowDecoder, Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

use super::columns::{
    copy_with_room, read_difference, read_length, read_number, write_difference, write_length,
    write_number,
};
use crate::ids::{LogIndex, Offset, ShardTime, WallTime};

/// Index records in one page.
pub const PAGE_RECORDS: u64 = 32;

/// Neighbouring index records, ascending by offset. Dropped ones stay until all of the page are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TopicPage {
    /// The records.
    pub records: Vec<TopicRecord>,
}

/// Neighbouring messages of a topic in neighbouring slots of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicRecord {
    /// The offset of the first message.
    pub first: Offset,
    /// The entry.
    pub index: LogIndex,
    /// The slot of the first message.
    pub first_slot: u32,
    /// How many messages.
    pub count: u32,
    /// Their bytes.
    pub bytes: u64,
    /// When they came, for display.
    pub wall: WallTime,
    /// When they came, for retention.
    pub at: ShardTime,
}

impl TopicRecord {
    /// The offset after the last message.
    pub fn end(&self) -> Offset {
        Offset(self.first.0 + u64::from(self.count))
    }
}

impl Clone for TopicPage {
    fn clone(&self) -> Self {
        Self {
            records: copy_with_room(&self.records, PAGE_RECORDS as usize),
        }
    }
}

impl TopicPage {
    pub(super) fn weight(&self) -> usize {
        self.records.capacity() * size_of::<TopicRecord>()
    }
}

impl Encode for TopicPage {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        write_length(encoder, self.records.len())?;
        let mut before = (0, 0, 0, 0, 0);
        for record in &self.records {
            let (offset, index, slot, wall, at) = before;
            write_difference(encoder, record.first.0, offset)?;
            write_difference(encoder, record.index.0, index)?;
            // Within one entry the next record begins where the last one ended.
            let slot = if record.index.0 == index { slot } else { 0 };
            write_difference(encoder, u64::from(record.first_slot), slot)?;
            write_number(encoder, record.count)?;
            write_number(encoder, record.bytes)?;
            write_difference(encoder, record.wall.0, wall)?;
            write_difference(encoder, record.at.0, at)?;
            before = (
                record.end().0,
                record.index.0,
                u64::from(record.first_slot) + u64::from(record.count),
                record.wall.0,
                record.at.0,
            );
        }
        Ok(())
    }
}

impl<Context> Decode<Context> for TopicPage {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let length = read_length(decoder, PAGE_RECORDS as usize)?;
        let mut records = Vec::with_capacity(length);
        let mut before = (0, 0, 0, 0, 0);
        for _ in 0..length {
            let (offset, index, slot, wall, at) = before;
            let offset = read_difference(decoder, offset)?;
            let entry = read_difference(decoder, index)?;
            let slot = if entry == index { slot } else { 0 };
            let first_slot = u32::try_from(read_difference(decoder, slot)?)
                .map_err(|_| DecodeError::Other("a slot number is too large"))?;
            let count: u32 = read_number(decoder)?;
            let bytes: u64 = read_number(decoder)?;
            let record = TopicRecord {
                first: Offset(offset),
                index: LogIndex(entry),
                first_slot,
                count,
                bytes,
                wall: WallTime(read_difference(decoder, wall)?),
                at: ShardTime(read_difference(decoder, at)?),
            };
            let Some(end) = offset.checked_add(u64::from(count)) else {
                return Err(DecodeError::Other(
                    "an index record ends beyond the last offset",
                ));
            };
            before = (
                end,
                entry,
                u64::from(first_slot) + u64::from(count),
                record.wall.0,
                record.at.0,
            );
            records.push(record);
        }
        Ok(Self { records })
    }
}

impl<'de, Context> bincode::BorrowDecode<'de, Context> for TopicPage {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_of_a_busy_topic_stays_below_512_bytes() {
        let records: Vec<TopicRecord> = (0..PAGE_RECORDS)
            .map(|n| TopicRecord {
                first: Offset(1_000_000_007 + n * 900),
                index: LogIndex(77_000_000 + n * 3),
                first_slot: 1_000,
                count: 900,
                bytes: 921_600,
                wall: WallTime(1_790_000_000_123_456_789 + n * 15_123_456),
                at: ShardTime(1_790_000_000_123 + n * 15),
            })
            .collect();
        let page = TopicPage { records };
        let bytes = bincode::encode_to_vec(&page, bincode::config::standard()).unwrap();
        assert!(bytes.len() < 512, "{} bytes", bytes.len());
        let (again, _): (TopicPage, usize) =
            bincode::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
        assert_eq!(again, page);
    }
}
