//! A worker of a queue over the native protocol. It asks for the next messages in the frame that settles
//! the ones before, and waits for the settlement.

use super::answers::{Answers, ended};
use super::connect::{FRAME_BYTES_MAX, connect, outbox, refused};
use crate::BenchError;
use crate::protocol::flotilla::v1::broker_client::BrokerClient;
use crate::protocol::flotilla::v1::consume_request::{Lease, Settle, settle};
use crate::protocol::flotilla::v1::consume_response::Leased;
use crate::protocol::flotilla::v1::{ConsumeRequest, ConsumeResponse, Error};
use crate::target::Consumer;
use async_trait::async_trait;
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::sync::mpsc;

/// How many messages are asked for at a time.
const MESSAGES_MAX: u32 = 512;
const WAIT_MS: u64 = 10_000;

pub struct QueueWorker {
    queue: String,
    frames: mpsc::Sender<ConsumeRequest>,
    answers: Answers<ConsumeResponse>,
    next_request: u64,
    /// Whether messages were asked for and have not come.
    asked: bool,
    /// Messages that came while a settlement was waited for.
    leased: Option<Leased>,
    /// The lease that `next` gave.
    lease: u64,
    /// The settlement that is waited for.
    settling: Option<u64>,
}

impl QueueWorker {
    pub async fn open(address: SocketAddr, queue: &str) -> Result<Self, BenchError> {
        let client = BrokerClient::new(connect(address).await?);
        let (frames, stream) = outbox();
        let mut client = client.max_decoding_message_size(FRAME_BYTES_MAX);
        Ok(Self {
            queue: queue.to_owned(),
            frames,
            answers: Answers::of("consume", async move { client.consume(stream).await }),
            next_request: 1,
            asked: false,
            leased: None,
            lease: 0,
            settling: None,
        })
    }

    fn number(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    fn lease_request(&mut self) -> Lease {
        self.asked = true;
        Lease {
            request: self.number(),
            queue: self.queue.clone(),
            messages_max: MESSAGES_MAX,
            wait_ms: WAIT_MS,
            ..Lease::default()
        }
    }

    async fn send(&mut self, frame: ConsumeRequest) -> Result<(), BenchError> {
        let sent = self.frames.send(frame).await;
        sent.map_err(|_| ended("a request for messages"))
    }

    /// Takes in one frame of answers.
    async fn receive(&mut self) -> Result<(), BenchError> {
        let answer = self.answers.next().await?;
        if let Some(failed) = answer.failed.first() {
            let unknown = Error::default();
            let error = failed.error.as_ref().unwrap_or(&unknown);
            return Err(refused("a request of a worker", error));
        }
        if let Some(settled) = answer.settled.first()
            && self.settling == Some(settled.request)
        {
            self.settling = None;
        }
        if let Some(leased) = answer.leased.into_iter().next() {
            self.asked = false;
            self.leased = Some(leased);
        }
        Ok(())
    }
}

#[async_trait]
impl Consumer for QueueWorker {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        loop {
            match self.leased.take() {
                Some(leased) if !leased.messages.is_empty() => {
                    self.lease = leased.lease;
                    let records = leased.messages.into_iter().map(|message| message.record);
                    bodies.extend(records.map(|record| record.unwrap_or_default().body));
                    return Ok(());
                }
                // Nothing came within the wait.
                Some(_) => {}
                None if self.asked => self.receive().await?,
                None => {
                    let frame = ConsumeRequest {
                        leases: vec![self.lease_request()],
                        ..ConsumeRequest::default()
                    };
                    self.send(frame).await?;
                }
            }
        }
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        let request = self.number();
        let settle = Settle {
            request,
            queue: self.queue.clone(),
            lease: self.lease,
            kind: settle::Kind::Ack.into(),
            ..Settle::default()
        };
        self.settling = Some(request);
        let frame = ConsumeRequest {
            leases: vec![self.lease_request()],
            settles: vec![settle],
            ..ConsumeRequest::default()
        };
        self.send(frame).await?;
        while self.settling.is_some() {
            self.receive().await?;
        }
        Ok(())
    }
}
