//! Redis: streams for topics and queues, with consumer groups; publish/subscribe for signals. Client: `redis`.
//!
//! Commands are pipelined. The server syncs its append-only file once for all commands that it read at a
//! time, before it answers them, if it is told to sync always. One node only: its replication knows no
//! majority.

use super::fleet::Fleet;
use super::{make_directory, write_file};
use crate::BenchError;
use crate::supervise::free_ports;
use crate::target::{
    Competitor, Consumer, Family, Nodes, Place, Producer, Responder, Running, Source, Support,
};
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Pipeline, cmd};
use async_trait::async_trait;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

mod producer;
mod receive;
mod reply;

const PROGRAM: &str = "/usr/bin/redis-server";
/// The group that all workers of a queue share.
const WORKERS: &str = "workers";
/// How many streams are made at a time.
const PREPARE_BATCH: usize = 500;
/// How long an answer may take, also while a slow disk is synced.
const RESPONSE_LIMIT: Duration = Duration::from_secs(30);

/// When the append-only file is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    Always,
    EverySecond,
}

pub struct Redis {
    sync: Sync,
}

impl Redis {
    pub fn new(sync: Sync) -> Self {
        Self { sync }
    }

    fn configuration(&self, port: u16, data: &Path) -> String {
        let sync = match self.sync {
            Sync::Always => "always",
            Sync::EverySecond => "everysec",
        };
        format!(
            "bind 127.0.0.1\n\
             port {port}\n\
             dir \"{}\"\n\
             daemonize no\n\
             save \"\"\n\
             appendonly yes\n\
             appendfsync {sync}\n",
            data.display(),
        )
    }
}

#[async_trait]
impl Competitor for Redis {
    fn name(&self) -> &'static str {
        match self.sync {
            Sync::Always => "redis-always",
            Sync::EverySecond => "redis-everysec",
        }
    }

    fn durability(&self, family: Family, _nodes: Nodes) -> &'static str {
        match (family, self.sync) {
            (Family::Signals | Family::Requests, _) => "memory only",
            (_, Sync::Always) => "synced before the acknowledgement",
            (_, Sync::EverySecond) => "acknowledged before syncing (every second)",
        }
    }

    fn supports(&self, family: Family, nodes: Nodes) -> Support {
        match (family, nodes) {
            (Family::Requests, _) => Support::Missing,
            (_, Nodes::One) => Support::Measured,
            // It has replicas, but no majority of them that acknowledges.
            (Family::Topics | Family::Queues, Nodes::Three) => Support::Missing,
            (Family::Signals, Nodes::Three) => Support::NotMeasured,
        }
    }

    fn version(&self) -> Result<String, BenchError> {
        let find = |text: &str| {
            let (_, rest) = text.split_once("v=")?;
            Some(rest.split_whitespace().next()?.to_owned())
        };
        super::version("Redis", Path::new(PROGRAM), "--version", find)
    }

    async fn start(&self, place: Place) -> Result<Box<dyn Running>, BenchError> {
        // Known before anything is started, with the hint how to install it.
        self.version()?;
        let [port] = free_ports()?;
        let data = make_directory(&place.directory, "data")?;
        let text = self.configuration(port, &data);
        let file = write_file(&place.directory, "redis.conf", &text)?;
        let mut fleet = Fleet::default();
        let log = place.directory.join("redis.log");
        fleet.add("redis".to_owned(), log, move || {
            let mut command = Command::new(PROGRAM);
            command.arg(&file);
            command
        });
        let mut running = RunningRedis { fleet, port };
        running.launch().await?;
        Ok(Box::new(running))
    }
}

struct RunningRedis {
    fleet: Fleet,
    port: u16,
}

impl RunningRedis {
    async fn launch(&mut self) -> Result<(), BenchError> {
        self.fleet.launch(0)?;
        let port = self.port;
        self.fleet.wait_ready(0, || serves(port)).await
    }
}

/// Whether it answers commands; it refuses them while it loads its file.
async fn serves(port: u16) -> bool {
    match connect(port).await {
        Ok(mut connection) => cmd("PING").exec_async(&mut connection).await.is_ok(),
        Err(_) => false,
    }
}

fn client(port: u16) -> Result<Client, BenchError> {
    Client::open(format!("redis://127.0.0.1:{port}")).map_err(BenchError::client("open a client"))
}

async fn connect(port: u16) -> Result<MultiplexedConnection, BenchError> {
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(RESPONSE_LIMIT))
        // As large as a pipeline of a few hundred messages: the default of 8 KiB is for single commands.
        .set_write_backpressure_boundary(1 << 20);
    client(port)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .map_err(BenchError::client("connect to Redis"))
}

#[async_trait]
impl Running for RunningRedis {
    fn processes(&self) -> Vec<u32> {
        self.fleet.processes()
    }

    async fn prepare(&self, family: Family, names: &[String]) -> Result<(), BenchError> {
        if family != Family::Queues {
            // Streams come into being with their first message.
            return Ok(());
        }
        let mut connection = connect(self.port).await?;
        for names in names.chunks(PREPARE_BATCH) {
            let mut pipeline = Pipeline::new();
            for name in names {
                create_group(&mut pipeline, name, WORKERS, "0");
            }
            pipeline
                .exec_async(&mut connection)
                .await
                .map_err(BenchError::client("make the groups"))?;
        }
        Ok(())
    }

    async fn producer(
        &self,
        family: Family,
        names: Arc<[String]>,
    ) -> Result<Box<dyn Producer>, BenchError> {
        let connection = connect(self.port).await?;
        Ok(match family {
            Family::Topics | Family::Queues => Box::new(producer::Pipelined::new(
                connection,
                names,
                producer::Verb::Add,
            )),
            Family::Signals => Box::new(producer::Pipelined::new(
                connection,
                names,
                producer::Verb::Publish,
            )),
            Family::Requests => return Err(BenchError::NotSupported("request and reply")),
        })
    }

    async fn consumer(&self, source: Source<'_>) -> Result<Box<dyn Consumer>, BenchError> {
        let reader = match source {
            Source::Signals { name } => {
                let listener = receive::Listener::new(client(self.port)?, name).await?;
                return Ok(Box::new(listener));
            }
            Source::Backlog { topic, reader } => {
                receive::Reader::topic(self.port, topic, reader, "0").await?
            }
            Source::Live { topic } => {
                // One that was not used before, as every name of a reader.
                let reader = uuid();
                receive::Reader::topic(self.port, topic, &reader, "$").await?
            }
            Source::Queue { queue } => receive::Reader::queue(self.port, queue).await?,
        };
        Ok(Box::new(reader))
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

fn create_group(pipeline: &mut Pipeline, key: &str, group: &str, start: &str) {
    pipeline
        .cmd("XGROUP")
        .arg("CREATE")
        .arg(key)
        .arg(group)
        .arg(start)
        .arg("MKSTREAM");
}

/// A name that nobody else has.
fn uuid() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_synced_as_the_name_says() {
        let text = |sync| Redis::new(sync).configuration(4000, Path::new("/data"));
        assert!(text(Sync::Always).contains("\nappendfsync always\n"));
        assert!(text(Sync::EverySecond).contains("\nappendfsync everysec\n"));
    }
}
