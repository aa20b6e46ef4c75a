//! Signals over the native protocol.

use super::answers::{Answers, ended};
use super::connect::{FRAME_BYTES_MAX, connect, outbox, record, refused};
use crate::BenchError;
use crate::protocol::flotilla::v1::broker_client::BrokerClient;
use crate::protocol::flotilla::v1::listen_response::Kind;
use crate::protocol::flotilla::v1::{
    Ack, ListenRequest, ListenResponse, SignalRequest, SignalResponse,
};
use crate::target::{Consumer, Outgoing, Producer};
use async_trait::async_trait;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;

/// How many signals are sent at a time.
const BATCH_MAX: usize = 256;

pub struct Sender {
    frames: mpsc::Sender<SignalRequest>,
    answers: Answers<SignalResponse>,
    names: Arc<[String]>,
    next_batch: u64,
}

impl Sender {
    pub async fn open(address: SocketAddr, names: Arc<[String]>) -> Result<Self, BenchError> {
        let mut client = BrokerClient::new(connect(address).await?);
        let (frames, stream) = outbox();
        Ok(Self {
            frames,
            answers: Answers::of("signal", async move { client.signal(stream).await }),
            names,
            next_batch: 1,
        })
    }
}

#[async_trait]
impl Producer for Sender {
    fn batch(&self, in_flight: usize) -> usize {
        in_flight.clamp(1, BATCH_MAX)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        for neighbours in messages.chunk_by(|first, second| first.name == second.name) {
            let request = SignalRequest {
                batch: self.next_batch,
                name: self.names[neighbours[0].name].clone(),
                records: neighbours
                    .iter()
                    .map(|message| record(&message.body))
                    .collect(),
                ack: Ack::None.into(),
                ..SignalRequest::default()
            };
            self.next_batch += 1;
            let sent = self.frames.send(request).await;
            sent.map_err(|_| ended("signals"))?;
        }
        // Only failures are answered.
        while let Some(answer) = self.answers.ready()? {
            let first = || answer.errors.first()?.error.as_ref();
            if let Some(error) = answer.error.as_ref().or_else(first) {
                return Err(refused("signals", error));
            }
        }
        Ok(())
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        Err(BenchError::NotSupported("an acknowledgement of signals"))
    }
}

pub struct Listener {
    answers: Answers<ListenResponse>,
}

impl Listener {
    pub async fn open(address: SocketAddr, name: &str) -> Result<Self, BenchError> {
        let client = BrokerClient::new(connect(address).await?);
        let request = ListenRequest {
            pattern: name.to_owned(),
            ..ListenRequest::default()
        };
        let mut client = client.max_decoding_message_size(FRAME_BYTES_MAX);
        let call = async move { client.listen(tokio_stream::once(request)).await };
        let mut listener = Self {
            answers: Answers::of("listen", call),
        };
        match listener.answer().await? {
            Kind::Opened(_) => Ok(listener),
            Kind::Signals(_) => Err(ended("signals before the listener is open")),
        }
    }

    async fn answer(&mut self) -> Result<Kind, BenchError> {
        loop {
            if let Some(kind) = self.answers.next().await?.kind {
                return Ok(kind);
            }
        }
    }
}

#[async_trait]
impl Consumer for Listener {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        let before = bodies.len();
        while bodies.len() == before {
            if let Kind::Signals(signals) = self.answer().await? {
                let records = signals.signals.into_iter().map(|signal| signal.record);
                bodies.extend(records.map(|record| record.unwrap_or_default().body));
            }
        }
        Ok(())
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        // Signals are not acknowledged.
        Ok(())
    }
}
