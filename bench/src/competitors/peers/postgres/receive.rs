//! Reading a topic in the order of ids, and working on a queue.

use crate::BenchError;
use crate::target::Consumer;
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;
use tokio_postgres::{Client, Row, Statement};

/// How many messages are read at a time.
const READ_BATCH: i64 = 1_000;
/// How many messages a worker takes at a time.
const WORK_BATCH: i64 = 256;
/// How long to wait before asking an empty table again.
const POLL: Duration = Duration::from_millis(2);

/// Reads a topic from its first message, and keeps its place in a table.
pub struct Reader {
    client: Client,
    topic: i32,
    name: String,
    read: Statement,
    keep_place: Statement,
    place: i64,
}

impl Reader {
    pub async fn new(client: Client, topic: i32, name: &str) -> Result<Self, BenchError> {
        let read = prepare(
            &client,
            "SELECT body, id FROM topic_messages WHERE topic = $1 AND id > $2 ORDER BY id LIMIT $3",
        )
        .await?;
        let keep_place = prepare(
            &client,
            "INSERT INTO topic_readers (topic, reader, id) VALUES ($1, $2, $3)
             ON CONFLICT (topic, reader) DO UPDATE SET id = EXCLUDED.id",
        )
        .await?;
        Ok(Self {
            client,
            topic,
            name: name.to_owned(),
            read,
            keep_place,
            place: 0,
        })
    }
}

#[async_trait]
impl Consumer for Reader {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        loop {
            let rows = self
                .client
                .query(&self.read, &[&self.topic, &self.place, &READ_BATCH])
                .await
                .map_err(BenchError::client("read"))?;
            if let Some(last) = rows.last() {
                self.place = last.get(1);
                bodies.extend(rows.iter().map(body));
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        self.client
            .execute(&self.keep_place, &[&self.topic, &self.name, &self.place])
            .await
            .map(drop)
            .map_err(BenchError::client("keep the place"))
    }
}

/// Takes messages of a queue that no other worker holds, and removes them for good when they are done.
pub struct Worker {
    client: Client,
    queue: i32,
    take: Statement,
    transaction: Transaction,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transaction {
    None,
    /// It was begun to take messages; whoever waited for them may have given up.
    Asked,
    /// It holds messages that are worked on.
    Holds,
}

impl Worker {
    pub async fn new(client: Client, queue: i32) -> Result<Self, BenchError> {
        let take = prepare(
            &client,
            "WITH taken AS MATERIALIZED (
                 SELECT id FROM queue_messages WHERE queue = $1
                 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
             DELETE FROM queue_messages WHERE queue = $1 AND id = ANY (ARRAY(SELECT id FROM taken))
             RETURNING body",
        )
        .await?;
        Ok(Self {
            client,
            queue,
            take,
            transaction: Transaction::None,
        })
    }

    async fn run(&self, statement: &str) -> Result<(), BenchError> {
        self.client
            .batch_execute(statement)
            .await
            .map_err(BenchError::client(statement))
    }
}

#[async_trait]
impl Consumer for Worker {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        loop {
            // Given up while messages were taken: they go back.
            if self.transaction == Transaction::Asked {
                self.run("ROLLBACK").await?;
                self.transaction = Transaction::None;
            }
            if self.transaction == Transaction::None {
                self.transaction = Transaction::Asked;
                self.run("BEGIN").await?;
            }
            self.transaction = Transaction::Asked;
            let rows = self
                .client
                .query(&self.take, &[&self.queue, &WORK_BATCH])
                .await
                .map_err(BenchError::client("take messages"))?;
            if !rows.is_empty() {
                self.transaction = Transaction::Holds;
                bodies.extend(rows.iter().map(body));
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        if self.transaction == Transaction::Holds {
            self.run("COMMIT").await?;
            self.transaction = Transaction::None;
        }
        Ok(())
    }
}

async fn prepare(client: &Client, statement: &str) -> Result<Statement, BenchError> {
    client
        .prepare(statement)
        .await
        .map_err(BenchError::client("prepare a statement"))
}

fn body(row: &Row) -> Bytes {
    Bytes::from(row.get::<_, Vec<u8>>(0))
}
