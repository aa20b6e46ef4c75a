//! Any bytes as the messages of any call.

use std::str::FromStr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use flotilla_gateway::kubemq::protocol::{
    Empty, Event, QueueMessage, QueueMessagePolicy, QueueMessagesBatchRequest,
    QueuesDownstreamRequest, ReceiveQueueMessagesRequest, Request, Response,
    StreamQueueMessagesRequest, Subscribe,
};
use proptest::prelude::*;
use prost::Message;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use super::{QUEUE, all_is_given_back, refill, run, soon_in};
use crate::support::{a_message, store};

/// A case that is a wait or a subscription by chance is left after this long.
const LEFT_AFTER: Duration = Duration::from_millis(60);

/// Every call, and a request that it would take.
fn calls() -> Vec<(&'static str, Vec<u8>)> {
    let event = Event {
        event_id: "1".to_owned(),
        client_id: "c".to_owned(),
        channel: "events:a;routes:k".to_owned(),
        metadata: "m".to_owned(),
        store: true,
        tags: [("k".to_owned(), "v".to_owned())].into(),
        ..Event::default()
    };
    let subscribe = |kind| Subscribe {
        subscribe_type_data: kind,
        client_id: "c".to_owned(),
        channel: "a".to_owned(),
        group: "g".to_owned(),
        ..Subscribe::default()
    };
    let replay = Subscribe {
        channel: "s".to_owned(),
        events_store_type_data: 4,
        events_store_type_value: 1,
        ..subscribe(2)
    };
    let request = Request {
        request_id: "1".to_owned(),
        request_type_data: 2,
        client_id: "c".to_owned(),
        channel: "a".to_owned(),
        metadata: "m".to_owned(),
        timeout: 20,
        cache_key: "k".to_owned(),
        cache_ttl: 1,
        span: Bytes::from_static(b"span"),
        ..Request::default()
    };
    let manage = |operation: &str| Request {
        channel: "kubemq.cluster.internal.requests".to_owned(),
        metadata: operation.to_owned(),
        tags: [
            ("channel_type".to_owned(), "queues".to_owned()),
            ("channel".to_owned(), "made".to_owned()),
        ]
        .into(),
        cache_key: String::new(),
        ..request.clone()
    };
    let response = Response {
        client_id: "c".to_owned(),
        request_id: "1".to_owned(),
        reply_channel: "1-2-3".to_owned(),
        executed: true,
        ..Response::default()
    };
    let message = QueueMessage {
        policy: Some(QueueMessagePolicy {
            max_receive_count: 3,
            max_receive_queue: "dead".to_owned(),
            ..QueueMessagePolicy::default()
        }),
        ..a_message(QUEUE, 1)
    };
    let batch = QueueMessagesBatchRequest {
        batch_id: "b".to_owned(),
        messages: vec![message.clone(), a_message("a;b", 2)],
    };
    let receive = ReceiveQueueMessagesRequest {
        request_id: "r".to_owned(),
        client_id: "c".to_owned(),
        channel: QUEUE.to_owned(),
        max_number_of_messages: 2,
        wait_time_seconds: 1,
        is_peak: false,
    };
    let transaction = StreamQueueMessagesRequest {
        request_id: "r".to_owned(),
        client_id: "c".to_owned(),
        stream_request_type_data: 1,
        channel: QUEUE.to_owned(),
        visibility_seconds: 30,
        wait_time_seconds: 1,
        modified_message: Some(message.clone()),
        ..StreamQueueMessagesRequest::default()
    };
    let downstream = QueuesDownstreamRequest {
        request_id: "r".to_owned(),
        client_id: "c".to_owned(),
        request_type_data: 1,
        channel: QUEUE.to_owned(),
        max_items: 2,
        wait_timeout: 10,
        sequence_range: vec![1, 2],
        ..QueuesDownstreamRequest::default()
    };
    vec![
        ("Ping", Vec::new()),
        ("SendEvent", event.encode_to_vec()),
        ("SendEventsStream", event.encode_to_vec()),
        ("SubscribeToEvents", subscribe(1).encode_to_vec()),
        ("SubscribeToEvents", replay.encode_to_vec()),
        ("SubscribeToRequests", subscribe(4).encode_to_vec()),
        ("SendRequest", request.encode_to_vec()),
        ("SendRequest", manage("list-channels").encode_to_vec()),
        ("SendRequest", manage("create-channel").encode_to_vec()),
        ("SendRequest", manage("delete-channel").encode_to_vec()),
        ("SendResponse", response.encode_to_vec()),
        ("SendQueueMessage", message.encode_to_vec()),
        ("SendQueueMessagesBatch", batch.encode_to_vec()),
        ("QueuesUpstream", batch.encode_to_vec()),
        ("ReceiveQueueMessages", receive.encode_to_vec()),
        ("AckAllQueueMessages", receive.encode_to_vec()),
        ("StreamQueueMessage", transaction.encode_to_vec()),
        ("QueuesDownstream", downstream.encode_to_vec()),
        ("QueuesInfo", batch.encode_to_vec()),
    ]
}

/// Passes bytes on as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, bytes: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

/// Says it, and listens for a while.
async fn say(channel: Channel, call: &str, messages: Vec<Bytes>) {
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_str(&format!("/kubemq.kubemq/{call}")).unwrap();
    let messages = tonic::Request::new(futures::stream::iter(messages));
    let listening = async {
        if let Ok(answers) = client.streaming(messages, path, Raw).await {
            let mut answers = answers.into_inner();
            while let Ok(Some(_)) = answers.message().await {}
        }
    };
    let _ = tokio::time::timeout(LEFT_AFTER, listening).await;
}

#[derive(Clone, Debug)]
enum Bytewise {
    /// A right request with some bytes changed, and its end cut off.
    Bent(Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>),
    Anything(Vec<u8>),
}

fn a_message_of_bytes() -> impl Strategy<Value = Bytewise> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    prop_oneof![
        3 => (prop::collection::vec(change, 0..4), prop::option::weighted(0.3, any::<prop::sample::Index>()))
            .prop_map(|(changes, cut)| Bytewise::Bent(changes, cut)),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Bytewise::Anything),
    ]
}

impl Bytewise {
    fn of(self, right: &[u8]) -> Bytes {
        let (changes, cut) = match self {
            Self::Anything(bytes) => return bytes.into(),
            Self::Bent(changes, cut) => (changes, cut),
        };
        let mut bytes = right.to_vec();
        if !bytes.is_empty() {
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        }
        bytes.into()
    }
}

#[test]
fn any_bytes_on_any_call_are_answered_or_refused_and_leave_nothing_behind() {
    let calls = calls();
    let strategy = (
        prop::sample::select(calls),
        prop::collection::vec(a_message_of_bytes(), 1..4),
    );
    run(500, &strategy, |runtime, gateway| {
        let mut client = runtime.block_on(gateway.client());
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{}", gateway.address));
        let channel = runtime.block_on(endpoint.unwrap().connect()).unwrap();
        runtime.block_on(store(&mut client, "s", 20));
        move |((call, right), messages)| {
            soon_in(&runtime, refill(&gateway, &mut client.clone()));
            let messages = messages.into_iter().map(|one| one.of(&right)).collect();
            soon_in(&runtime, say(channel.clone(), call, messages));
            // Neither the connection nor the server minds.
            let mut client = client.clone();
            soon_in(&runtime, client.ping(Empty {})).unwrap();
            soon_in(&runtime, all_is_given_back(&gateway));
        }
    });
}
