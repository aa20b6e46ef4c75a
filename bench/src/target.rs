//! What a system under test must be able to do, for the harness to drive it.
//!
//! A [`Competitor`] is a system in one configuration, such as "NATS JetStream that syncs each message".
//! It is started anew, with an empty data directory, for every run. The drivers that it opens are driven
//! by the workloads in batches: each may use the best batching that its real client library offers, and
//! says with [`Producer::batch`] how much it wants to be given at a time.
//!
//! Honesty is in the drivers: a message counts when the answer came that stands for the durability which
//! [`Competitor::durability`] tells, or when it was received and its acknowledgement sent as a careful
//! user of that system would.

use crate::BenchError;
use async_trait::async_trait;
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;

/// How many nodes a run has. Three keep three replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nodes {
    One,
    Three,
}

impl Nodes {
    pub fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three => 3,
        }
    }
}

/// What kind of thing a workload uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// A durable log, read by position (stream, topic).
    Topics,
    /// Durable messages that are given to one worker each, and acknowledged one by one.
    Queues,
    /// To whoever listens now; nothing is stored.
    Signals,
    /// Asked and answered; nothing is stored.
    Requests,
}

/// Whether a system takes part in workloads of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Measured,
    /// It has something like it, which the bench does not drive.
    NotMeasured,
    /// It has nothing like it.
    Missing,
}

/// Where and how to start.
#[derive(Clone, Debug)]
pub struct Place {
    pub nodes: Nodes,
    /// Empty, of this run alone: for data, logs and configuration. The harness removes it afterwards.
    pub directory: PathBuf,
}

/// A system in one configuration.
#[async_trait]
pub trait Competitor: Send + Sync {
    /// Its name on the command line and in reports: `nats`, `nats-always`.
    fn name(&self) -> &'static str;

    /// What an acknowledgement of it means, as the report says it: `synced before the acknowledgement`,
    /// `acknowledged before syncing`, `memory only`.
    fn durability(&self, family: Family, nodes: Nodes) -> &'static str;

    /// Whether it has this at all, and the bench drives it. The report says which of the two is not so.
    fn supports(&self, family: Family, nodes: Nodes) -> Support;

    /// Whether what it takes can be received again. Limits of the machine are measured without that.
    fn keeps_messages(&self) -> bool {
        true
    }

    /// The installed version; an error says how to install it.
    fn version(&self) -> Result<String, BenchError>;

    /// Starts it and waits until it serves.
    async fn start(&self, place: Place) -> Result<Box<dyn Running>, BenchError>;
}

/// A system that serves. Dropping it kills its processes.
#[async_trait]
pub trait Running: Send + Sync {
    /// The processes that were started; their children are found by the harness.
    fn processes(&self) -> Vec<u32>;

    /// Makes what has to be there before it is used: streams, queues, tables, for all of `names`. Called
    /// once in a run, before any driver is opened.
    async fn prepare(&self, family: Family, names: &[String]) -> Result<(), BenchError>;

    /// Opens a connection of its own to send on, to any of `names`. With several nodes, successive
    /// drivers connect to successive nodes.
    async fn producer(
        &self,
        family: Family,
        names: Arc<[String]>,
    ) -> Result<Box<dyn Producer>, BenchError>;

    /// Opens a connection of its own to receive on. Whatever is sent after this has returned is received.
    async fn consumer(&self, source: Source<'_>) -> Result<Box<dyn Consumer>, BenchError>;

    /// Opens a connection of its own to answer the requests of a name on.
    async fn responder(&self, name: &str) -> Result<Box<dyn Responder>, BenchError>;

    /// Kills all processes without warning, starts them again on the same data, and waits until they
    /// serve.
    async fn kill_and_restart(&mut self) -> Result<(), BenchError> {
        Err(BenchError::NotSupported("killing and starting again"))
    }

    /// Ends all processes and waits until they are gone.
    async fn stop(self: Box<Self>) -> Result<(), BenchError>;
}

/// What a consumer receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// All that a topic holds, from its first message. `reader` is a name that was not used before;
    /// progress is kept under it where the system keeps progress.
    Backlog { topic: &'a str, reader: &'a str },
    /// What is stored in a topic from now on.
    Live { topic: &'a str },
    /// Messages of a queue, shared with the other workers.
    Queue { queue: &'a str },
    /// All signals of a name.
    Signals { name: &'a str },
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Which of the producer's names it goes to.
    pub name: usize,
    pub body: Bytes,
}

/// Sends, with many messages under way at a time. Requests are sent by it too: their replies are its
/// acknowledgements.
#[async_trait]
pub trait Producer: Send {
    /// How many messages it wants at a time when `in_flight` may be under way: 1 to `in_flight`.
    fn batch(&self, in_flight: usize) -> usize;

    /// Sends messages, and does not wait for their acknowledgements. It waits if the connection takes no
    /// more.
    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError>;

    /// Waits until at least one message more is acknowledged, and says how many, in the order of sending.
    /// An acknowledgement that says "no" is an error. It is called only while messages are under way, never
    /// for signals, and may be dropped and called again: no acknowledgement may be lost by that.
    async fn acked(&mut self) -> Result<usize, BenchError>;
}

/// Receives.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for messages and adds the bodies of those that are there, at least one.
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError>;

    /// Acknowledges all that `next` gave since the last time. For a queue it waits for the answer, if the
    /// system has one.
    async fn ack(&mut self) -> Result<(), BenchError>;
}

/// Answers requests with what came in them.
#[async_trait]
pub trait Responder: Send {
    /// Goes on until it is dropped.
    async fn serve(&mut self) -> Result<(), BenchError>;
}
