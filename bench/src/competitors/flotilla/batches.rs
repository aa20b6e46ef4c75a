//! Durable messages over the native protocol: a stream of batches, answered in their order.

use super::answers::{Answers, ended};
use super::connect::{connect, outbox, record, refused};
use crate::BenchError;
use crate::protocol::flotilla::v1::broker_client::BrokerClient;
use crate::protocol::flotilla::v1::{
    Error, PublishRequest, PublishResponse, Record, RecordError, SendRequest, SendResponse,
};
use crate::target::{Outgoing, Producer};
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The most that the protocol allows in a batch.
const RECORDS_MAX: usize = 4_096;
/// Batches of long messages are divided, so that answers come while more is being sent.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How many batches of what may be under way there are: enough for the next ones to be on their way
/// while one is made durable.
const BATCHES_IN_FLIGHT: usize = 4;

/// The frames of one kind of stream.
pub trait Frames: 'static {
    type Request: Send;
    type Answer: Send + 'static;

    fn request(batch: u64, name: &str, records: Vec<Record>) -> Self::Request;
    /// Which batch it answers, and the first thing that went wrong.
    fn read(answer: &Self::Answer) -> (u64, Option<&Error>);
}

pub struct TopicFrames;

impl Frames for TopicFrames {
    type Request = PublishRequest;
    type Answer = PublishResponse;

    fn request(batch: u64, name: &str, records: Vec<Record>) -> PublishRequest {
        PublishRequest {
            batch,
            topic: name.to_owned(),
            records,
            ..PublishRequest::default()
        }
    }

    fn read(answer: &PublishResponse) -> (u64, Option<&Error>) {
        (answer.batch, first_error(&answer.error, &answer.errors))
    }
}

pub struct QueueFrames;

impl Frames for QueueFrames {
    type Request = SendRequest;
    type Answer = SendResponse;

    fn request(batch: u64, name: &str, records: Vec<Record>) -> SendRequest {
        SendRequest {
            batch,
            queue: name.to_owned(),
            records,
            ..SendRequest::default()
        }
    }

    fn read(answer: &SendResponse) -> (u64, Option<&Error>) {
        (answer.batch, first_error(&answer.error, &answer.errors))
    }
}

fn first_error<'a>(whole: &'a Option<Error>, each: &'a [RecordError]) -> Option<&'a Error> {
    let first = || each.first()?.error.as_ref();
    whole.as_ref().or_else(first)
}

pub async fn to_topics(
    address: SocketAddr,
    names: Arc<[String]>,
) -> Result<Batches<TopicFrames>, BenchError> {
    let mut client = BrokerClient::new(connect(address).await?);
    let (frames, stream) = outbox();
    let answers = Answers::of("publish", async move { client.publish(stream).await });
    Ok(Batches::new(frames, answers, names))
}

pub async fn to_queues(
    address: SocketAddr,
    names: Arc<[String]>,
) -> Result<Batches<QueueFrames>, BenchError> {
    let mut client = BrokerClient::new(connect(address).await?);
    let (frames, stream) = outbox();
    let answers = Answers::of("send to a queue", async move { client.send(stream).await });
    Ok(Batches::new(frames, answers, names))
}

/// A producer over an open stream.
pub struct Batches<F: Frames> {
    frames: mpsc::Sender<F::Request>,
    answers: Answers<F::Answer>,
    names: Arc<[String]>,
    next_batch: u64,
    /// Numbers and lengths of batches that are not answered.
    under_way: VecDeque<(u64, usize)>,
}

impl<F: Frames> Batches<F> {
    pub fn new(
        frames: mpsc::Sender<F::Request>,
        answers: Answers<F::Answer>,
        names: Arc<[String]>,
    ) -> Self {
        Self {
            frames,
            answers,
            names,
            next_batch: 1,
            under_way: VecDeque::new(),
        }
    }

    async fn send_batch(&mut self, name: usize, records: Vec<Record>) -> Result<(), BenchError> {
        let batch = self.next_batch;
        self.next_batch += 1;
        self.under_way.push_back((batch, records.len()));
        let request = F::request(batch, &self.names[name], records);
        let sent = self.frames.send(request).await;
        sent.map_err(|_| ended("a batch"))
    }

    /// Checks an answer, and says how many messages it acknowledges.
    fn take(&mut self, answer: &F::Answer) -> Result<usize, BenchError> {
        let (batch, error) = F::read(answer);
        if let Some(error) = error {
            return Err(refused("a batch", error));
        }
        match self.under_way.pop_front() {
            Some((number, count)) if number == batch => Ok(count),
            expected => Err(BenchError::Refused {
                doing: "the order of answers".to_owned(),
                text: format!("batch {batch} was answered, expected {expected:?}"),
            }),
        }
    }
}

#[async_trait]
impl<F: Frames> Producer for Batches<F> {
    fn batch(&self, in_flight: usize) -> usize {
        (in_flight / BATCHES_IN_FLIGHT).clamp(1, RECORDS_MAX)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        let body_bytes = messages.iter().map(|message| message.body.len()).max();
        let count_max = (BATCH_BYTES_MAX / body_bytes.unwrap_or(0).max(1)).clamp(1, RECORDS_MAX);
        let mut by_name: BTreeMap<usize, Vec<Record>> = BTreeMap::new();
        for message in messages {
            let records = by_name.entry(message.name).or_default();
            if records.is_empty() {
                records.reserve(messages.len().min(count_max));
            }
            records.push(record(&message.body));
            if records.len() == count_max {
                let records = std::mem::take(records);
                self.send_batch(message.name, records).await?;
            }
        }
        for (name, records) in by_name {
            if !records.is_empty() {
                self.send_batch(name, records).await?;
            }
        }
        Ok(())
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        let answer = self.answers.next().await?;
        let mut count = self.take(&answer)?;
        while let Some(answer) = self.answers.ready()? {
            count += self.take(&answer)?;
        }
        Ok(count)
    }
}
