//! What the tests say to a gateway.

use std::net::SocketAddr;

use bytes::Bytes;
use flotilla_gateway::kubemq::protocol::kubemq_client::KubemqClient;
use flotilla_gateway::kubemq::protocol::{
    Event, EventReceive, QueueMessage, QueuesDownstreamRequest, QueuesDownstreamRequestType,
    QueuesDownstreamResponse, StreamQueueMessagesRequest, StreamQueueMessagesResponse,
    StreamRequestType, Subscribe,
};
use flotilla_model::name::Name;
use futures::Stream;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::shared::tokens::with_token;
pub use crate::shared::{Gateway, soon, unique, until_held_back};

pub type Client = KubemqClient<Channel>;

impl Gateway {
    pub async fn client(&self) -> Client {
        self.client_with(|endpoint| endpoint).await
    }

    pub async fn client_with(&self, change: impl FnOnce(Endpoint) -> Endpoint) -> Client {
        connected(self.address, change).await
    }
}

/// At whatever listens there.
pub async fn client_of(address: SocketAddr) -> Client {
    connected(address, |endpoint| endpoint).await
}

async fn connected(address: SocketAddr, change: impl FnOnce(Endpoint) -> Endpoint) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = change(endpoint).connect().await.unwrap();
    KubemqClient::new(channel).max_decoding_message_size(200 << 20)
}

pub fn an_event(channel: &str, number: usize, store: bool) -> Event {
    Event {
        event_id: number.to_string(),
        client_id: "sender".to_owned(),
        channel: channel.to_owned(),
        metadata: "m".to_owned(),
        body: Bytes::from(number.to_string()),
        store,
        tags: [("k".to_owned(), "v".to_owned())].into(),
    }
}

pub fn a_message(queue: &str, number: usize) -> QueueMessage {
    QueueMessage {
        message_id: number.to_string(),
        client_id: "sender".to_owned(),
        channel: queue.to_owned(),
        body: Bytes::from(number.to_string()),
        ..QueueMessage::default()
    }
}

pub fn a_subscribe(kind: i32, channel: &str, client_id: &str) -> Subscribe {
    Subscribe {
        subscribe_type_data: kind,
        client_id: client_id.to_owned(),
        channel: channel.to_owned(),
        ..Subscribe::default()
    }
}

/// Stores events numbered from 1 on.
pub async fn store(client: &mut Client, channel: &str, count: usize) {
    let events: Vec<Event> = (1..=count)
        .map(|number| an_event(channel, number, true))
        .collect();
    let results = client
        .send_events_stream(futures::stream::iter(events))
        .await
        .unwrap();
    let mut results = results.into_inner();
    for number in 1..=count {
        let result = soon(results.message()).await.unwrap().unwrap();
        assert_eq!(result.event_id, number.to_string());
        assert!(result.sent, "{}", result.error);
    }
    assert!(soon(results.message()).await.unwrap().is_none());
}

/// Sends messages numbered from 1 on.
pub async fn fill(client: &mut Client, queue: &str, count: usize) {
    for number in 1..=count {
        let sent = client.send_queue_message(a_message(queue, number)).await;
        let sent = sent.unwrap().into_inner();
        assert!(!sent.is_error, "{}", sent.error);
    }
}

pub async fn next_event(events: &mut Streaming<EventReceive>) -> EventReceive {
    soon(events.message()).await.unwrap().unwrap()
}

pub fn bodies(messages: &[QueueMessage]) -> Vec<String> {
    messages
        .iter()
        .map(|message| String::from_utf8(message.body.to_vec()).unwrap())
        .collect()
}

pub fn sequences(messages: &[QueueMessage]) -> Vec<i64> {
    messages
        .iter()
        .map(|message| message.attributes.as_ref().unwrap().sequence as i64)
        .collect()
}

/// The number that a test's random choices follow from: its own, or one to repeat.
pub fn seed() -> u64 {
    let seed: u64 = std::env::var("FLOTILLA_TEST_SEED").map_or_else(
        |_| rand::random::<u32>().into(),
        |seed| seed.parse().expect("FLOTILLA_TEST_SEED must be a number"),
    );
    println!("FLOTILLA_TEST_SEED={seed}");
    seed
}

/// How many messages of a queue somebody holds.
pub async fn leased(gateway: &Gateway, queue: &str) -> u64 {
    let name = Name::queue(queue).unwrap();
    let detail = gateway.broker.queue(&name).await;
    detail.map_or(0, |detail| detail.leased)
}

/// A client's side of a stream; it ends when the sender is dropped.
pub fn requests<R: Send + 'static>() -> (mpsc::Sender<R>, impl Stream<Item = R> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(64);
    let stream = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|request| (request, receiver))
    });
    (sender, stream)
}

/// One downstream, its two sides in the open.
pub struct Downstream {
    client_id: String,
    requests: Option<mpsc::Sender<QueuesDownstreamRequest>>,
    responses: Streaming<QueuesDownstreamResponse>,
}

impl Downstream {
    pub async fn open(client: &mut Client) -> Self {
        Self::open_as(client, "consumer", None).await
    }

