//! Reading streams by consumer groups, and listening to signals.

use super::reply::{Entries, read_entries};
use super::{WORKERS, connect, create_group, uuid};
use crate::BenchError;
use crate::competitors::peers::next_ready;
use crate::target::Consumer;
use ::redis::aio::{MultiplexedConnection, PubSubStream};
use ::redis::{Client, Msg, Pipeline, RedisResult, Value, cmd};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::task::JoinHandle;

/// How many messages a reader of a topic asks for at a time.
const READ_BATCH: usize = 1_000;
/// The same for a worker of a queue, less, so that all workers get their share.
const WORK_BATCH: usize = 256;
/// How long the server waits for messages before it answers that there are none.
const BLOCK_MS: usize = 1_000;

/// What happens to what was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// It stays, for other readers. Acknowledgements are not waited for before more is read.
    Stored,
    /// It is removed.
    Nothing,
}

pub struct Reader {
    /// Where reads wait for messages, and nothing else can be asked meanwhile.
    reads: MultiplexedConnection,
    others: MultiplexedConnection,
    key: String,
    group: String,
    name: String,
    keep: Keep,
    /// The read that is under way while the last one's messages are worked on.
    reading: Option<JoinHandle<RedisResult<Value>>>,
    acking: Option<JoinHandle<RedisResult<()>>>,
    unacked: Vec<Bytes>,
}

impl Reader {
    /// Opens a group of its own on a topic. `start` is the id after which it reads.
    pub async fn topic(
        port: u16,
        topic: &str,
        group: &str,
        start: &str,
    ) -> Result<Self, BenchError> {
        let reader = Self::new(port, topic, group, Keep::Stored).await?;
        let mut pipeline = Pipeline::new();
        create_group(&mut pipeline, topic, group, start);
        pipeline
            .exec_async(&mut reader.others.clone())
            .await
            .map_err(BenchError::client("make a group"))?;
        Ok(reader)
    }

    /// Opens a worker of a queue.
    pub async fn queue(port: u16, queue: &str) -> Result<Self, BenchError> {
        Self::new(port, queue, WORKERS, Keep::Nothing).await
    }

    async fn new(port: u16, key: &str, group: &str, keep: Keep) -> Result<Self, BenchError> {
        Ok(Self {
            reads: connect(port).await?,
            others: connect(port).await?,
            key: key.to_owned(),
            group: group.to_owned(),
            name: uuid(),
            keep,
            reading: None,
            acking: None,
            unacked: Vec::new(),
        })
    }

    fn read(&self) -> JoinHandle<RedisResult<Value>> {
        let count = match self.keep {
            Keep::Stored => READ_BATCH,
            Keep::Nothing => WORK_BATCH,
        };
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.name);
        command.arg("COUNT").arg(count).arg("BLOCK").arg(BLOCK_MS);
        command.arg("STREAMS").arg(&self.key).arg(">");
        let mut connection = self.reads.clone();
        tokio::spawn(async move { command.query_async(&mut connection).await })
    }

    /// Waits for the messages of the read that is under way, or of a new one.
    async fn entries(&mut self) -> Result<Entries, BenchError> {
        loop {
            // It stays where it is found again until it is answered: the caller may give up waiting.
            if self.reading.is_none() {
                self.reading = Some(self.read());
            }
            let Some(reading) = &mut self.reading else {
                continue;
            };
            let value = reading.await.map_err(BenchError::client("read"))?;
            self.reading = None;
            let entries = read_entries(value.map_err(BenchError::client("read"))?)?;
            if !entries.ids.is_empty() {
                return Ok(entries);
            }
        }
    }

    fn settlement(&mut self) -> Pipeline {
        let mut pipeline = Pipeline::new();
        let ack = pipeline.cmd("XACK").arg(&self.key).arg(&self.group);
        for id in &self.unacked {
            ack.arg(&id[..]);
        }
        if self.keep == Keep::Nothing {
            let delete = pipeline.cmd("XDEL").arg(&self.key);
            for id in &self.unacked {
                delete.arg(&id[..]);
            }
        }
        self.unacked.clear();
        pipeline
    }
}

#[async_trait]
impl Consumer for Reader {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        let entries = self.entries().await?;
        self.reading = Some(self.read());
        self.unacked.extend(entries.ids);
        bodies.extend(entries.bodies);
        Ok(())
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        if self.unacked.is_empty() {
            return Ok(());
        }
        let settlement = self.settlement();
        let mut connection = self.others.clone();
        let acking = async move { settlement.exec_async(&mut connection).await };
        let failed = BenchError::client("acknowledge");
        match self.keep {
            Keep::Nothing => acking.await.map_err(failed),
            Keep::Stored => {
                let before = self.acking.replace(tokio::spawn(acking));
                match before {
                    Some(before) => before
                        .await
                        .map_err(BenchError::client("acknowledge"))?
                        .map_err(failed),
                    None => Ok(()),
                }
            }
        }
    }
}

/// A listener to signals.
pub struct Listener {
    messages: PubSubStream,
}

impl Listener {
    pub async fn new(client: Client, name: &str) -> Result<Self, BenchError> {
        let mut listening = client
            .get_async_pubsub()
            .await
            .map_err(BenchError::client("connect to listen"))?;
        listening
            .subscribe(name)
            .await
            .map_err(BenchError::client("subscribe"))?;
        Ok(Self {
            messages: listening.into_on_message(),
        })
    }
}

#[async_trait]
impl Consumer for Listener {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        let mut message: Option<Msg> = self.messages.next().await;
        if message.is_none() {
            return Err(BenchError::Refused {
                doing: "listening".to_owned(),
                text: "the connection was closed".to_owned(),
            });
        }
        while let Some(one) = message {
            bodies.push(Bytes::copy_from_slice(one.get_payload_bytes()));
            message = next_ready(&mut self.messages);
        }
        Ok(())
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        Ok(())
    }
}
