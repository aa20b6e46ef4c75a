//! Reads a topic over the native protocol, acknowledging each batch of deliveries with its last offset.

use super::answers::{Answers, ended};
use super::connect::{FRAME_BYTES_MAX, connect, outbox};
use crate::BenchError;
use crate::protocol::flotilla::v1::broker_client::BrokerClient;
use crate::protocol::flotilla::v1::subscribe_request::{Kind as Ask, Open, open};
use crate::protocol::flotilla::v1::subscribe_response::Kind as Answer;
use crate::protocol::flotilla::v1::{SubscribeRequest, SubscribeResponse};
use crate::target::Consumer;
use async_trait::async_trait;
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::sync::mpsc;

/// How much may be delivered and not acknowledged.
const WINDOW_RECORDS: u32 = 16_384;
const WINDOW_BYTES: u64 = 32 << 20;

pub struct TopicReader {
    frames: mpsc::Sender<SubscribeRequest>,
    answers: Answers<SubscribeResponse>,
    /// The last offset that was given out.
    last: u64,
}

impl TopicReader {
    /// Everything from the first record on, with a place that the broker remembers.
    pub async fn from_first(
        address: SocketAddr,
        topic: &str,
        reader: &str,
    ) -> Result<Self, BenchError> {
        let start = Some(open::Start::First(true));
        let cursor = Some(open::Cursor::Exclusive(reader.to_owned()));
        Self::open(address, topic, start, cursor).await
    }

    /// What is stored from now on.
    pub async fn from_now(address: SocketAddr, topic: &str) -> Result<Self, BenchError> {
        Self::open(address, topic, None, None).await
    }

    async fn open(
        address: SocketAddr,
        topic: &str,
        start: Option<open::Start>,
        cursor: Option<open::Cursor>,
    ) -> Result<Self, BenchError> {
        let open = Open {
            topic: topic.to_owned(),
            start,
            cursor,
            window_records: WINDOW_RECORDS,
            window_bytes: WINDOW_BYTES,
            ..Open::default()
        };
        let client = BrokerClient::new(connect(address).await?);
        let mut client = client.max_decoding_message_size(FRAME_BYTES_MAX);
        let (frames, stream) = outbox();
        let first = SubscribeRequest {
            kind: Some(Ask::Open(open)),
        };
        let sent = frames.send(first).await;
        sent.map_err(|_| ended("a subscription"))?;
        let mut reader = Self {
            frames,
            answers: Answers::of("subscribe", async move { client.subscribe(stream).await }),
            last: 0,
        };
        match reader.answer().await? {
            Answer::Opened(_) => Ok(reader),
            Answer::Deliveries(_) => Err(ended("deliveries before the subscription is open")),
        }
    }

    async fn answer(&mut self) -> Result<Answer, BenchError> {
        loop {
            if let Some(kind) = self.answers.next().await?.kind {
                return Ok(kind);
            }
        }
    }
}

#[async_trait]
impl Consumer for TopicReader {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        let before = bodies.len();
        while bodies.len() == before {
            let Answer::Deliveries(deliveries) = self.answer().await? else {
                continue;
            };
            for delivery in deliveries.deliveries {
                self.last = delivery.offset;
                bodies.push(delivery.record.unwrap_or_default().body);
            }
        }
        Ok(())
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        let done = SubscribeRequest {
            kind: Some(Ask::DoneUpto(self.last)),
        };
        let sent = self.frames.send(done).await;
        sent.map_err(|_| ended("an acknowledgement"))
    }
}
