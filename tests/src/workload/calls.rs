//! Single calls to single nodes, for tests that say what must come of each.

use super::protocol::subscribe::{EventsStoreType, SubscribeType};
use super::protocol::{
    Event, EventReceive, QueueMessage, QueueMessagePolicy, QueuesDownstreamRequest,
    QueuesDownstreamRequestType, ReceiveQueueMessagesRequest, Subscribe,
};
use super::route::connect;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::ReceiverStream;

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Makes calls, each on a connection of its own.
pub struct Calls {
    runtime: Runtime,
}

impl Default for Calls {
    fn default() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Self {
            runtime: runtime.expect("a runtime"),
        }
    }
}

/// What a subscription delivered, or why it ended.
pub type Delivery = Result<EventReceive, String>;

/// What arrives at one listener.
pub struct Listener {
    arrived: Receiver<Delivery>,
}

impl Listener {
    /// The next event; none when nothing arrives in time. Panics when the subscription has ended.
    pub fn next(&self, wait: Duration) -> Option<EventReceive> {
        let delivery = self.arrived.recv_timeout(wait).ok()?;
        Some(delivery.unwrap_or_else(|error| panic!("the subscription ended: {error}")))
    }
}

/// A consumer that holds what it received until it is dropped or its node dies.
pub struct Holder {
    pub messages: Vec<QueueMessage>,
    _requests: tokio::sync::mpsc::Sender<QueuesDownstreamRequest>,
    _answers: tonic::Streaming<super::protocol::QueuesDownstreamResponse>,
}

impl Calls {
    fn run<T>(&self, call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        self.runtime.block_on(async {
            match tokio::time::timeout(ANSWER_WITHIN, call).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {ANSWER_WITHIN:?}")),
            }
        })
    }

    /// Sends an event, stored or not.
    pub fn send_event(
        &self,
        node: SocketAddr,
        channel: &str,
        body: &str,
        store: bool,
    ) -> Result<(), String> {
        self.run(async {
            let event = Event {
                client_id: "caller".to_owned(),
                channel: channel.to_owned(),
                body: Bytes::copy_from_slice(body.as_bytes()),
                store,
                ..Event::default()
            };
            let mut client = connect(node).await.map_err(text)?;
            let result = client.send_event(event).await.map_err(text)?.into_inner();
            result.sent.then_some(()).ok_or(result.error)
        })
    }

    /// Subscribes to events; comes back when the node has confirmed it.
    pub fn listen(
        &self,
        node: SocketAddr,
        channel_name: &str,
        group: &str,
        stored: bool,
    ) -> Result<Listener, String> {
        let (kind, start) = if stored {
            (SubscribeType::EventsStore, EventsStoreType::StartFromFirst)
        } else {
            (SubscribeType::Events, EventsStoreType::Undefined)
        };
        let request = Subscribe {
            subscribe_type_data: kind.into(),
            client_id: format!("listener-{node}"),
            channel: channel_name.to_owned(),
            group: group.to_owned(),
            events_store_type_data: start.into(),
            events_store_type_value: 0,
        };
        let mut events = self.run(async {
            let mut client = connect(node).await.map_err(text)?;
            let subscribed = client.subscribe_to_events(request).await;
            Ok(subscribed.map_err(text)?.into_inner())
        })?;
        let (sender, arrived) = channel();
        self.runtime.spawn(async move {
            loop {
                let delivery = match events.message().await {
                    Ok(Some(event)) => Ok(event),
                    Ok(None) => Err("it was ended".to_owned()),
                    Err(status) => Err(text(status)),
                };
                let is_end = delivery.is_err();
                // The listener is dropped when its test has seen enough.
                if sender.send(delivery).is_err() || is_end {
                    return;
                }
            }
        });
        Ok(Listener { arrived })
    }

    /// Puts a message into a queue, to come out after a delay.
    pub fn send_to_queue(
        &self,
        node: SocketAddr,
        queue: &str,
        body: &str,
        delay_s: i32,
    ) -> Result<(), String> {
        self.run(async {
            let message = QueueMessage {
                client_id: "caller".to_owned(),
                channel: queue.to_owned(),
                body: Bytes::copy_from_slice(body.as_bytes()),
                policy: Some(QueueMessagePolicy {
                    delay_seconds: delay_s,
                    ..QueueMessagePolicy::default()
                }),
                ..QueueMessage::default()
            };
            let mut client = connect(node).await.map_err(text)?;
            let result = client.send_queue_message(message).await.map_err(text)?;
            let result = result.into_inner();
            (!result.is_error).then_some(()).ok_or(result.error)
        })
    }

    /// Receives and removes a message, waiting for it. (A receive of more waits until it has all.)
    pub fn receive(
        &self,
        node: SocketAddr,
        queue: &str,
        wait_s: i32,
    ) -> Result<Vec<QueueMessage>, String> {
        self.run(async {
            let request = ReceiveQueueMessagesRequest {
                request_id: "1".to_owned(),
                client_id: "caller".to_owned(),
                channel: queue.to_owned(),
                max_number_of_messages: 1,
                wait_time_seconds: wait_s,
                is_peak: false,
            };
            let mut client = connect(node).await.map_err(text)?;
            let answer = client.receive_queue_messages(request).await;
            let answer = answer.map_err(text)?.into_inner();
            (!answer.is_error)
                .then_some(answer.messages)
                .ok_or(answer.error)
        })
    }

    /// Receives a message and holds it. (A get of more waits until it has all.)
    pub fn hold(&self, node: SocketAddr, queue: &str, wait_ms: i32) -> Result<Holder, String> {
        self.run(async {
            let mut client = connect(node).await.map_err(text)?;
            let (requests, outgoing) = tokio::sync::mpsc::channel(1);
            let get = QueuesDownstreamRequest {
                request_id: "1".to_owned(),
                client_id: "holder".to_owned(),
                request_type_data: QueuesDownstreamRequestType::Get.into(),
                channel: queue.to_owned(),
                max_items: 1,
                wait_timeout: wait_ms,
                ..QueuesDownstreamRequest::default()
            };
            requests.send(get).await.map_err(text)?;
            let opened = client
                .queues_downstream(ReceiverStream::new(outgoing))
                .await;
            let mut answers = opened.map_err(text)?.into_inner();
            let answer = answers.message().await.map_err(text)?;
            let answer = answer.ok_or("the stream was ended")?;
            if answer.is_error {
                return Err(answer.error);
            }
            Ok(Holder {
                messages: answer.messages,
                _requests: requests,
                _answers: answers,
            })
        })
    }
}

/// Repeats a call until it succeeds; panics with the last error when it does not in time.
pub fn until_ok<T>(what: &str, limit: Duration, mut call: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match call() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("{what}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