    /// As a client of this name, with a token or without.
    pub async fn open_as(client: &mut Client, client_id: &str, token: Option<&str>) -> Self {
        let (requests, stream) = requests();
        let call = match token {
            Some(token) => with_token(token, stream),
            None => Request::new(stream),
        };
        let responses = soon(client.queues_downstream(call)).await.unwrap();
        Self {
            client_id: client_id.to_owned(),
            requests: Some(requests),
            responses: responses.into_inner(),
        }
    }

    pub async fn send(&self, kind: QueuesDownstreamRequestType, request: QueuesDownstreamRequest) {
        self.send_as(kind as i32, request).await;
    }

    /// The type may be one that does not exist.
    pub async fn send_as(&self, request_type_data: i32, request: QueuesDownstreamRequest) {
        self.send_raw(QueuesDownstreamRequest {
            client_id: self.client_id.clone(),
            request_type_data,
            ..request
        })
        .await;
    }

    /// As it is.
    pub async fn send_raw(&self, request: QueuesDownstreamRequest) {
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    pub async fn answer(&mut self) -> QueuesDownstreamResponse {
        soon(self.responses.message()).await.unwrap().unwrap()
    }

    /// Gets messages that are there already.
    pub async fn get(
        &mut self,
        queue: &str,
        count: i32,
        auto_ack: bool,
    ) -> QueuesDownstreamResponse {
        self.send(
            QueuesDownstreamRequestType::Get,
            a_get(queue, count, 10_000, auto_ack),
        )
        .await;
        let answer = self.answer().await;
        assert!(!answer.is_error, "{}", answer.error);
        answer
    }

    pub async fn settle(
        &self,
        kind: QueuesDownstreamRequestType,
        transaction: &str,
        sequences: &[i64],
    ) {
        self.send(
            kind,
            QueuesDownstreamRequest {
                request_id: "settle".to_owned(),
                ref_transaction_id: transaction.to_owned(),
                sequence_range: sequences.to_vec(),
                ..QueuesDownstreamRequest::default()
            },
        )
        .await;
    }

    /// The client says that it has no more requests.
    pub fn half_close(&mut self) {
        self.requests = None;
    }

    /// How the stream ends, once nothing more comes.
    pub async fn end(&mut self) -> Result<(), Status> {
        let rest = soon(self.responses.message()).await?;
        assert_eq!(rest, None);
        Ok(())
    }
}

pub fn a_get(
    queue: &str,
    max_items: i32,
    wait_timeout: i32,
    auto_ack: bool,
) -> QueuesDownstreamRequest {
    QueuesDownstreamRequest {
        request_id: "get".to_owned(),
        channel: queue.to_owned(),
        max_items,
        wait_timeout,
        auto_ack,
        ..QueuesDownstreamRequest::default()
    }
}

/// One transaction of an older client, its two sides in the open.
pub struct Transaction {
    requests: Option<mpsc::Sender<StreamQueueMessagesRequest>>,
    responses: Streaming<StreamQueueMessagesResponse>,
    queue: String,
}

impl Transaction {
    pub async fn open(client: &mut Client, queue: &str) -> Self {
        let (requests, stream) = requests();
        let responses = soon(client.stream_queue_message(stream)).await.unwrap();
        Self {
            requests: Some(requests),
            responses: responses.into_inner(),
            queue: queue.to_owned(),
        }
    }

    /// With a message in hand.
    pub async fn holding(
        client: &mut Client,
        queue: &str,
        visibility: i32,
    ) -> (Self, QueueMessage) {
        let mut transaction = Self::open(client, queue).await;
        let answer = transaction
            .ask(StreamRequestType::ReceiveMessage, |request| {
                request.visibility_seconds = visibility;
                request.wait_time_seconds = 10;
            })
            .await;
        assert!(!answer.is_error, "{}", answer.error);
        let message = answer.message.unwrap();
        (transaction, message)
    }

    pub async fn send(
        &self,
        kind: StreamRequestType,
        change: impl FnOnce(&mut StreamQueueMessagesRequest),
    ) {
        let mut request = StreamQueueMessagesRequest {
            request_id: format!("{kind:?}"),
            client_id: "consumer".to_owned(),
            stream_request_type_data: kind as i32,
            channel: self.queue.clone(),
            ..StreamQueueMessagesRequest::default()
        };
        change(&mut request);
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    pub async fn answer(&mut self) -> StreamQueueMessagesResponse {
        soon(self.responses.message()).await.unwrap().unwrap()
    }

    pub async fn ask(
        &mut self,
        kind: StreamRequestType,
        change: impl FnOnce(&mut StreamQueueMessagesRequest),
    ) -> StreamQueueMessagesResponse {
        self.send(kind, change).await;
        let answer = self.answer().await;
        assert_eq!(answer.stream_request_type_data, kind as i32);
        assert_eq!(answer.request_id, format!("{kind:?}"));
        answer
    }

    /// The last answer to a request: the stream ends after it, though this side is open.
    pub async fn finish(
        mut self,
        kind: StreamRequestType,
        change: impl FnOnce(&mut StreamQueueMessagesRequest),
    ) -> StreamQueueMessagesResponse {
        let answer = self.ask(kind, change).await;
        self.end().await.unwrap();
        answer
    }

    /// The client says that it has no more requests.
    pub fn half_close(&mut self) {
        self.requests = None;
    }

    pub async fn end(&mut self) -> Result<(), Status> {
        let rest = soon(self.responses.message()).await?;
        assert_eq!(rest, None);
        Ok(())
    }
}
