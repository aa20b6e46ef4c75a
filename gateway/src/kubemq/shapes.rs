//! Where the parts of this protocol's messages are.

use super::protocol::{
    AckAllQueueMessagesRequest, AckAllQueueMessagesResponse, Empty, Event, EventReceive,
    PingResult, QueueMessage, QueueMessagesBatchRequest, QueueMessagesBatchResponse,
    QueuesDownstreamRequest, QueuesDownstreamResponse, QueuesInfoRequest, QueuesInfoResponse,
    QueuesUpstreamRequest, QueuesUpstreamResponse, ReceiveQueueMessagesRequest,
    ReceiveQueueMessagesResponse, Request, Response, Result as EventResult, SendQueueMessageResult,
    StreamQueueMessagesRequest, StreamQueueMessagesResponse, Subscribe,
};
use crate::transport::codec::{Layout, Shape};

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
    const LAYOUT: Layout = Layout {
        messages: &[(2, &Layout::FLAT)],
        numbers: &[],
    };
}

impl Shape for QueuesUpstreamRequest {
    const LAYOUT: Layout = QueueMessagesBatchRequest::LAYOUT;
}

impl Shape for StreamQueueMessagesRequest {
    const LAYOUT: Layout = Layout {
        messages: &[(8, &Layout::FLAT)],
        numbers: &[],
    };
}

impl Shape for QueuesDownstreamRequest {
    const LAYOUT: Layout = Layout {
        messages: &[],
        numbers: &[9],
    };
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::transport::codec::{MESSAGES_MAX, PARTS_MAX, Parts};

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
            prop_assert!(Parts::of::<StreamQueueMessagesRequest>(&bytes).all <= bytes.len());
        }
    }
}
