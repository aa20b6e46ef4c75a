//! PostgreSQL: a table of messages for topics, a table for queues whose workers skip what others hold.
//! Client: `tokio-postgres`.
//!
//! Messages are inserted in batches, one transaction each, on several connections, so that commits share
//! syncs. A worker removes the messages of a batch in a transaction that it commits when they are done.

use super::fleet::Fleet;
use crate::BenchError;
use crate::supervise::free_ports;
use crate::target::{
    Competitor, Consumer, Family, Nodes, Place, Producer, Responder, Running, Source, Support,
};
use async_trait::async_trait;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio_postgres::{Client, NoTls};

mod producer;
mod receive;
mod server;

/// Tables. Topics and queues are numbers in them, as a user's tables would have a key.
const SCHEMA: &str = "
    CREATE TABLE topic_messages (
        topic int NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY, body bytea NOT NULL,
        PRIMARY KEY (topic, id));
    CREATE TABLE topic_readers (
        topic int NOT NULL, reader text NOT NULL, id bigint NOT NULL,
        PRIMARY KEY (topic, reader));
    CREATE TABLE queue_messages (
        queue int NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY, body bytea NOT NULL,
        PRIMARY KEY (queue, id));
";

pub struct Postgres;

#[async_trait]
impl Competitor for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn durability(&self, family: Family, _nodes: Nodes) -> &'static str {
        match family {
            Family::Queues => "synced before the acknowledgement",
            _ => "synced before the acknowledgement; batches in any order",
        }
    }

    fn supports(&self, family: Family, nodes: Nodes) -> Support {
        match (family, nodes) {
            (Family::Requests, _) => Support::Missing,
            (Family::Topics | Family::Queues, Nodes::One) => Support::Measured,
            // It has NOTIFY, and replicas that commits can wait for.
            (Family::Signals, _) | (_, Nodes::Three) => Support::NotMeasured,
        }
    }

    fn version(&self) -> Result<String, BenchError> {
        let find = |text: &str| Some(text.split_whitespace().nth(2)?.to_owned());
        super::version(
            "PostgreSQL",
            &server::program("postgres"),
            "--version",
            find,
        )
    }

    async fn start(&self, place: Place) -> Result<Box<dyn Running>, BenchError> {
        // Known before anything is started, with the hint how to install it.
        self.version()?;
        let [port] = free_ports()?;
        let data = server::initialise(&place.directory).await?;
        let mut fleet = Fleet::default();
        let log = place.directory.join("postgres.log");
        fleet.add("postgres".to_owned(), log, server::launch(data, port)?);
        let mut running = RunningPostgres {
            fleet,
            port,
            numbers: OnceLock::new(),
        };
        running.launch().await?;
        let client = connect(port).await?;
        client
            .batch_execute(SCHEMA)
            .await
            .map_err(BenchError::client("make the tables"))?;
        Ok(Box::new(running))
    }
}

struct RunningPostgres {
    fleet: Fleet,
    port: u16,
    /// The number of each name.
    numbers: OnceLock<HashMap<String, i32>>,
}

impl RunningPostgres {
    async fn launch(&mut self) -> Result<(), BenchError> {
        self.fleet.launch(0)?;
        let port = self.port;
        // It refuses connections while it recovers.
        self.fleet
            .wait_ready(0, || async move { connect(port).await.is_ok() })
            .await
    }

    fn number(&self, name: &str) -> Result<i32, BenchError> {
        let number = self.numbers.get().and_then(|numbers| numbers.get(name));
        number.copied().ok_or_else(|| BenchError::Refused {
            doing: format!("using {name}"),
            text: "it was not prepared".to_owned(),
        })
    }
}

/// Connects, and runs the connection in the background until the client is dropped.
async fn connect(port: u16) -> Result<Client, BenchError> {
    let address = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&address, NoTls)
        .await
        .map_err(BenchError::client("connect to PostgreSQL"))?;
    // Its error is told to whoever uses the client next.
    tokio::spawn(connection);
    Ok(client)
}

#[async_trait]
impl Running for RunningPostgres {
    fn processes(&self) -> Vec<u32> {
        self.fleet.processes()
    }

    async fn prepare(&self, _family: Family, names: &[String]) -> Result<(), BenchError> {
        let numbers = names.iter().cloned().zip(0..).collect();
        self.numbers.set(numbers).map_err(|_| BenchError::Refused {
            doing: "preparing names".to_owned(),
            text: "names were prepared before".to_owned(),
        })
    }

    async fn producer(
        &self,
        family: Family,
        names: Arc<[String]>,
    ) -> Result<Box<dyn Producer>, BenchError> {
        let table = match family {
            Family::Topics => producer::Table::Topics,
            Family::Queues => producer::Table::Queues,
            Family::Signals | Family::Requests => {
                return Err(BenchError::NotMeasured("sending without storing"));
            }
        };
        let numbers = names.iter().map(|name| self.number(name));
        let numbers = numbers.collect::<Result<Vec<i32>, _>>()?;
        let inserter = producer::Inserter::new(self.port, table, numbers).await?;
        Ok(Box::new(inserter))
    }

    async fn consumer(&self, source: Source<'_>) -> Result<Box<dyn Consumer>, BenchError> {
        let client = connect(self.port).await?;
        Ok(match source {
            Source::Backlog { topic, reader } => {
                let number = self.number(topic)?;
                Box::new(receive::Reader::new(client, number, reader).await?)
            }
            Source::Queue { queue } => {
                let number = self.number(queue)?;
                Box::new(receive::Worker::new(client, number).await?)
            }
            // Ids are given before their transactions commit: who follows them live misses messages.
            Source::Live { .. } => {
                return Err(BenchError::NotMeasured("following a table live"));
            }
            Source::Signals { .. } => {
                return Err(BenchError::NotMeasured("sending without storing"));
            }
        })
    }

    async fn responder(&self, _name: &str) -> Result<Box<dyn Responder>, BenchError> {
        Err(BenchError::NotSupported("request and reply"))
    }

    async fn kill_and_restart(&mut self) -> Result<(), BenchError> {
        self.fleet.kill().await?;
        self.launch().await
    }

    async fn stop(mut self: Box<Self>) -> Result<(), BenchError> {
        self.fleet.kill().await
    }
}

/// Where Debian puts the programs of the server.
fn programs() -> PathBuf {
    PathBuf::from("/usr/lib/postgresql/15/bin")
}
