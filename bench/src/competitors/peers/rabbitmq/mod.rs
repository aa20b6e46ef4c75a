//! RabbitMQ: quorum queues for queues, and streams or quorum queues for topics. Client: `lapin`.
//!
//! Publishers ask for confirms and have many messages under way; consumers take a prefetch and acknowledge
//! all up to the last one together. AMQP has no answer to an acknowledgement of a consumer.

use crate::BenchError;
use crate::error::within;
use crate::target::{
    Competitor, Consumer, Family, Nodes, Place, Producer, Responder, Running, Source, Support,
};
use async_trait::async_trait;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

mod consumer;
mod producer;
mod server;

/// A queue of either kind is some processes and files of its own: thousands take minutes to make.
const QUEUES_MAX: usize = 100;

/// How long opening a connection with a channel may take, and what is asked of it first. The client library
/// itself waits for ever, for a node that has just been started again too.
const OPEN_SECONDS_MAX: u64 = 30;

/// What topics are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A replicated queue, from which a message is removed when it was read.
    Quorum,
    /// A replicated log.
    Stream,
}

pub struct RabbitMq {
    kind: Kind,
}

impl RabbitMq {
    pub fn new(kind: Kind) -> Self {
        Self { kind }
    }
}

#[async_trait]
impl Competitor for RabbitMq {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Quorum => "rabbitmq",
            Kind::Stream => "rabbitmq-stream",
        }
    }

    fn durability(&self, family: Family, nodes: Nodes) -> &'static str {
        match (self.kind, family, nodes) {
            (Kind::Quorum, Family::Queues, Nodes::One) => {
                "synced before the acknowledgement; settlements not answered"
            }
            (Kind::Quorum, Family::Queues, Nodes::Three) => {
                "synced by 2 of 3 before the acknowledgement; settlements not answered"
            }
            (Kind::Quorum, _, Nodes::One) => "synced before the acknowledgement; removed when read",
            (Kind::Quorum, _, Nodes::Three) => {
                "synced by 2 of 3 before the acknowledgement; removed when read"
            }
            (Kind::Stream, _, Nodes::One) => "acknowledged before syncing",
            (Kind::Stream, _, Nodes::Three) => "acknowledged by 2 of 3 before syncing",
        }
    }

    fn supports(&self, family: Family, _nodes: Nodes) -> Support {
        match family {
            Family::Queues if self.kind == Kind::Stream => Support::Missing,
            Family::Topics | Family::Queues => Support::Measured,
            // It has them, with no more than the other peers have: they are compared with those.
            Family::Signals | Family::Requests => Support::NotMeasured,
        }
    }

    fn version(&self) -> Result<String, BenchError> {
        Ok(server::Installation::find()?.version)
    }

    async fn start(&self, place: Place) -> Result<Box<dyn Running>, BenchError> {
        let servers = server::Servers::start(&place).await?;
        Ok(Box::new(RunningRabbitMq {
            servers,
            kind: self.kind,
            nodes: place.nodes,
            next_node: AtomicUsize::new(0),
            topics_read: Mutex::default(),
        }))
    }
}

struct RunningRabbitMq {
    servers: server::Servers,
    kind: Kind,
    nodes: Nodes,
    next_node: AtomicUsize,
    topics_read: Mutex<HashSet<String>>,
}

/// A channel, with the connection that has no other one.
struct Session {
    channel: Channel,
    /// It is closed when it is dropped.
    _connection: Connection,
}

impl Session {
    async fn open(port: u16) -> Result<Self, BenchError> {
        let connection = connect(port)
            .await
            .map_err(BenchError::client("connect to RabbitMQ"))?;
        let channel = connection
            .create_channel()
            .await
            .map_err(BenchError::client("open a channel"))?;
        Ok(Self {
            channel,
            _connection: connection,
        })
    }
}

async fn connect(port: u16) -> lapin::Result<Connection> {
    let address = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    Connection::connect(&address, ConnectionProperties::default()).await
}

impl RunningRabbitMq {
    /// A new connection, to the next node each time.
    async fn session(&self) -> Result<Session, BenchError> {
        self.session_with(self.next_node.fetch_add(1, Ordering::Relaxed))
            .await
    }

    /// A new connection to one node, counted round and round.
    async fn session_with(&self, node: usize) -> Result<Session, BenchError> {
        let ports = self.servers.ports();
        Session::open(ports[node % ports.len()]).await
    }

    async fn declare(&self, name: &str, node: usize) -> Result<(), BenchError> {
        let session = self.session_with(node).await?;
        session
            .channel
            .queue_declare(
                ShortString::from(name),
                QueueDeclareOptions::durable(),
                self.arguments(),
            )
            .await
            .map_err(BenchError::client(format!("declare the queue {name}")))?;
        Ok(())
    }

    /// Whether a topic has not been read before. The messages of a quorum queue are gone when they are
    /// read.
    fn is_unread(&self, topic: &str) -> bool {
        let mut topics_read = self
            .topics_read
            .lock()
            .expect("nobody panics while holding it");
        topics_read.insert(topic.to_owned()) || self.kind == Kind::Stream
    }

    fn arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        let kind = match self.kind {
            Kind::Quorum => "quorum",
            Kind::Stream => "stream",
        };
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let replicas = AMQPValue::LongInt(self.nodes.count() as i32);
        let size = match self.kind {
            Kind::Quorum => "x-quorum-initial-group-size",
            Kind::Stream => "x-initial-cluster-size",
        };
        arguments.insert(size.into(), replicas);
        arguments
    }
}

#[async_trait]
impl Running for RunningRabbitMq {
    fn processes(&self) -> Vec<u32> {
        self.servers.processes()
    }

    async fn prepare(&self, _family: Family, names: &[String]) -> Result<(), BenchError> {
        if names.len() > QUEUES_MAX {
            return Err(BenchError::NotMeasured("more than 100 replicated queues"));
        }
        for (node, name) in names.iter().enumerate() {
            // Leaders are where queues were declared: on each node some. Drivers start with the first node
            // all the same, where the leader of a single queue is.
            let doing = || format!("declaring the queue {name}");
            within(OPEN_SECONDS_MAX, doing, self.declare(name, node)).await?;
        }
        Ok(())
    }

    async fn producer(
        &self,
        _family: Family,
        names: Arc<[String]>,
    ) -> Result<Box<dyn Producer>, BenchError> {
        let opening = async { producer::Publisher::new(self.session().await?, &names).await };
        let doing = || "opening a publisher".to_owned();
        Ok(Box::new(within(OPEN_SECONDS_MAX, doing, opening).await?))
    }

    async fn consumer(&self, source: Source<'_>) -> Result<Box<dyn Consumer>, BenchError> {
        if let Source::Backlog { topic, .. } = source
            && !self.is_unread(topic)
        {
            return Err(BenchError::NotSupported("reading again what was read"));
        }
        let opening =
            async { consumer::Receiver::new(self.session().await?, self.kind, source).await };
        let doing = || "opening a consumer".to_owned();
        Ok(Box::new(within(OPEN_SECONDS_MAX, doing, opening).await?))
    }

    async fn responder(&self, _name: &str) -> Result<Box<dyn Responder>, BenchError> {
        Err(BenchError::NotMeasured("request and reply"))
    }

    async fn kill_and_restart(&mut self) -> Result<(), BenchError> {
        self.servers.kill_and_restart().await
    }

    async fn stop(mut self: Box<Self>) -> Result<(), BenchError> {
        self.servers.kill().await
    }
}
