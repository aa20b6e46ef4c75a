//! Topics and queues: streams of JetStream, read by pull consumers with explicit acknowledgements.

use super::subject;
use crate::BenchError;
use crate::competitors::peers::next_ready;
use crate::target::{Consumer, Family, Nodes, Source};
use async_nats::Client;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use async_nats::jetstream::{self, Message};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::time::{Duration, Instant};

/// Up to this many names have a stream each.
pub const OWN_STREAMS_MAX: usize = 64;
/// The stream of all names, if there are more.
const SHARED_STREAM: &str = "all";
/// How long the nodes of a new cluster may take until each one can hold replicas.
const PLACEMENT_LIMIT: Duration = Duration::from_secs(30);
/// How long a node may take to learn where a consumer is.
const REACHABLE_LIMIT: Duration = Duration::from_secs(10);
/// How often it is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How much a reader asks for at a time, and may have without acknowledging it.
const READ_BATCH: usize = 1_000;
const READ_PENDING_MAX: i64 = 65_536;
/// The same for each worker of a queue, less, so that all of them get their share.
const WORK_BATCH: usize = 256;

/// Which streams there are.
#[derive(Clone, Copy)]
pub struct Layout {
    pub shared: bool,
    pub nodes: Nodes,
}

impl Layout {
    /// Makes the streams for all names.
    pub async fn create(
        self,
        client: Client,
        family: Family,
        names: &[String],
    ) -> Result<(), BenchError> {
        let context = jetstream::new(client);
        if self.shared {
            return self
                .create_stream(&context, family, SHARED_STREAM, subject("*"))
                .await;
        }
        for name in names {
            self.create_stream(&context, family, name, subject(name))
                .await?;
        }
        Ok(())
    }

    async fn create_stream(
        self,
        context: &jetstream::Context,
        family: Family,
        name: &str,
        subject: String,
    ) -> Result<(), BenchError> {
        let config = Config {
            name: name.to_owned(),
            subjects: vec![subject],
            retention: match family {
                Family::Queues => RetentionPolicy::WorkQueue,
                _ => RetentionPolicy::Limits,
            },
            num_replicas: self.nodes.count(),
            ..Config::default()
        };
        let deadline = Instant::now() + PLACEMENT_LIMIT;
        loop {
            match context.create_stream(config.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if self.nodes == Nodes::One || Instant::now() > deadline => {
                    return Err(BenchError::client(format!("make the stream {name}"))(error));
                }
                // Nodes of a cluster that was just formed do not know each other's room yet.
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Opens a reader of a topic or a worker of a queue.
    pub async fn consumer(
        self,
        client: Client,
        source: Source<'_>,
    ) -> Result<PullConsumer, BenchError> {
        let mut config = pull::Config {
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: READ_PENDING_MAX,
            ..pull::Config::default()
        };
        let (name, batch) = match source {
            Source::Backlog { topic, reader } => {
                config.durable_name = Some(reader.to_owned());
                (topic, READ_BATCH)
            }
            Source::Live { topic } => {
                config.deliver_policy = DeliverPolicy::New;
                (topic, READ_BATCH)
            }
            Source::Queue { queue } => {
                // One consumer of the server, which the workers share.
                config.durable_name = Some(format!("workers-{queue}"));
                (queue, WORK_BATCH)
            }
            Source::Signals { .. } => return Err(BenchError::NotSupported("storing signals")),
        };
        let stream = if self.shared {
            config.filter_subject = subject(name);
            SHARED_STREAM
        } else {
            name
        };
        let context = jetstream::new(client);
        let consumer = context
            .create_consumer_on_stream(config, stream)
            .await
            .map_err(BenchError::client(format!("make a consumer of {name}")))?;
        Ok(PullConsumer {
            messages: pull(&consumer, batch).await?,
            consumer,
            batch,
            reachable_by: Instant::now() + REACHABLE_LIMIT,
            unacked: Vec::new(),
        })
    }
}

pub struct PullConsumer {
    consumer: consumer::Consumer<pull::Config>,
    batch: usize,
    messages: pull::Stream,
    /// Until then a node of a cluster may not know yet who answers for the consumer.
    reachable_by: Instant,
    unacked: Vec<Message>,
}

async fn pull(
    consumer: &consumer::Consumer<pull::Config>,
    batch: usize,
) -> Result<pull::Stream, BenchError> {
    consumer
        .stream()
        .max_messages_per_batch(batch)
        .messages()
        .await
        .map_err(BenchError::client("pull messages"))
}

impl PullConsumer {
    /// Waits for the next message.
    async fn first(&mut self) -> Result<Message, BenchError> {
        loop {
            match self.messages.next().await {
                Some(Ok(message)) => return Ok(message),
                Some(Err(error))
                    if error.kind() == pull::MessagesErrorKind::NoResponders
                        && Instant::now() < self.reachable_by =>
                {
                    tokio::time::sleep(RETRY).await;
                    self.messages = pull(&self.consumer, self.batch).await?;
                }
                Some(Err(error)) => return Err(BenchError::client("pull a message")(error)),
                None => {
                    return Err(BenchError::Refused {
                        doing: "pulling messages".to_owned(),
                        text: "the consumer has ended".to_owned(),
                    });
                }
            }
        }
    }
}

#[async_trait]
impl Consumer for PullConsumer {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        let mut message = self.first().await?;
        loop {
            bodies.push(message.payload.clone());
            self.unacked.push(message);
            if self.unacked.len() >= READ_BATCH {
                return Ok(());
            }
            message = match next_ready(&mut self.messages) {
                Some(next) => next.map_err(BenchError::client("pull a message"))?,
                None => return Ok(()),
            };
        }
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        for message in self.unacked.drain(..) {
            message
                .ack()
                .await
                .map_err(BenchError::client("acknowledge a message"))?;
        }
        Ok(())
    }
}
