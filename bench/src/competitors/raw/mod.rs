//! The limits of the machine itself: what a broker could reach at most if it did nothing.
//!
//! | | what it does with what is published |
//! |---|---|
//! | `raw-disk` | appends it to a file and calls `fdatasync`, once for all that came meanwhile; no process, no network |
//! | `raw-tcp` | sends it over a loopback connection to a process that counts it and answers |
//! | `raw-tonic` | sends it in the frames of the native protocol to a process that only answers them |

mod disk;
mod server;

pub use server::{Echo, serve};

use crate::BenchError;
use crate::competitors::flotilla::{Answers, Batches, TopicFrames, connect, outbox};
use crate::protocol::flotilla::bench::echo_client::EchoClient;
use crate::supervise::{Process, free_ports, kill_all};
use crate::target::{
    Competitor, Consumer, Family, Nodes, Place, Producer, Responder, Running, Source, Support,
};
use async_trait::async_trait;
use futures::future::{self, FutureExt};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(10);
const NOTHING_STORED: BenchError = BenchError::NotSupported("receiving");

/// Which limit is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Disk,
    Tcp,
    Tonic,
}

pub struct Raw {
    limit: Limit,
}

impl Raw {
    pub fn new(limit: Limit) -> Self {
        Self { limit }
    }
}

#[async_trait]
impl Competitor for Raw {
    fn name(&self) -> &'static str {
        match self.limit {
            Limit::Disk => "raw-disk",
            Limit::Tcp => "raw-tcp",
            Limit::Tonic => "raw-tonic",
        }
    }

    fn durability(&self, _: Family, _: Nodes) -> &'static str {
        match self.limit {
            Limit::Disk => "limit: append + fdatasync, no server",
            Limit::Tcp => "limit: loopback TCP, nothing stored",
            Limit::Tonic => "limit: gRPC stream, nothing stored",
        }
    }

    fn supports(&self, family: Family, nodes: Nodes) -> Support {
        match (family, nodes) {
            (Family::Topics, Nodes::One) => Support::Measured,
            _ => Support::NotMeasured,
        }
    }

    fn keeps_messages(&self) -> bool {
        false
    }

    fn version(&self) -> Result<String, BenchError> {
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    async fn start(&self, place: Place) -> Result<Box<dyn Running>, BenchError> {
        let echo = match self.limit {
            Limit::Disk => {
                return Ok(Box::new(RawDisk {
                    directory: place.directory,
                    files: AtomicUsize::new(0),
                }));
            }
            Limit::Tcp => Echo::Tcp,
            Limit::Tonic => Echo::Tonic,
        };
        let [port] = free_ports()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let program = std::env::current_exe();
        let mut command = Command::new(program.map_err(BenchError::io("find this program"))?);
        command.args(["echo", echo.name(), &address.to_string()]);
        let log = place.directory.join("echo.log");
        let mut process = Process::start(self.name(), command, &log)?;
        // On loopback this is answered at once, whatever the answer is.
        let connects = move || std::net::TcpStream::connect(address).is_ok();
        let connected = |_: &Process| future::ready(connects()).boxed();
        process.wait_ready(START_LIMIT, connected).await?;
        Ok(Box::new(RawServer {
            echo,
            address,
            process,
        }))
    }
}

/// Files in a directory.
struct RawDisk {
    directory: PathBuf,
    files: AtomicUsize,
}

#[async_trait]
impl Running for RawDisk {
    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    async fn prepare(&self, _: Family, _: &[String]) -> Result<(), BenchError> {
        Ok(())
    }

    async fn producer(&self, _: Family, _: Arc<[String]>) -> Result<Box<dyn Producer>, BenchError> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("{number}.data"));
        Ok(Box::new(disk::Appender::create(&path)?))
    }

    async fn consumer(&self, _: Source<'_>) -> Result<Box<dyn Consumer>, BenchError> {
        Err(NOTHING_STORED)
    }

    async fn responder(&self, _: &str) -> Result<Box<dyn Responder>, BenchError> {
        Err(NOTHING_STORED)
    }

    async fn stop(self: Box<Self>) -> Result<(), BenchError> {
        Ok(())
    }
}

/// A process of this program that only answers.
struct RawServer {
    echo: Echo,
    address: SocketAddr,
    process: Process,
}

#[async_trait]
impl Running for RawServer {
    fn processes(&self) -> Vec<u32> {
        vec![self.process.pid()]
    }

    async fn prepare(&self, _: Family, _: &[String]) -> Result<(), BenchError> {
        Ok(())
    }

    async fn producer(
        &self,
        _: Family,
        names: Arc<[String]>,
    ) -> Result<Box<dyn Producer>, BenchError> {
        match self.echo {
            Echo::Tcp => Ok(Box::new(server::TcpProducer::open(self.address).await?)),
            Echo::Tonic => {
                let mut client = EchoClient::new(connect(self.address).await?);
                let (frames, stream) = outbox();
                let answers = Answers::of("publish", async move { client.publish(stream).await });
                Ok(Box::new(Batches::<TopicFrames>::new(
                    frames, answers, names,
                )))
            }
        }
    }

    async fn consumer(&self, _: Source<'_>) -> Result<Box<dyn Consumer>, BenchError> {
        Err(NOTHING_STORED)
    }

    async fn responder(&self, _: &str) -> Result<Box<dyn Responder>, BenchError> {
        Err(NOTHING_STORED)
    }

    async fn stop(self: Box<Self>) -> Result<(), BenchError> {
        kill_all(vec![self.process]).await
    }
}
