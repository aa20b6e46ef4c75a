//! Decoding within bounds: a small request must not become a large one in memory.
//!
//! A part of a request that takes two bytes on the wire, an empty message in a batch or a tag, can
//! take hundreds once it is decoded. So the parts are counted on the wire first, and a request
//! with more of them than any client has use for is refused before anything is made of it.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

use super::protocol::{
    AckAllQueueMessagesRequest, AckAllQueueMessagesResponse, Empty, Event, EventReceive,
    PingResult, QueueMessage, QueueMessagesBatchRequest, QueueMessagesBatchResponse,
    QueuesDownstreamRequest, QueuesDownstreamResponse, QueuesInfoRequest, QueuesInfoResponse,
    QueuesUpstreamRequest, QueuesUpstreamResponse, ReceiveQueueMessagesRequest,
    ReceiveQueueMessagesResponse, Request, Response, Result as EventResult, SendQueueMessageResult,
    StreamQueueMessagesRequest, StreamQueueMessagesResponse, Subscribe,
};

/// Queue messages in one request at most.
pub const MESSAGES_MAX: usize = 65_536;
/// Fields, tags and sequences in one request at most, those of its queue messages included.
const PARTS_MAX: usize = 1024 * 1024;

/// Which fields of a message can hold parts of their own.
pub trait Shape {
    /// The field with queue messages, if there is one.
    const MESSAGES: Option<u32> = None;
    /// The field with packed numbers, if there is one.
    const NUMBERS: Option<u32> = None;
}

macro_rules! flat {
    ($($message:ty),* $(,)?) => { $(impl Shape for $message {})* };
}

flat!(
    AckAllQueueMessagesRequest,
    AckAllQueueMessagesResponse,
    Empty,
    Event,
    EventReceive,
    EventResult,
    PingResult,
    QueueMessage,
    QueueMessagesBatchResponse,
    QueuesDownstreamResponse,
    QueuesInfoRequest,
    QueuesInfoResponse,
    QueuesUpstreamResponse,
    ReceiveQueueMessagesRequest,
    ReceiveQueueMessagesResponse,
    Request,
    Response,
    SendQueueMessageResult,
    StreamQueueMessagesResponse,
    Subscribe,
);

impl Shape for QueueMessagesBatchRequest {
    const MESSAGES: Option<u32> = Some(2);
}

impl Shape for QueuesUpstreamRequest {
    const MESSAGES: Option<u32> = Some(2);
}

impl Shape for StreamQueueMessagesRequest {
    const MESSAGES: Option<u32> = Some(8);
}

impl Shape for QueuesDownstreamRequest {
    const NUMBERS: Option<u32> = Some(9);
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
        self.0.decode(buffer)
    }
}

#[derive(Default)]
struct Parts {
    messages: usize,
    all: usize,
}

impl Parts {
    /// Malformed bytes end the count: decoding will say what is wrong with them.
    fn of<U: Shape>(bytes: &[u8]) -> Self {
        let mut parts = Self::default();
        let _ = parts.count(bytes, U::MESSAGES, U::NUMBERS);
        parts
    }

    fn count(
        &mut self,
        mut bytes: &[u8],
        messages: Option<u32>,
        numbers: Option<u32>,
    ) -> Result<(), prost::DecodeError> {
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
            if wire_type == WireType::LengthDelimited && messages == Some(field) {
                self.messages += 1;
                self.count(inside, None, None)?;
            } else if wire_type == WireType::LengthDelimited && numbers == Some(field) {
                // Each byte may be a number of its own.
                self.all += length;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn a_message(tags: usize) -> QueueMessage {
        QueueMessage {
            channel: "q".to_owned(),
            body: Bytes::from_static(b"b"),
            tags: (0..tags)
                .map(|number| (number.to_string(), String::new()))
                .collect(),
            ..QueueMessage::default()
        }
    }

    #[test]
    fn messages_and_their_tags_are_counted_before_they_are_decoded() {
        let request = QueuesUpstreamRequest {
            request_id: "r".to_owned(),
            messages: vec![a_message(3), a_message(0)],
        };
        let parts = Parts::of::<QueuesUpstreamRequest>(&request.encode_to_vec());
        assert_eq!(parts.messages, 2);
        // The id; the messages; a channel and a body of each; the tags.
        assert_eq!(parts.all, 1 + 2 + 2 * 2 + 3);
    }

    #[test]
    fn a_batch_of_nothing_many_times_is_recognised() {
        let bytes = [0x12, 0x00].repeat(MESSAGES_MAX + 10);
        let parts = Parts::of::<QueueMessagesBatchRequest>(&bytes);
        assert!(parts.messages > MESSAGES_MAX);
        assert!(
            parts.messages <= MESSAGES_MAX + 1,
            "counting must stop at the bound"
        );
    }

    #[test]
    fn packed_sequences_and_tags_without_end_are_recognised() {
        let request = QueuesDownstreamRequest {
            sequence_range: vec![1; PARTS_MAX + 1],
            ..QueuesDownstreamRequest::default()
        };
        let parts = Parts::of::<QueuesDownstreamRequest>(&request.encode_to_vec());
        assert!(parts.all > PARTS_MAX);
        let tags = [0x3a, 0x00].repeat(PARTS_MAX + 1);
        assert!(Parts::of::<Event>(&tags).all > PARTS_MAX);
        assert!(Parts::of::<QueueMessagesBatchRequest>(&tags).all > PARTS_MAX);
    }

    proptest! {
        /// Whatever bytes arrive, counting ends, and never at more parts than there are bytes.
        #[test]
        fn any_bytes_are_counted(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Parts::of::<QueuesUpstreamRequest>(&bytes).all <= bytes.len());
            prop_assert!(Parts::of::<QueuesDownstreamRequest>(&bytes).all <= 2 * bytes.len());
        }
    }
}
