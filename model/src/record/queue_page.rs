//! Messages of a queue.
//!
//! Neighbours mostly came in one entry and are treated alike: a line is a byte that says which
//! columns differ from what the line before makes likely, and those columns.

use bincode::de::{BorrowDecoder, Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

use super::AttributesId;
use super::columns::{
    copy_with_room, read_difference, read_length, read_number, write_difference, write_length,
    write_number,
};
use crate::ids::{LeaseId, LogIndex, ShardTime, WallTime};
use crate::outcome::MessageRef;

/// Messages in one page.
pub const PAGE_MESSAGES: u64 = 32;

/// Messages of a queue by place within the page, ascending.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct QueuePage {
    /// The time bucket in which the earliest expiry is looked at; 0: none. In chunk 0 of delayed
    /// messages: the latest chunk of that time.
    pub armed: u64,
    /// The messages.
    pub messages: Vec<QueueMessage>,
}

/// A message in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueMessage {
    /// Its entry.
    pub index: LogIndex,
    /// Its slot there.
    pub slot: u32,
    /// How many bytes it has.
    pub bytes: u32,
    /// When it became deliverable, for display.
    pub published: WallTime,
    /// When it expires; [`NEVER`]: it does not.
    pub expires: ShardTime,
    /// The same for display.
    pub expires_wall: WallTime,
    /// Policy and origin.
    pub attributes: AttributesId,
    /// Who holds it; lease 0: nobody.
    pub lease: LeaseId,
    /// Deliveries so far.
    pub receive_count: u32,
    /// Its sequence within the page.
    pub place: u8,
}

/// The end of shard time.
pub const NEVER: ShardTime = ShardTime(u64::MAX);

impl QueueMessage {
    /// Where its bytes are.
    pub fn at(&self) -> MessageRef {
        MessageRef {
            index: self.index,
            slot: self.slot,
            bytes: self.bytes,
        }
    }

    /// Whether it must not be delivered any more.
    pub fn is_expired(&self, now: ShardTime) -> bool {
        self.expires <= now && self.expires != NEVER
    }

    /// Whether it can be leased.
    pub fn is_available(&self) -> bool {
        self.lease == LeaseId(0)
    }

    /// The line that is likely after this one.
    fn likely_next(&self) -> Self {
        Self {
            slot: self.slot.wrapping_add(1),
            place: self.place.wrapping_add(1),
            ..*self
        }
    }
}

impl Clone for QueuePage {
    fn clone(&self) -> Self {
        Self {
            armed: self.armed,
            messages: copy_with_room(&self.messages, PAGE_MESSAGES as usize),
        }
    }
}

impl QueuePage {
    /// The message at a place.
    pub fn find(&self, place: u8) -> Option<usize> {
        // Most pages are full from the front: the place is the position.
        let guess = usize::from(place);
        if self.messages.get(guess).is_some_and(|m| m.place == place) {
            return Some(guess);
        }
        self.messages.binary_search_by_key(&place, |m| m.place).ok()
    }

    pub(super) fn weight(&self) -> usize {
        self.messages.capacity() * size_of::<QueueMessage>()
    }
}

const PLACE: u8 = 1;
const INDEX: u8 = 2;
const SLOT: u8 = 4;
const BYTES: u8 = 8;
const PUBLISHED: u8 = 16;
const EXPIRY: u8 = 32;
const ATTRIBUTES: u8 = 64;
const DELIVERY: u8 = 128;

impl Encode for QueuePage {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.armed.encode(encoder)?;
        write_length(encoder, self.messages.len())?;
        let mut likely = QueueMessage::default();
        for message in &self.messages {
            let expiry = (message.expires, message.expires_wall);
            let delivery = (message.lease, message.receive_count);
            let mut differs = 0;
            for (column, is_other) in [
                (PLACE, message.place != likely.place),
                (INDEX, message.index != likely.index),
                (SLOT, message.slot != likely.slot),
                (BYTES, message.bytes != likely.bytes),
                (PUBLISHED, message.published != likely.published),
                (EXPIRY, expiry != (likely.expires, likely.expires_wall)),
                (ATTRIBUTES, message.attributes != likely.attributes),
                (DELIVERY, delivery != (likely.lease, likely.receive_count)),
            ] {
                if is_other {
                    differs |= column;
                }
            }
            differs.encode(encoder)?;
            if differs & PLACE != 0 {
                message.place.encode(encoder)?;
            }
            if differs & INDEX != 0 {
                write_difference(encoder, message.index.0, likely.index.0)?;
            }
            if differs & SLOT != 0 {
                write_number(encoder, message.slot)?;
            }
            if differs & BYTES != 0 {
                write_number(encoder, message.bytes)?;
            }
            if differs & PUBLISHED != 0 {
                write_difference(encoder, message.published.0, likely.published.0)?;
            }
            if differs & EXPIRY != 0 {
                write_difference(encoder, message.expires.0, likely.expires.0)?;
                write_difference(encoder, message.expires_wall.0, likely.expires_wall.0)?;
            }
            if differs & ATTRIBUTES != 0 {
                write_difference(encoder, message.attributes.0, likely.attributes.0)?;
            }
            if differs & DELIVERY != 0 {
                write_difference(encoder, message.lease.0, likely.lease.0)?;
                write_number(encoder, message.receive_count)?;
            }
            likely = message.likely_next();
        }
        Ok(())
    }
}

