//! RabbitMQ: quorum queues for queues, and streams or quorum queues for topics. Client: `lapin`.
//!
//! Publishers ask for confirms and have many messages under way; consumers take a prefetch and acknowledge
//! all up to the last one together. AMQP has no answer to an acknowledgement of a consumer.

use crate::BenchError;
use crate::target::{
    Competitor, Consumer, Family, Nodes, Place, Producer, Responder, Running, Source,
};
use async_trait::async_trait;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

mod consumer;
mod producer;
mod server;

/// A queue of either kind is some processes and files of its own: thousands take minutes to make.
const QUEUES_MAX: usize = 100;

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

    fn supports(&self, family: Family, _nodes: Nodes) -> bool {
        match family {
            Family::Topics => true,
            Family::Queues => self.kind == Kind::Quorum,
            // It has them, with no more than the other peers have: they are compared with those.
            Family::Signals | Family::Requests => false,
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
        }))
    }
}

struct RunningRabbitMq {
    servers: server::Servers,
    kind: Kind,
    nodes: Nodes,
    next_node: AtomicUsize,
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
        let index = self.next_node.fetch_add(1, Ordering::Relaxed);
        let ports = self.servers.ports();
        Session::open(ports[index % ports.len()]).await
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
            return Err(BenchError::NotSupported("more than 100 replicated queues"));
        }
        for name in names {
            // Leaders are where queues were declared: on each node some.
            let session = self.session().await?;
            session
                .channel
                .queue_declare(
                    ShortString::from(name.as_str()),
                    QueueDeclareOptions::durable(),
                    self.arguments(),
                )
                .await
                .map_err(BenchError::client(format!("declare the queue {name}")))?;
        }
        Ok(())
    }

    async fn producer(
        &self,
        _family: Family,
        names: Arc<[String]>,
    ) -> Result<Box<dyn Producer>, BenchError> {
        let publisher = producer::Publisher::new(self.session().await?, &names).await?;
        Ok(Box::new(publisher))
    }

    async fn consumer(&self, source: Source<'_>) -> Result<Box<dyn Consumer>, BenchError> {
        let session = self.session().await?;
        let receiver = consumer::Receiver::new(session, self.kind, source).await?;
        Ok(Box::new(receiver))
    }

    async fn responder(&self, _name: &str) -> Result<Box<dyn Responder>, BenchError> {
        Err(BenchError::NotSupported("request and reply"))
    }

    async fn kill_and_restart(&mut self) -> Result<(), BenchError> {
        self.servers.kill_and_restart().await
    }

    async fn stop(mut self: Box<Self>) -> Result<(), BenchError> {
        self.servers.kill().await
    }
}
