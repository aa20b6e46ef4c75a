//! Requests and replies over the native protocol.

use super::answers::{Answers, ended};
use super::connect::{connect, outbox, record, refused};
use crate::BenchError;
use crate::protocol::flotilla::v1::broker_client::BrokerClient;
use crate::protocol::flotilla::v1::serve_request::{Open, Reply, reply};
use crate::protocol::flotilla::v1::{
    ReplyBatch, RequestBatch, ServeRequest, ServeResponse, reply_batch, request_batch,
};
use crate::target::{Outgoing, Producer, Responder};
use async_trait::async_trait;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;

const TIMEOUT_MS: u64 = 10_000;

pub struct Requester {
    frames: mpsc::Sender<RequestBatch>,
    answers: Answers<ReplyBatch>,
    names: Arc<[String]>,
    next_request: u64,
}

impl Requester {
    pub async fn open(address: SocketAddr, names: Arc<[String]>) -> Result<Self, BenchError> {
        let mut client = BrokerClient::new(connect(address).await?);
        let (frames, stream) = outbox();
        Ok(Self {
            frames,
            answers: Answers::of("request", async move { client.request(stream).await }),
            names,
            next_request: 1,
        })
    }
}

/// How many replies there are, if all of them are good ones.
fn count(replies: &ReplyBatch) -> Result<usize, BenchError> {
    for item in &replies.replies {
        if let Some(reply_batch::item::Outcome::Error(error)) = &item.outcome {
            return Err(refused("a request", error));
        }
    }
    Ok(replies.replies.len())
}

#[async_trait]
impl Producer for Requester {
    fn batch(&self, in_flight: usize) -> usize {
        // A quarter of them at a time: the responder works while the next ones are on their way.
        (in_flight / 4).max(1)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        let first = self.next_request;
        self.next_request += messages.len() as u64;
        let requests = (first..)
            .zip(messages)
            .map(|(request, message)| request_batch::Item {
                request,
                name: self.names[message.name].clone(),
                timeout_ms: TIMEOUT_MS,
                record: Some(record(&message.body)),
                ..request_batch::Item::default()
            });
        let batch = RequestBatch {
            requests: requests.collect(),
        };
        let sent = self.frames.send(batch).await;
        sent.map_err(|_| ended("requests"))
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        let mut sum = count(&self.answers.next().await?)?;
        while let Some(replies) = self.answers.ready()? {
            sum += count(&replies)?;
        }
        Ok(sum)
    }
}

pub struct Server {
    frames: mpsc::Sender<ServeRequest>,
    calls: Answers<ServeResponse>,
}

impl Server {
    pub async fn open(address: SocketAddr, name: &str) -> Result<Self, BenchError> {
        let mut client = BrokerClient::new(connect(address).await?);
        let (frames, stream) = outbox();
        let open = ServeRequest {
            open: Some(Open {
                pattern: name.to_owned(),
                group: "bench".to_owned(),
                ..Open::default()
            }),
            replies: Vec::new(),
        };
        let sent = frames.send(open).await;
        sent.map_err(|_| ended("serving"))?;
        let mut calls = Answers::of("serve", async move { client.serve(stream).await });
        let opened: ServeResponse = calls.next().await?;
        match opened.opened {
            Some(_) => Ok(Self { frames, calls }),
            None => Err(ended("serve")),
        }
    }
}

#[async_trait]
impl Responder for Server {
    async fn serve(&mut self) -> Result<(), BenchError> {
        loop {
            let calls = self.calls.next().await?;
            let replies = calls.calls.into_iter().map(|call| Reply {
                call: call.call,
                outcome: Some(reply::Outcome::Record(call.record.unwrap_or_default())),
            });
            let frame = ServeRequest {
                open: None,
                replies: replies.collect(),
            };
            let sent = self.frames.send(frame).await;
            sent.map_err(|_| ended("serving"))?;
        }
    }
}