impl<Context> Decode<Context> for QueuePage {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let armed = u64::decode(decoder)?;
        let length = read_length(decoder, PAGE_MESSAGES as usize)?;
        let mut messages = Vec::with_capacity(length);
        let mut likely = QueueMessage::default();
        for _ in 0..length {
            let differs = u8::decode(decoder)?;
            let mut message = likely;
            if differs & PLACE != 0 {
                message.place = u8::decode(decoder)?;
            }
            if differs & INDEX != 0 {
                message.index = LogIndex(read_difference(decoder, likely.index.0)?);
            }
            if differs & SLOT != 0 {
                message.slot = read_number(decoder)?;
            }
            if differs & BYTES != 0 {
                message.bytes = read_number(decoder)?;
            }
            if differs & PUBLISHED != 0 {
                message.published = WallTime(read_difference(decoder, likely.published.0)?);
            }
            if differs & EXPIRY != 0 {
                message.expires = ShardTime(read_difference(decoder, likely.expires.0)?);
                message.expires_wall = WallTime(read_difference(decoder, likely.expires_wall.0)?);
            }
            if differs & ATTRIBUTES != 0 {
                message.attributes = AttributesId(read_difference(decoder, likely.attributes.0)?);
            }
            if differs & DELIVERY != 0 {
                message.lease = LeaseId(read_difference(decoder, likely.lease.0)?);
                message.receive_count = read_number(decoder)?;
            }
            likely = message.likely_next();
            messages.push(message);
        }
        Ok(Self { armed, messages })
    }
}

impl<'de, Context> bincode::BorrowDecode<'de, Context> for QueuePage {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = QueueMessage> {
        let place = 0u8..32;
        let id = (1u64..4, 0u32..40, 0u32..9);
        let times = (0u64..3, prop_oneof![Just(NEVER.0), 0u64..9], 0u64..4);
        let delivery = (0u64..2, 0u64..3, 0u32..3);
        (place, id, times, delivery).prop_map(|(place, id, times, delivery)| QueueMessage {
            place,
            index: LogIndex(id.0),
            slot: id.1,
            bytes: id.2,
            published: WallTime(times.0),
            expires: ShardTime(times.1),
            expires_wall: WallTime(times.2),
            attributes: AttributesId(delivery.0),
            lease: LeaseId(delivery.1),
            receive_count: delivery.2,
        })
    }

    proptest! {
        #[test]
        fn a_page_survives_encoding(
            armed in any::<u64>(),
            messages in proptest::collection::vec(message(), 0..32),
        ) {
            let page = QueuePage { armed, messages };
            let bytes = bincode::encode_to_vec(&page, bincode::config::standard()).unwrap();
            let (again, _): (QueuePage, usize) =
                bincode::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
            prop_assert_eq!(again, page);
        }
    }

    #[test]
    fn a_full_page_of_single_messages_stays_below_512_bytes() {
        let messages = (0..32)
            .map(|n| QueueMessage {
                place: n,
                index: LogIndex(5_000_000 + u64::from(n)),
                bytes: 1_200 + u32::from(n),
                published: WallTime(1_790_000_000_123_456_789 + u64::from(n) * 1_234_567),
                expires: NEVER,
                ..QueueMessage::default()
            })
            .collect();
        let page = QueuePage { armed: 0, messages };
        let bytes = bincode::encode_to_vec(&page, bincode::config::standard()).unwrap();
        assert!(bytes.len() < 512, "{} bytes", bytes.len());
    }
}
