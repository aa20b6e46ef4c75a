//! Sending in pipelines, several of them under way.

use crate::BenchError;
use crate::target::{Outgoing, Producer};
use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisResult, Value};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;

/// The longest pipeline.
const BATCH_MAX: usize = 512;
/// How many pipelines share what may be in flight: while the server works on one, the next one is on its
/// way and the answers of the last one are read.
const PIPELINES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Into a stream.
    Add,
    /// To those who listen.
    Publish,
}

/// What a pipeline will be answered with.
type Answers = BoxFuture<'static, RedisResult<Vec<Value>>>;

pub struct Pipelined {
    connection: MultiplexedConnection,
    names: Arc<[String]>,
    verb: Verb,
    under_way: VecDeque<Answers>,
}

impl Pipelined {
    pub fn new(connection: MultiplexedConnection, names: Arc<[String]>, verb: Verb) -> Self {
        Self {
            connection,
            names,
            verb,
            under_way: VecDeque::new(),
        }
    }

    fn pipeline(&self, messages: &[Outgoing]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(messages.len());
        for message in messages {
            let name = self.names[message.name].as_str();
            let body = &message.body[..];
            match self.verb {
                Verb::Add => pipeline.cmd("XADD").arg(name).arg("*").arg("b").arg(body),
                Verb::Publish => pipeline.cmd("PUBLISH").arg(name).arg(body),
            };
        }
        pipeline
    }

    /// Waits for the answers of the oldest pipeline. It may be dropped: the pipeline stays the oldest one.
    async fn oldest(&mut self) -> Result<usize, BenchError> {
        let Some(oldest) = self.under_way.front_mut() else {
            return Ok(0);
        };
        let answers = oldest.await;
        self.under_way.pop_front();
        count(answers)
    }
}

fn count(answers: RedisResult<Vec<Value>>) -> Result<usize, BenchError> {
    let answers = answers.map_err(BenchError::client("send a pipeline"))?;
    Ok(answers.len())
}

#[async_trait]
impl Producer for Pipelined {
    fn batch(&self, in_flight: usize) -> usize {
        (in_flight / PIPELINES).clamp(1, BATCH_MAX)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        // Nobody asks for the answers of signals: they are what holds back the sender.
        while self.verb == Verb::Publish && self.under_way.len() >= PIPELINES {
            self.oldest().await?;
        }
        let pipeline = self.pipeline(messages);
        let mut connection = self.connection.clone();
        let answers = async move { pipeline.query_async(&mut connection).await };
        let mut answers = answers.boxed();
        // Begun here, so that pipelines are written in the order of sending.
        if let Poll::Ready(early) = futures::poll!(&mut answers) {
            answers = ready(early).boxed();
        }
        self.under_way.push_back(answers);
        Ok(())
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        let mut messages = self.oldest().await?;
        while let Some(next) = self.under_way.front_mut()
            && let Some(answers) = next.now_or_never()
        {
            self.under_way.pop_front();
            messages += count(answers)?;
        }
        Ok(messages)
    }
}
