//! NATS: JetStream for topics and queues, core NATS for signals and requests. Client: `async-nats`.
//!
//! Each topic or queue is a stream of its own, so that they do not wait for each other; very many names
//! share one stream as subjects, which is how NATS is meant to be used then. Publishing is asynchronous, as
//! its documentation recommends: all acknowledgements come to one inbox of the connection.

use super::fleet::Fleet;
use crate::BenchError;
use crate::target::{
    Competitor, Consumer, Family, Nodes, Place, Producer, Responder, Running, Source, Support,
};
use async_nats::{Client, ConnectOptions};
use async_trait::async_trait;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

mod producer;
mod receive;
mod server;
mod streams;

/// How many messages of one subscription may wait in the client. Beyond that it drops some; listeners of the
/// bench are never that far behind.
const SUBSCRIPTION_MESSAGES_MAX: usize = 262_144;

/// When JetStream syncs its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Every two minutes.
    Default,
    /// Before each acknowledgement.
    Always,
}

pub struct Nats {
    sync: Sync,
}

impl Nats {
    pub fn new(sync: Sync) -> Self {
        Self { sync }
    }
}

#[async_trait]
impl Competitor for Nats {
    fn name(&self) -> &'static str {
        match self.sync {
            Sync::Default => "nats",
            Sync::Always => "nats-always",
        }
    }

    fn durability(&self, family: Family, nodes: Nodes) -> &'static str {
        match (family, self.sync, nodes) {
            (Family::Signals | Family::Requests, _, _) => "memory only",
            (Family::Topics, Sync::Default, Nodes::One) => {
                "acknowledged before syncing (every 2 min)"
            }
            (Family::Topics, Sync::Default, Nodes::Three) => {
                "acknowledged by 2 of 3 before syncing (every 2 min)"
            }
            (Family::Topics, Sync::Always, Nodes::One) => "synced before the acknowledgement",
            (Family::Topics, Sync::Always, Nodes::Three) => {
                "synced by 2 of 3 before the acknowledgement"
            }
            (Family::Queues, Sync::Default, Nodes::One) => {
                "acknowledged before syncing (every 2 min); settlements not answered"
            }
            (Family::Queues, Sync::Default, Nodes::Three) => {
                "acknowledged by 2 of 3 before syncing (every 2 min); settlements not answered"
            }
            (Family::Queues, Sync::Always, Nodes::One) => {
                "synced before the acknowledgement; settlements not answered"
            }
            (Family::Queues, Sync::Always, Nodes::Three) => {
                "synced by 2 of 3 before the acknowledgement; settlements not answered"
            }
        }
    }

    fn supports(&self, _family: Family, _nodes: Nodes) -> Support {
        Support::Measured
    }

    fn version(&self) -> Result<String, BenchError> {
        let find = |text: &str| Some(text.trim().rsplit_once('v')?.1.to_owned());
        super::version("the NATS server", &server::program(), "--version", find)
    }

    async fn start(&self, place: Place) -> Result<Box<dyn Running>, BenchError> {
        // Known before anything is started, with the hint how to install it.
        self.version()?;
        let (fleet, ports) = server::start(&place, self.sync).await?;
        Ok(Box::new(RunningNats {
            fleet,
            ports,
            nodes: place.nodes,
            shared_stream: AtomicBool::new(false),
            next_node: AtomicUsize::new(0),
        }))
    }
}

struct RunningNats {
    fleet: Fleet,
    ports: Vec<u16>,
    nodes: Nodes,
    /// Whether all names are in one stream.
    shared_stream: AtomicBool,
    next_node: AtomicUsize,
}

impl RunningNats {
    /// A new connection, to the next node each time.
    async fn connect(&self) -> Result<Client, BenchError> {
        let index = self.next_node.fetch_add(1, Ordering::Relaxed);
        connect(self.ports[index % self.ports.len()]).await
    }

    fn layout(&self) -> streams::Layout {
        streams::Layout {
            shared: self.shared_stream.load(Ordering::Relaxed),
            nodes: self.nodes,
        }
    }
}

/// Connects to one node, and stays there.
async fn connect(port: u16) -> Result<Client, BenchError> {
    ConnectOptions::new()
        .ignore_discovered_servers()
        .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
        .request_timeout(Some(std::time::Duration::from_secs(30)))
        .connect(format!("nats://127.0.0.1:{port}"))
        .await
        .map_err(BenchError::client("connect to NATS"))
}

#[async_trait]
impl Running for RunningNats {
    fn processes(&self) -> Vec<u32> {
        self.fleet.processes()
    }

    async fn prepare(&self, family: Family, names: &[String]) -> Result<(), BenchError> {
        match family {
            Family::Topics | Family::Queues => {
                let shared = names.len() > streams::OWN_STREAMS_MAX;
                self.shared_stream.store(shared, Ordering::Relaxed);
                let client = self.connect().await?;
                self.layout().create(client, family, names).await
            }
            // They need nothing to be made.
            Family::Signals | Family::Requests => Ok(()),
        }
    }

    async fn producer(
        &self,
        family: Family,
        names: Arc<[String]>,
    ) -> Result<Box<dyn Producer>, BenchError> {
        let client = self.connect().await?;
        Ok(match family {
            Family::Signals => Box::new(producer::Sender::new(client, &names)),
            Family::Topics | Family::Queues | Family::Requests => {
                Box::new(producer::Asker::new(client, &names).await?)
            }
        })
    }

    async fn consumer(&self, source: Source<'_>) -> Result<Box<dyn Consumer>, BenchError> {
        let client = self.connect().await?;
        Ok(match source {
            Source::Backlog { .. } | Source::Live { .. } | Source::Queue { .. } => {
                Box::new(self.layout().consumer(client, source).await?)
            }
            Source::Signals { name } => {
                let listener = receive::Listener::new(client, name).await?;
                for port in &self.ports {
                    listener.wait_reachable(connect(*port).await?).await?;
                }
                Box::new(listener)
            }
        })
    }

    async fn responder(&self, name: &str) -> Result<Box<dyn Responder>, BenchError> {
        let client = self.connect().await?;
        let replier = receive::Replier::new(client, name).await?;
        for port in &self.ports {
            replier.wait_reachable(connect(*port).await?).await?;
        }
        Ok(Box::new(replier))
    }

    async fn kill_and_restart(&mut self) -> Result<(), BenchError> {
        self.fleet.kill().await?;
        server::launch(&mut self.fleet, &self.ports).await
    }

    async fn stop(mut self: Box<Self>) -> Result<(), BenchError> {
        self.fleet.kill().await
    }
}

/// The subject of a name.
fn subject(name: &str) -> String {
    format!("bench.{name}")
}

/// Where `scripts/bench-deps.sh` puts the server.
fn installed() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../.local/nats-2.15.1/bin/nats-server"
    ))
}
