//! Sending: batches of rows, each inserted in a transaction of its own, several at the same time, so that
//! the order of messages is kept within a batch only.

use super::connect;
use crate::BenchError;
use crate::target::{Outgoing, Producer};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, Statement};

/// How many connections a producer has: while one waits for its sync, the next ones work, and commits
/// that come together share a sync.
const CONNECTIONS: usize = 4;
/// The largest batch.
const BATCH_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Topics,
    Queues,
}

struct Connection {
    client: Arc<Client>,
    insert: Statement,
}

pub struct Inserter {
    connections: Vec<Connection>,
    next: usize,
    /// The number of each name.
    numbers: Vec<i32>,
    under_way: VecDeque<JoinHandle<Result<u64, Error>>>,
}

impl Inserter {
    pub async fn new(port: u16, table: Table, numbers: Vec<i32>) -> Result<Self, BenchError> {
        let insert = match table {
            Table::Topics => {
                "INSERT INTO topic_messages (topic, body) SELECT * FROM unnest($1::int[], $2::bytea[])"
            }
            Table::Queues => {
                "INSERT INTO queue_messages (queue, body) SELECT * FROM unnest($1::int[], $2::bytea[])"
            }
        };
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let client = connect(port).await?;
            let insert = client
                .prepare(insert)
                .await
                .map_err(BenchError::client("prepare the insert"))?;
            connections.push(Connection {
                client: Arc::new(client),
                insert,
            });
        }
        Ok(Self {
            connections,
            next: 0,
            numbers,
            under_way: VecDeque::new(),
        })
    }

    /// Waits for the oldest batch. It may be dropped: the batch stays the oldest one.
    async fn oldest(&mut self) -> Result<usize, BenchError> {
        let Some(oldest) = self.under_way.front_mut() else {
            return Ok(0);
        };
        let inserted = oldest.await.map_err(BenchError::client("insert"))?;
        self.under_way.pop_front();
        let inserted = inserted.map_err(BenchError::client("insert"))?;
        Ok(inserted as usize)
    }
}

#[async_trait]
impl Producer for Inserter {
    fn batch(&self, in_flight: usize) -> usize {
        (in_flight / CONNECTIONS).clamp(1, BATCH_MAX)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        let connection = &self.connections[self.next];
        self.next = (self.next + 1) % self.connections.len();
        let client = Arc::clone(&connection.client);
        let insert = connection.insert.clone();
        let names: Vec<i32> = messages.iter().map(|one| self.numbers[one.name]).collect();
        let bodies: Vec<Bytes> = messages.iter().map(|one| one.body.clone()).collect();
        self.under_way.push_back(tokio::spawn(async move {
            let bodies: Vec<&[u8]> = bodies.iter().map(|body| &body[..]).collect();
            client.execute(&insert, &[&names, &bodies]).await
        }));
        Ok(())
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        let mut count = self.oldest().await?;
        while self.under_way.front().is_some_and(JoinHandle::is_finished) {
            count += self.oldest().await?;
        }
        Ok(count)
    }
}
