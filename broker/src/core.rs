//! What all parts of the broker share, and how they reach each other.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, ArbiterHandle};
use flotilla_cluster::{Cluster, Shard};
use flotilla_model::CURSOR_NAME_BYTES_MAX;
use flotilla_model::command::Command;
use flotilla_model::ids::ShardId;
use flotilla_model::name::{Kind, Name};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::api::error::BrokerError;
use crate::config::BrokerConfig;
use crate::directory::Directory;
use crate::hub::actor::HubActor;
use crate::hub::buffer::{Bounds, Buffer};
use crate::hub::links::HubLinks;
use crate::hub::listener::Sent;
use crate::hub::request::hub::RequestHub;
use crate::ingress::{Refused, ShardIngress, Work};
use crate::metrics::Metrics;
use crate::metrics::sample::LastSample;
use crate::name_limits::NameLimits;
use crate::queue::actor::QueueActor;
use crate::queue::sessions::Sessions;
use crate::topic::actor::TopicActor;
use crate::wake::Wake;

/// Read budgets are counted in these.
const READ_UNIT_BYTES: u64 = 4_096;
/// Messages on their way to receivers that made no room for so much, together; one always may.
const LARGE_BYTES_MAX: u64 = 64 << 20;
/// Signals that may be on their way to another node before publishers wait.
const AWAY_MESSAGES_SOFT: usize = 1_024;
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
    pub hubs: HubLinks<Sent>,
    pub requests: RequestHub,
    pub name_limits: NameLimits,
    /// How often another node has begun to talk to a hub.
    conversations: AtomicU64,
    hub: OnceLock<Addr<HubActor>>,
    /// There are other nodes.
    has_peers: AtomicBool,
    /// Bytes that topic readers may hold, in units.
    read_room: Arc<Semaphore>,
    /// Bytes of [`LARGE_BYTES_MAX`], in units.
    large_room: Arc<Semaphore>,
    arbiters: Vec<ArbiterHandle>,
    next_arbiter: AtomicUsize,
    pub sessions: Sessions,
    closing: AtomicBool,
    closed: Notify,
    /// Subscriptions that are being kept fed.
    keepings: AtomicUsize,
    keepings_over: Notify,
    /// Per shard, how often this node has ceased to lead it.
    reigns: Vec<AtomicU64>,
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
        let reigns = cluster.shards().iter().map(|_| AtomicU64::new(0)).collect();
        let read_units = (config.read_bytes_max / READ_UNIT_BYTES).max(1) as usize;
        Self {
            cluster,
            runtime: Handle::current(),
            ingresses,
            topics: Directory::new(config.actors_max),
            queues: Directory::new(config.actors_max),
            metrics,
            sample: LastSample::default(),
            hubs: HubLinks::new(away_bounds(&config)),
            requests: RequestHub::new(&config),
            name_limits: NameLimits::new(&config),
            conversations: AtomicU64::new(0),
            hub: OnceLock::new(),
            has_peers: AtomicBool::new(false),
            read_room: Arc::new(Semaphore::new(read_units.min(Semaphore::MAX_PERMITS))),
            large_room: Arc::new(Semaphore::new((LARGE_BYTES_MAX / READ_UNIT_BYTES) as usize)),
            arbiters,
            next_arbiter: AtomicUsize::new(0),
            sessions: Sessions::default(),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
            keepings: AtomicUsize::new(0),
            keepings_over: Notify::new(),
            reigns,
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

    /// The signals' actor is there from now on.
    pub fn set_hub(&self, hub: Addr<HubActor>) {
        // Set once, when the broker starts.
        let _ = self.hub.set(hub);
    }

    /// The signals' actor.
    pub fn hub(&self) -> Result<&Addr<HubActor>, BrokerError> {
        self.hub.get().ok_or(BrokerError::ShuttingDown)
    }

    /// Waits for a listener that is behind; what it does not take in time is dropped, and counted.
    pub async fn wait_for_listener(&self, listener: &Buffer<Sent>, deadline: Instant) {
        let dropped = listener.wait_for_room(deadline).await;
        if dropped > 0 {
            self.metrics.signals_dropped(dropped);
            tracing::warn!(
                dropped,
                "signals dropped for a listener that does not keep up"
            );
        }
    }

    /// Numbers what other nodes tell, so that the end of an old conversation says nothing about a newer.
    pub fn next_conversation(&self) -> u64 {
        self.conversations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether there are other nodes.
    pub fn has_peers(&self) -> bool {
        self.has_peers.load(Ordering::Acquire)
    }

    /// Takes in whether there are other nodes.
    pub fn set_has_peers(&self, has_peers: bool) {
        self.has_peers.store(has_peers, Ordering::Release);
    }

    /// How long a call that waits for nothing else looks for a leader.
    pub fn leader_patience(&self) -> Instant {
        Instant::now() + self.config.leader_wait_max
    }

    /// How often this node has ceased to lead a shard.
    pub fn reign(&self, shard: ShardId) -> u64 {
        self.reigns[shard.0 as usize - 1].load(Ordering::Acquire)
    }

    /// This node no longer leads a shard: its actors send those who wait to the next leader.
    pub fn cease_to_lead(self: &Arc<Self>, shard: ShardId) {
        self.reigns[shard.0 as usize - 1].fetch_add(1, Ordering::AcqRel);
        let core = Arc::clone(self);
        // The caller is the shard itself, which must not wait until many names were looked at.
        self.runtime.spawn(async move {
            let of_shard = |name: &Name| core.cluster.shard_of(name) == shard;
            core.topics.ring_where(of_shard);
            core.queues.ring_where(of_shard);
        });
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

    /// Waits until `bytes` more may be read for topics, and takes them.
    pub async fn read_permit(&self, bytes: u64) -> Result<OwnedSemaphorePermit, BrokerError> {
        let all = (self.config.read_bytes_max / READ_UNIT_BYTES).max(1);
        Arc::clone(&self.read_room)
            .acquire_many_owned(units(bytes, all))
            .await
            .map_err(|_| BrokerError::ShuttingDown)
    }

    /// Whether a read for a topic would have to wait now.
    pub fn is_read_room_taken(&self) -> bool {
        let all = (self.config.read_bytes_max / READ_UNIT_BYTES).max(1);
        let one = units(self.config.read_run_bytes, all);
        self.read_room.available_permits() < one as usize
    }

    /// Waits until a message of so many bytes may go to a receiver that made no room for it. The room is
    /// never closed, so that there always is a permit in the end.
    pub async fn large_permit(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = units(bytes, LARGE_BYTES_MAX / READ_UNIT_BYTES);
        let room = Arc::clone(&self.large_room);
        room.acquire_many_owned(units).await.ok()
    }

    /// Counts one more subscription that is kept fed.
    pub fn keeping(self: &Arc<Self>) -> Keeping {
        self.keepings.fetch_add(1, Ordering::AcqRel);
        Keeping(Arc::clone(self))
    }

    /// Waits until no subscription is kept fed any more: then their last progress is told.
    pub async fn keepings_over(&self) {
        loop {
            let over = self.keepings_over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if self.keepings.load(Ordering::Acquire) == 0 {
                return;
            }
            over.await;
        }
    }

    /// Refuses calls once the broker is being stopped.
    pub fn check_open(&self) -> Result<(), BrokerError> {
        if self.is_closing() {
            Err(BrokerError::ShuttingDown)
        } else {
            Ok(())
        }
    }

    /// Refuses a message above the configured size.
    pub fn check_size(&self, bytes: u64) -> Result<(), BrokerError> {
        let allowed = self.config.message_bytes_max;
        if bytes > allowed {
            return Err(BrokerError::TooLarge { bytes, allowed });
        }
        Ok(())
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Resolves when the broker is being stopped.
    pub async fn until_closing(&self) {
        let closed = self.closed.notified();
        tokio::pin!(closed);
        closed.as_mut().enable();
        if !self.is_closing() {
            closed.await;
        }
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
        commands: Vec<Command>,
    ) {
        if self.is_closing() {
            return;
        }
        let works = |commands: &[Command]| commands.iter().cloned().map(Work::control).collect();
        // Begun before this returns, so that what the caller does next comes after it.
        let mut begun = Some(self.ingress(shard).try_submit(works(&commands)));
        let core = Arc::clone(self);
        self.runtime.spawn(async move {
            loop {
                if core.is_closing() {
                    return;
                }
                let outcome = match begun.take() {
                    Some(Ok(pending)) => pending.await,
                    Some(Err(Refused::Closed)) => return,
                    Some(Err(Refused::NoRoom(works))) => core.ingress(shard).run(works).await,
                    None => core.ingress(shard).run(works(&commands)).await,
                };
                match outcome {
                    Ok(_) => return,
                    Err(BrokerError::ShuttingDown) => return,
                    Err(error) => tracing::warn!(%shard, what, %error, "will be tried again"),
                }
                tokio::select! {
                    () = core.until_closing() => return,
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                }
            }
        });
    }
}

/// How many units of a budget so many bytes take: what is larger than all of it takes all of it.
fn units(bytes: u64, all: u64) -> u32 {
    (bytes / READ_UNIT_BYTES + 1).min(all) as u32
}

/// The bounds of the signals on their way to another node.
fn away_bounds(config: &BrokerConfig) -> Bounds {
    let bounds = Bounds::of(config);
    Bounds {
        messages_soft: bounds.messages_soft.max(AWAY_MESSAGES_SOFT),
        messages_max: bounds.messages_max.max(AWAY_MESSAGES_SOFT),
        ..bounds
    }
}

/// One subscription that is kept fed, as long as this lives.
pub(crate) struct Keeping(Arc<Core>);

impl Drop for Keeping {
    fn drop(&mut self) {
        if self.0.keepings.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.keepings_over.notify_waiters();
        }
    }
}

/// Refuses a text that names a cursor or a group and cannot be kept or told.
pub(crate) fn check_label(what: &str, text: &str) -> Result<(), BrokerError> {
    if text.is_empty() || text.len() > CURSOR_NAME_BYTES_MAX {
        return Err(BrokerError::InvalidRequest {
            what: format!(
                "a {what}'s name must have 1 to {CURSOR_NAME_BYTES_MAX} bytes, not {}",
                text.len()
            ),
        });
    }
    Ok(())
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
