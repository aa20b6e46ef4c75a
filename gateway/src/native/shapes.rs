//! Where the parts of this protocol's messages are.

use tonic::Code;

use super::protocol::{
    ConsumeRequest, ConsumeResponse, ListenRequest, ListenResponse, PublishRequest,
    PublishResponse, ReplyBatch, RequestBatch, SendRequest, SendResponse, ServeRequest,
    ServeResponse, SignalRequest, SignalResponse, SubscribeRequest, SubscribeResponse,
};
use crate::transport::codec::{Layout, Shape};

const FLAT: &Layout = &Layout::FLAT;

/// Of fields with messages that have nothing but flat ones.
const fn of(messages: &'static [(u32, &'static Layout)]) -> Layout {
    Layout {
        messages,
        numbers: &[],
    }
}

macro_rules! requests {
    ($($message:ty: $layout:expr),* $(,)?) => {
        $(impl Shape for $message {
            const LAYOUT: Layout = $layout;
            const MALFORMED: Code = Code::InvalidArgument;
        })*
    };
}

requests!(
    PublishRequest: of(&[(4, FLAT)]),
    SendRequest: of(&[(4, FLAT)]),
    SignalRequest: of(&[(4, FLAT)]),
    SubscribeRequest: Layout::FLAT,
    ListenRequest: Layout::FLAT,
    ConsumeRequest: of(&[
        (1, FLAT),
        (2, &Layout { messages: &[], numbers: &[6] }),
        (3, FLAT),
    ]),
    RequestBatch: of(&[(1, &of(&[(5, FLAT)]))]),
    ServeRequest: of(&[(2, &of(&[(2, FLAT)]))]),
);

macro_rules! responses {
    ($($message:ty),* $(,)?) => { $(impl Shape for $message {})* };
}

// The server makes them within bounds of its own; a client believes it.
responses!(
    PublishResponse,
    SendResponse,
    SignalResponse,
    SubscribeResponse,
    ListenResponse,
    ConsumeResponse,
    ReplyBatch,
    ServeResponse,
);

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::native::protocol::consume_request::{Lease, Settle};
    use crate::native::protocol::request_batch::Item;
    use crate::native::protocol::{Record, Tag};
    use crate::transport::codec::Parts;

    fn a_record(tags: usize) -> Record {
        Record {
            tags: vec![Tag::default(); tags],
            ..Record::default()
        }
    }

    #[test]
    fn records_and_their_tags_are_counted_wherever_they_are() {
        let request = PublishRequest {
            topic: "t".to_owned(),
            records: vec![a_record(3), a_record(0)],
            ..PublishRequest::default()
        };
        let parts = Parts::of::<PublishRequest>(&request.encode_to_vec());
        assert_eq!((parts.messages, parts.all), (2, 1 + 2 + 3));
        let requests = RequestBatch {
            requests: vec![Item {
                request: 1,
                record: Some(a_record(5)),
                ..Item::default()
            }],
        };
        let parts = Parts::of::<RequestBatch>(&requests.encode_to_vec());
        assert_eq!((parts.messages, parts.all), (2, 1 + 2 + 5));
    }

    #[test]
    fn packed_sequences_are_counted() {
        let request = ConsumeRequest {
            leases: vec![Lease::default(); 2],
            settles: vec![Settle {
                sequences: vec![1; 100],
                ..Settle::default()
            }],
            ..ConsumeRequest::default()
        };
        let parts = Parts::of::<ConsumeRequest>(&request.encode_to_vec());
        assert_eq!((parts.messages, parts.all), (3, 3 + 1 + 100));
    }
}
