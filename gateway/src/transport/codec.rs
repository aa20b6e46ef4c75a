//! Decoding within bounds: a small request must not become a large one in memory.
//!
//! A part of a request that takes two bytes on the wire, an empty message in a batch or a tag, can
//! take hundreds once it is decoded. So the parts are counted on the wire first, and a request
//! with more of them than any client has use for is refused before anything is made of it.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tonic_prost::ProstDecoder;

/// Messages in one request at most.
pub const MESSAGES_MAX: usize = 65_536;
/// Fields, tags and sequences in one request at most, those of its messages included.
pub const PARTS_MAX: usize = 1024 * 1024;

/// Which fields of a message can hold parts of their own.
pub struct Layout {
    /// Those with messages, and what these can hold.
    pub messages: &'static [(u32, &'static Layout)],
    /// Those with packed numbers.
    pub numbers: &'static [u32],
}

impl Layout {
    /// No field can.
    pub const FLAT: Self = Self {
        messages: &[],
        numbers: &[],
    };
}

/// What is known of a message of a protocol before it is decoded.
pub trait Shape {
    /// Where its parts are.
    const LAYOUT: Layout = Layout::FLAT;
    /// What the client hears whose bytes are not such a message.
    const MALFORMED: Code = Code::Internal;
}

/// The codec of every call.
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Shape + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = RoomyEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        RoomyEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstDecoder::new(BufferSettings::default()))
    }
}

/// Makes room for a whole message at once, instead of copying a large one again and again.
pub struct RoomyEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for RoomyEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// Counts the parts of a message before it decodes it.
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default + Shape> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let parts = Parts::of::<U>(buffer.chunk());
        if parts.messages > MESSAGES_MAX {
            return Err(Status::out_of_range(format!(
                "the request has more than {MESSAGES_MAX} messages"
            )));
        }
        if parts.all > PARTS_MAX {
            return Err(Status::out_of_range(format!(
                "the request has more than {PARTS_MAX} fields, tags and sequences"
            )));
        }
        let malformed = |status: Status| Status::new(U::MALFORMED, status.message());
        self.0.decode(buffer).map_err(malformed)
    }
}

/// How many parts a request has, as far as they were counted.
#[derive(Default)]
pub struct Parts {
    pub messages: usize,
    pub all: usize,
}

impl Parts {
    /// Malformed bytes end the count: decoding will say what is wrong with them.
    pub fn of<U: Shape>(bytes: &[u8]) -> Self {
        let mut parts = Self::default();
        let _ = parts.count(bytes, &U::LAYOUT);
        parts
    }

    fn count(&mut self, mut bytes: &[u8], layout: &Layout) -> Result<(), prost::DecodeError> {
        while bytes.has_remaining() && self.messages <= MESSAGES_MAX && self.all <= PARTS_MAX {
            let (field, wire_type) = decode_key(&mut bytes)?;
            self.all += 1;
            let length = match wire_type {
                WireType::Varint => {
                    decode_varint(&mut bytes)?;
                    0
                }
                WireType::SixtyFourBit => 8,
                WireType::ThirtyTwoBit => 4,
                WireType::LengthDelimited => {
                    usize::try_from(decode_varint(&mut bytes)?).unwrap_or(usize::MAX)
                }
                // What stands between the marks of a group is counted like any other field.
                WireType::StartGroup | WireType::EndGroup => 0,
            };
            let Some((inside, rest)) = bytes.split_at_checked(length) else {
                return Ok(());
            };
            bytes = rest;
            if wire_type != WireType::LengthDelimited {
                continue;
            }
            if let Some((_, layout)) = layout.messages.iter().find(|(of, _)| *of == field) {
                self.messages += 1;
                self.count(inside, layout)?;
            } else if layout.numbers.contains(&field) {
                // Each byte may be a number of its own.
                self.all += length;
            }
        }
        Ok(())
    }
}
