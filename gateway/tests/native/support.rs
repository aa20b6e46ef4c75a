//! What the tests say to a gateway.

use bytes::Bytes;
use flotilla_gateway::native::protocol::broker_client::BrokerClient;
use flotilla_gateway::native::protocol::subscribe_request::{Kind, Open};
use flotilla_gateway::native::protocol::{
    Ack, ConsumeRequest, ConsumeResponse, Error, ListenRequest, ListenResponse, PublishRequest,
    PublishResponse, Record, ReplyBatch, RequestBatch, SendRequest, SendResponse, ServeRequest,
    ServeResponse, SignalRequest, SignalResponse, SubscribeRequest, SubscribeResponse, Tag,
};
use futures::Stream;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

pub use crate::shared::{Gateway, soon, unique, until_held_back};

/// One stream, its two sides in the open.
pub struct Talk<Q, A> {
    requests: Option<mpsc::Sender<Q>>,
    answers: Streaming<A>,
}

impl<Q, A: std::fmt::Debug> Talk<Q, A> {
    pub fn new(requests: mpsc::Sender<Q>, answers: Streaming<A>) -> Self {
        Self {
            requests: Some(requests),
            answers,
        }
    }

    /// Waits until everything said is on its way into the connection.
    pub async fn until_said(&self) {
        let requests = self.requests.as_ref().unwrap();
        soon(async {
            while requests.capacity() < requests.max_capacity() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub async fn say(&self, request: Q) {
        let sent = self.requests.as_ref().unwrap().send(request).await;
        assert!(sent.is_ok(), "the stream is over");
    }

    pub async fn hear(&mut self) -> A {
        soon(self.answers.message()).await.unwrap().unwrap()
    }

    pub async fn ask(&mut self, request: Q) -> A {
        self.say(request).await;
        self.hear().await
    }

    /// The client says that it has no more requests.
    pub fn half_close(&mut self) {
        self.requests = None;
    }

    /// How the stream ends, if nothing more is said before.
    pub async fn end(&mut self) -> Result<(), Status> {
        let rest = soon(self.answers.message()).await?;
        assert!(rest.is_none(), "{rest:?} was not expected");
        Ok(())
    }
}

pub fn side<Q: Send + 'static>() -> (mpsc::Sender<Q>, impl Stream<Item = Q> + Send + 'static) {
    let (requests, stream) = mpsc::channel(64);
    let stream = futures::stream::unfold(stream, |mut stream| async {
        stream.recv().await.map(|request| (request, stream))
    });
    (requests, stream)
}

macro_rules! talks {
    ($($call:ident: $request:ty => $response:ty),* $(,)?) => {
        impl Gateway {
            /// Whether there is this line among the metrics.
            pub fn has_metric(&self, line: &str) -> bool {
                self.broker.metrics_text().lines().any(|one| one == line)
            }

            pub async fn client(&self) -> BrokerClient<Channel> {
                let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
                // As it comes: it refuses frames above 4 MiB.
                BrokerClient::new(endpoint.connect().await.unwrap())
            }

            $(pub async fn $call(&self) -> Talk<$request, $response> {
                let (requests, stream) = side();
                let answers = soon(self.client().await.$call(stream)).await.unwrap();
                Talk::new(requests, answers.into_inner())
            })*
        }
    };
}

talks!(
    publish: PublishRequest => PublishResponse,
    subscribe: SubscribeRequest => SubscribeResponse,
    send: SendRequest => SendResponse,
    consume: ConsumeRequest => ConsumeResponse,
    signal: SignalRequest => SignalResponse,
    listen: ListenRequest => ListenResponse,
    request: RequestBatch => ReplyBatch,
    serve: ServeRequest => ServeResponse,
);

pub fn a_record(text: &str) -> Record {
    Record {
        body: Bytes::copy_from_slice(text.as_bytes()),
        id: format!("id-{text}"),
        source: "tests".to_owned(),
        metadata: "m".to_owned(),
        tags: vec![Tag {
            key: "k".to_owned(),
            value: "v".to_owned(),
        }],
        dedup_id: String::new(),
    }
}

/// Records with these numbers as their bodies.
pub fn records(numbers: std::ops::Range<u64>) -> Vec<Record> {
    numbers
        .map(|number| a_record(&number.to_string()))
        .collect()
}

pub fn text_of(record: &Record) -> String {
    String::from_utf8(record.body.to_vec()).unwrap()
}

pub fn a_batch(batch: u64, topic: &str, records: Vec<Record>) -> PublishRequest {
    PublishRequest {
        batch,
        topic: topic.to_owned(),
        records,
        ..PublishRequest::default()
    }
}

pub fn a_sending(batch: u64, queue: &str, records: Vec<Record>) -> SendRequest {
    SendRequest {
        batch,
        queue: queue.to_owned(),
        records,
        ..SendRequest::default()
    }
}

pub fn opening(open: Open) -> SubscribeRequest {
    SubscribeRequest {
        kind: Some(Kind::Open(open)),
    }
}

/// All went well, synced.
pub fn assert_synced(ack: i32, error: Option<&Error>) {
    assert_eq!(error, None);
    assert_eq!(ack, i32::from(Ack::Synced));
}

/// Puts messages with these numbers into a queue.
pub async fn fill(gateway: &Gateway, queue: &str, numbers: std::ops::Range<u64>) {
    let mut sends = gateway.send().await;
    let answer = sends.ask(a_sending(1, queue, records(numbers))).await;
    assert_synced(answer.ack, answer.error.as_ref());
    assert!(answer.errors.is_empty());
}
