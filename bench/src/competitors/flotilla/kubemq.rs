//! Flotilla through the protocol of KubeMQ, as its client libraries of the present generation use it.

use super::answers::{Answers, ended};
use super::connect::{FRAME_BYTES_MAX, connect, outbox};
use super::servers::Servers;
use crate::BenchError;
use crate::protocol::kubemq::kubemq_client::KubemqClient;
use crate::protocol::kubemq::subscribe::{EventsStoreType, SubscribeType};
use crate::protocol::kubemq::{
    Event, EventReceive, QueueMessage, QueuesDownstreamRequest, QueuesDownstreamRequestType,
    QueuesDownstreamResponse, QueuesUpstreamRequest, QueuesUpstreamResponse, Result as Sent,
    Subscribe,
};
use crate::target::{Consumer, Family, Outgoing, Producer, Responder, Running, Source};
use async_trait::async_trait;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::transport::Channel;

const CLIENT_ID: &str = "bench";
/// Events are frames of their own: this many are handed over at a time.
const EVENTS_AT_ONCE: usize = 64;
/// Upstream requests of what may be under way.
const UPSTREAMS_IN_FLIGHT: usize = 4;
/// How many messages a worker asks for.
const ITEMS_MAX: i32 = 512;
const WAIT_MS: i32 = 10_000;

/// Nodes that are driven through the protocol of KubeMQ.
pub struct KubeMq {
    pub servers: Servers,
}

async fn client(address: SocketAddr) -> Result<KubemqClient<Channel>, BenchError> {
    let client = KubemqClient::new(connect(address).await?);
    Ok(client.max_decoding_message_size(FRAME_BYTES_MAX))
}

#[async_trait]
impl Running for KubeMq {
    fn processes(&self) -> Vec<u32> {
        self.servers.processes()
    }

    async fn prepare(&self, _: Family, _: &[String]) -> Result<(), BenchError> {
        // Channels are there when they are used.
        Ok(())
    }

    async fn producer(
        &self,
        family: Family,
        names: Arc<[String]>,
    ) -> Result<Box<dyn Producer>, BenchError> {
        let address = self.servers.next_address();
        Ok(match family {
            Family::Topics => Box::new(EventSender::open(address, names, true).await?),
            Family::Signals => Box::new(EventSender::open(address, names, false).await?),
            Family::Queues => Box::new(QueueSender::open(address, names).await?),
            Family::Requests => return Err(BenchError::NotSupported("a request")),
        })
    }

    async fn consumer(&self, source: Source<'_>) -> Result<Box<dyn Consumer>, BenchError> {
        let address = self.servers.next_address();
        let stored = SubscribeType::EventsStore;
        let (channel, client_id, kind, start) = match source {
            Source::Backlog { topic, reader } => {
                (topic, reader, stored, EventsStoreType::StartFromFirst)
            }
            Source::Live { topic } => (topic, CLIENT_ID, stored, EventsStoreType::StartNewOnly),
            Source::Signals { name } => (
                name,
                CLIENT_ID,
                SubscribeType::Events,
                EventsStoreType::Undefined,
            ),
            Source::Queue { queue } => {
                return Ok(Box::new(QueueWorker::open(address, queue).await?));
            }
        };
        let subscribe = Subscribe {
            subscribe_type_data: kind.into(),
            client_id: client_id.to_owned(),
            channel: channel.to_owned(),
            events_store_type_data: start.into(),
            ..Subscribe::default()
        };
        Ok(Box::new(EventReader::open(address, subscribe).await?))
    }

    async fn responder(&self, _: &str) -> Result<Box<dyn Responder>, BenchError> {
        Err(BenchError::NotSupported("a responder"))
    }

    async fn kill_and_restart(&mut self) -> Result<(), BenchError> {
        self.servers.kill_and_restart().await
    }

    async fn stop(self: Box<Self>) -> Result<(), BenchError> {
        self.servers.stop().await
    }
}

/// Sends events, stored ones or not. Stored ones are answered one by one, in their order.
struct EventSender {
    events: mpsc::Sender<Event>,
    answers: Answers<Sent>,
    names: Arc<[String]>,
    store: bool,
    next_id: u64,
}

impl EventSender {
    async fn open(
        address: SocketAddr,
        names: Arc<[String]>,
        store: bool,
    ) -> Result<Self, BenchError> {
        let mut client = client(address).await?;
        let (events, stream) = outbox();
        let call = async move { client.send_events_stream(stream).await };
        Ok(Self {
            events,
            answers: Answers::of("send events", call),
            names,
            store,
            next_id: 1,
        })
    }
}

fn check(sent: &Sent) -> Result<(), BenchError> {
    if sent.sent {
        return Ok(());
    }
    Err(BenchError::Refused {
        doing: "an event".to_owned(),
        text: sent.error.clone(),
    })
}

#[async_trait]
impl Producer for EventSender {
    fn batch(&self, in_flight: usize) -> usize {
        (in_flight / UPSTREAMS_IN_FLIGHT).clamp(1, EVENTS_AT_ONCE)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        for message in messages {
            let event = Event {
                event_id: self.next_id.to_string(),
                client_id: CLIENT_ID.to_owned(),
                channel: self.names[message.name].clone(),
                body: message.body.clone(),
                store: self.store,
                ..Event::default()
            };
            self.next_id += 1;
            let sent = self.events.send(event).await;
            sent.map_err(|_| ended("send events"))?;
        }
        // Events that are not stored are answered only if they failed.
        while !self.store
            && let Some(sent) = self.answers.ready()?
        {
            check(&sent)?;
        }
        Ok(())
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        check(&self.answers.next().await?)?;
        let mut count = 1;
        while let Some(sent) = self.answers.ready()? {
            check(&sent)?;
            count += 1;
        }
        Ok(count)
    }
}

