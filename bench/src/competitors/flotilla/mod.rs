//! Flotilla itself: one program, driven through the native protocol or through that of KubeMQ.

mod answers;
mod batches;
mod connect;
mod kubemq;
mod queue_worker;
mod requests;
mod servers;
mod signals;
mod topic_reader;

pub use answers::Answers;
pub use batches::{Batches, TopicFrames};
pub use connect::{
    CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES_MAX, STREAM_WINDOW_BYTES, connect, outbox,
};

use crate::BenchError;
use crate::target::{
    Competitor, Consumer, Family, Nodes, Place, Producer, Responder, Running, Source, Support,
};
use async_trait::async_trait;
use servers::Servers;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// How Flotilla is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Native,
    KubeMq,
}

/// A build of Flotilla.
pub struct Flotilla {
    name: &'static str,
    binary: PathBuf,
    protocol: Protocol,
}

impl Flotilla {
    pub fn new(name: &'static str, binary: &Path, protocol: Protocol) -> Self {
        Self {
            name,
            binary: binary.to_owned(),
            protocol,
        }
    }
}

#[async_trait]
impl Competitor for Flotilla {
    fn name(&self) -> &'static str {
        self.name
    }

    fn durability(&self, family: Family, nodes: Nodes) -> &'static str {
        match (family, nodes, self.protocol) {
            (Family::Signals | Family::Requests, _, _) => "memory only",
            (Family::Topics, Nodes::One, Protocol::KubeMq) => {
                "synced before the acknowledgement; readers send none"
            }
            (Family::Topics, Nodes::Three, Protocol::KubeMq) => {
                "synced on a majority before the acknowledgement; readers send none"
            }
            (_, Nodes::One, _) => "synced before the acknowledgement",
            (_, Nodes::Three, _) => "synced on a majority before the acknowledgement",
        }
    }

    fn supports(&self, family: Family, _: Nodes) -> Support {
        match (self.protocol, family) {
            (Protocol::KubeMq, Family::Requests) => Support::Missing,
            _ => Support::Measured,
        }
    }

    fn version(&self) -> Result<String, BenchError> {
        let doing = format!("run {} --version", self.binary.display());
        let output = Command::new(&self.binary).arg("--version").output();
        match output {
            Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(BenchError::NotInstalled {
                    what: self.binary.display().to_string(),
                    hint: "build it with `cargo build --release -p flotilla-daemon`",
                })
            }
            Err(error) => Err(BenchError::io(doing)(error)),
        }
    }

    async fn start(&self, place: Place) -> Result<Box<dyn Running>, BenchError> {
        let servers = Servers::start(&self.binary, place).await?;
        Ok(match self.protocol {
            Protocol::Native => Box::new(Native { servers }),
            Protocol::KubeMq => Box::new(kubemq::KubeMq { servers }),
        })
    }
}

/// Nodes that are driven through the native protocol.
struct Native {
    servers: Servers,
}

#[async_trait]
impl Running for Native {
    fn processes(&self) -> Vec<u32> {
        self.servers.processes()
    }

    async fn prepare(&self, _: Family, _: &[String]) -> Result<(), BenchError> {
        // Names are there when they are used.
        Ok(())
    }

    async fn producer(
        &self,
        family: Family,
        names: Arc<[String]>,
    ) -> Result<Box<dyn Producer>, BenchError> {
        let address = self.servers.next_address();
        Ok(match family {
            Family::Topics => Box::new(batches::to_topics(address, names).await?),
            Family::Queues => Box::new(batches::to_queues(address, names).await?),
            Family::Signals => Box::new(signals::Sender::open(address, names).await?),
            Family::Requests => Box::new(requests::Requester::open(address, names).await?),
        })
    }

    async fn consumer(&self, source: Source<'_>) -> Result<Box<dyn Consumer>, BenchError> {
        let address = self.servers.next_address();
        Ok(match source {
            Source::Backlog { topic, reader } => {
                Box::new(topic_reader::TopicReader::from_first(address, topic, reader).await?)
            }
            Source::Live { topic } => {
                Box::new(topic_reader::TopicReader::from_now(address, topic).await?)
            }
            Source::Queue { queue } => {
                Box::new(queue_worker::QueueWorker::open(address, queue).await?)
            }
            Source::Signals { name } => Box::new(signals::Listener::open(address, name).await?),
        })
    }

    async fn responder(&self, name: &str) -> Result<Box<dyn Responder>, BenchError> {
        let address = self.servers.next_address();
        Ok(Box::new(requests::Server::open(address, name).await?))
    }

    async fn kill_and_restart(&mut self) -> Result<(), BenchError> {
        self.servers.kill_and_restart().await
    }

    async fn stop(self: Box<Self>) -> Result<(), BenchError> {
        self.servers.stop().await
    }
}
