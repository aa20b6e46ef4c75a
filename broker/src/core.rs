//! What all parts of the broker share, and how they reach each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actix::{Actor, ArbiterHandle};
use flotilla_cluster::{Cluster, Shard};
use flotilla_model::ids::{SessionId, ShardId};
use flotilla_model::name::{Kind, Name};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use crate::api::error::BrokerError;
use crate::config::BrokerConfig;
use crate::directory::Directory;
use crate::ingress::{ShardIngress, Work};
use crate::metrics::Metrics;
use crate::metrics::sample::LastSample;
use crate::queue::actor::QueueActor;
use crate::topic::actor::TopicActor;
use crate::wake::Wake;

/// Read budgets are counted in these.
const READ_UNIT_BYTES: u64 = 4_096;
/// Background work that must not be lost is tried again after this long.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Shared by the facade, the actors, sessions and subscriptions.
pub(crate) struct Core {
    pub cluster: Cluster,
    pub config: BrokerConfig,
    /// The runtime that the broker was started on: reads and background work run there.
    pub runtime: Handle,
    pub ingresses: Vec<Arc<ShardIngress>>,
    pub topics: Directory<TopicActor>,
    pub queues: Directory<QueueActor>,
    pub metrics: Metrics,
    pub sample: LastSample,
    /// Bytes that topic readers may hold, in units.
    read_room: Arc<Semaphore>,
    arbiters: Vec<ArbiterHandle>,
    next_arbiter: AtomicUsize,
    sessions: AtomicU64,
    closing: AtomicBool,
    closed: Notify,
    /// An actor that the node cannot do without is gone: which one.
    lost: Mutex<Option<String>>,
}

impl Core {
    pub fn new(
        cluster: Cluster,
        config: BrokerConfig,
        arbiters: Vec<ArbiterHandle>,
        metrics: Metrics,
    ) -> Self {
        let ingresses = cluster
            .shards()
            .iter()
            .map(|_| {
                Arc::new(ShardIngress::new(
                    config.ingress_bytes_max,
                    config.ingress_wait_max,
                ))
            })
            .collect();
        let read_units = (config.read_bytes_max / READ_UNIT_BYTES).max(1) as usize;
        Self {
            cluster,
            runtime: Handle::current(),
            ingresses,
            topics: Directory::new(config.actors_max),
            queues: Directory::new(config.actors_max),
            metrics,
            sample: LastSample::default(),
            read_room: Arc::new(Semaphore::new(read_units.min(Semaphore::MAX_PERMITS))),
            arbiters,
            next_arbiter: AtomicUsize::new(0),
            sessions: AtomicU64::new(1),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
            lost: Mutex::new(None),
            config,
        }
    }

    /// The shard of a name, and the way into it.
    pub fn shard_for(&self, name: &Name) -> (&Shard, &Arc<ShardIngress>) {
        let shard = self.cluster.shard_for(name);
        (shard, self.ingress(shard.id()))
    }

    /// The way into a shard. Shards are numbered from 1 without gaps.
    pub fn ingress(&self, shard: ShardId) -> &Arc<ShardIngress> {
        &self.ingresses[shard.0 as usize - 1]
    }

    /// The next arbiter, in turn.
    pub fn arbiter(&self) -> &ArbiterHandle {
        let turn = self.next_arbiter.fetch_add(1, Ordering::Relaxed);
        &self.arbiters[turn % self.arbiters.len()]
    }

    /// Starts the actor of a topic.
    pub fn start_topic(self: &Arc<Self>, name: &Name, wake: Arc<Wake>) -> actix::Addr<TopicActor> {
        let (core, name) = (Arc::clone(self), name.clone());
        TopicActor::start_in_arbiter(self.arbiter(), move |_| TopicActor::new(core, name, wake))
    }

    /// Starts the actor of a queue.
    pub fn start_queue(self: &Arc<Self>, name: &Name, wake: Arc<Wake>) -> actix::Addr<QueueActor> {
        let (core, name) = (Arc::clone(self), name.clone());
        QueueActor::start_in_arbiter(self.arbiter(), move |_| QueueActor::new(core, name, wake))
    }

    /// A session id that no other session of this node's life has.
    pub fn next_session(&self) -> SessionId {
        let node = self.cluster.node();
        SessionId {
            node: node.id,
            incarnation: self.cluster.session_generation(),
            number: self.sessions.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Waits until `bytes` more may be read for topics, and takes them.
    pub async fn read_permit(
        &self,
        bytes: u64,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, BrokerError> {
        let all = (self.config.read_bytes_max / READ_UNIT_BYTES).max(1);
        // What is larger than the whole budget takes all of it.
        let units = (bytes / READ_UNIT_BYTES + 1).min(all) as u32;
        Arc::clone(&self.read_room)
            .acquire_many_owned(units)
            .await
            .map_err(|_| BrokerError::ShuttingDown)
    }

    /// Refuses calls once the broker is being stopped.
    pub fn check_open(&self) -> Result<(), BrokerError> {
        if self.is_closing() {
            Err(BrokerError::ShuttingDown)
        } else {
            Ok(())
        }
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Says that the broker is being stopped; true for the first who says so.
    pub fn begin_closing(&self) -> bool {
        let first = !self.closing.swap(true, Ordering::AcqRel);
        self.closed.notify_waiters();
        first
    }

    /// What to tell those whose actor is gone.
    pub fn gone(&self, what: &str) -> BrokerError {
        if self.is_closing() {
            return BrokerError::ShuttingDown;
        }
        BrokerError::Unavailable {
            reason: format!("{what} ended unexpectedly"),
        }
    }

    /// An actor ended that the node cannot do without, unless the broker is being stopped.
    pub fn lose(&self, what: &str) {
        if !self.is_closing() {
            tracing::error!(what, "ended unexpectedly: the node must be restarted");
            *self.lost.lock() = Some(what.to_owned());
        }
    }

    /// The actor that is missing, if one is.
    pub fn lost(&self) -> Option<String> {
        self.lost.lock().clone()
    }

    /// Runs commands that nobody waits for but that must not be lost, until they are applied.
    ///
    /// They are given up when the broker stops: what a node held is released when it starts again.
    pub fn run_in_background(
        self: &Arc<Self>,
        shard: ShardId,
        what: &'static str,
        commands: Vec<flotilla_model::command::Command>,
    ) {
        let core = Arc::clone(self);
        self.runtime.spawn(async move {
            loop {
                let closed = core.closed.notified();
                if core.is_closing() {
                    return;
                }
                let works = commands.iter().cloned().map(Work::control).collect();
                match core.ingress(shard).run(works).await {
                    Ok(_) => return,
                    Err(BrokerError::ShuttingDown) => return,
                    Err(error) => tracing::warn!(%shard, what, %error, "will be tried again"),
                }
                tokio::select! {
                    () = closed => return,
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                }
            }
        });
    }
}

/// Refuses a name of another kind than the call is for.
pub(crate) fn check_kind(name: &Name, kind: Kind) -> Result<(), BrokerError> {
    if name.kind() == kind {
        Ok(())
    } else {
        Err(BrokerError::InvalidRequest {
            what: format!("{name} is not a {kind}"),
        })
    }
}