/// Receives events. The protocol knows no acknowledgements of them.
struct EventReader {
    answers: Answers<EventReceive>,
}

impl EventReader {
    /// The head of the answer comes when the subscription is live.
    async fn open(address: SocketAddr, subscribe: Subscribe) -> Result<Self, BenchError> {
        let mut client = client(address).await?;
        let call = async move { client.subscribe_to_events(subscribe).await };
        let mut answers = Answers::of("subscribe to events", call);
        answers.opened().await?;
        Ok(Self { answers })
    }
}

#[async_trait]
impl Consumer for EventReader {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        bodies.push(self.answers.next().await?.body);
        while let Some(event) = self.answers.ready()? {
            bodies.push(event.body);
        }
        Ok(())
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        Ok(())
    }
}

/// Sends to queues in batches, answered in their order.
struct QueueSender {
    requests: mpsc::Sender<QueuesUpstreamRequest>,
    answers: Answers<QueuesUpstreamResponse>,
    names: Arc<[String]>,
    next_id: u64,
}

impl QueueSender {
    async fn open(address: SocketAddr, names: Arc<[String]>) -> Result<Self, BenchError> {
        let mut client = client(address).await?;
        let (requests, stream) = outbox();
        let call = async move { client.queues_upstream(stream).await };
        Ok(Self {
            requests,
            answers: Answers::of("send to queues", call),
            names,
            next_id: 1,
        })
    }
}

/// How many messages an answer acknowledges.
fn accepted(answer: &QueuesUpstreamResponse) -> Result<usize, BenchError> {
    let failed = answer.results.iter().find(|result| result.is_error);
    let text = match failed {
        Some(result) => &result.error,
        None if answer.is_error => &answer.error,
        None => return Ok(answer.results.len()),
    };
    Err(BenchError::Refused {
        doing: "a batch".to_owned(),
        text: text.clone(),
    })
}

#[async_trait]
impl Producer for QueueSender {
    fn batch(&self, in_flight: usize) -> usize {
        (in_flight / UPSTREAMS_IN_FLIGHT).max(1)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        let first_id = self.next_id;
        self.next_id += messages.len() as u64;
        let messages = (first_id..)
            .zip(messages)
            .map(|(id, message)| QueueMessage {
                message_id: id.to_string(),
                client_id: CLIENT_ID.to_owned(),
                channel: self.names[message.name].clone(),
                body: message.body.clone(),
                ..QueueMessage::default()
            });
        let request = QueuesUpstreamRequest {
            request_id: first_id.to_string(),
            messages: messages.collect(),
        };
        let sent = self.requests.send(request).await;
        sent.map_err(|_| ended("send to queues"))
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        let mut count = accepted(&self.answers.next().await?)?;
        while let Some(answer) = self.answers.ready()? {
            count += accepted(&answer)?;
        }
        Ok(count)
    }
}

/// Takes messages from a queue in transactions. Acknowledgements are not answered, but requests of one
/// stream take effect in their order: the next messages confirm them.
struct QueueWorker {
    queue: String,
    requests: mpsc::Sender<QueuesDownstreamRequest>,
    answers: Answers<QueuesDownstreamResponse>,
    /// Whether messages were asked for and have not come.
    asked: bool,
    transaction: String,
}

impl QueueWorker {
    async fn open(address: SocketAddr, queue: &str) -> Result<Self, BenchError> {
        let mut client = client(address).await?;
        let (requests, stream) = outbox();
        let call = async move { client.queues_downstream(stream).await };
        Ok(Self {
            queue: queue.to_owned(),
            requests,
            answers: Answers::of("receive from a queue", call),
            asked: false,
            transaction: String::new(),
        })
    }

    async fn request(&mut self, request: QueuesDownstreamRequest) -> Result<(), BenchError> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| ended("receive from a queue"))
    }

    async fn get(&mut self) -> Result<(), BenchError> {
        self.asked = true;
        self.request(QueuesDownstreamRequest {
            request_id: "get".to_owned(),
            client_id: CLIENT_ID.to_owned(),
            request_type_data: QueuesDownstreamRequestType::Get.into(),
            channel: self.queue.clone(),
            max_items: ITEMS_MAX,
            wait_timeout: WAIT_MS,
            ..QueuesDownstreamRequest::default()
        })
        .await
    }
}

#[async_trait]
impl Consumer for QueueWorker {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        loop {
            if !self.asked {
                self.get().await?;
            }
            let answer = self.answers.next().await?;
            if answer.is_error {
                return Err(BenchError::Refused {
                    doing: "a request of a worker".to_owned(),
                    text: answer.error,
                });
            }
            self.asked = false;
            if !answer.messages.is_empty() {
                self.transaction = answer.transaction_id;
                bodies.extend(answer.messages.into_iter().map(|message| message.body));
                return Ok(());
            }
        }
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        self.request(QueuesDownstreamRequest {
            request_id: "ack".to_owned(),
            client_id: CLIENT_ID.to_owned(),
            request_type_data: QueuesDownstreamRequestType::AckAll.into(),
            channel: self.queue.clone(),
            ref_transaction_id: self.transaction.clone(),
            ..QueuesDownstreamRequest::default()
        })
        .await?;
        self.get().await
    }
}
