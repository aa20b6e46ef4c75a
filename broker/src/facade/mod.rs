//! The facade: everything that gateways and the administration API may ask of this node.

mod admin;
mod cluster;
mod list;
mod names;
mod requests;
mod status;
mod store;
pub(crate) mod submitted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use flotilla_cluster::Cluster;
use flotilla_model::command::Command;
use flotilla_model::name::{Kind, Name};
use flotilla_model::outcome::Outcome;
use tokio::sync::oneshot;

use crate::api::error::BrokerError;
use crate::api::queue::{Enqueue, Enqueued, QueueDelivery};
use crate::api::signal::{Signal, SubscribeSignals};
use crate::api::topic::{Publish, Published, SubscribeTopic};
use crate::config::BrokerConfig;
use crate::convert::unexpected;
use crate::core::{Core, check_kind};
use crate::facade::submitted::Submitted;
use crate::hub::actor::{self as hub, HubActor};
use crate::hub::request::timer as request_timer;
use crate::hub::subscription::SignalSubscription;
use crate::ingress::Work;
use crate::metrics::{Metrics, sample};
use crate::nodes;
use crate::observer::ShardObserver;
use crate::queue::actor as queue;
use crate::queue::session::{self, Session};
use crate::shard_actor::{Drain, ShardActor};
use crate::threads::ActorThreads;
use crate::topic::requests as topic;
use crate::topic::subscription::TopicSubscription;

/// What is under way has this long to finish at shutdown.
const SHUTDOWN_STEP_MAX: Duration = Duration::from_secs(3);

/// A handle to the node's broker; cheap to clone.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    shards: Vec<Addr<ShardActor>>,
    threads: ActorThreads,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.core.begin_closing();
        self.core.requests.stop();
        for ingress in &self.core.ingresses {
            ingress.close();
        }
    }
}

impl Broker {
    /// Starts the broker over a running cluster.
    ///
    /// Call it from a task of the multi-thread tokio runtime that the broker's background work is to
    /// run on. Actors get threads of their own: the caller needs no actix system.
    pub async fn start(cluster: Cluster, config: BrokerConfig) -> Result<Broker, BrokerError> {
        let metrics = Metrics::new(config.metric_names_max)?;
        let (threads, arbiters) = ActorThreads::start(config.arbiters)?;
        let core = Arc::new(Core::new(cluster, config, arbiters, metrics));
        let shards = core
            .cluster
            .shards()
            .iter()
            .map(|shard| {
                let actor = ShardActor::new(Arc::clone(&core), shard.clone());
                ShardActor::start_in_arbiter(core.arbiter(), move |_| actor)
            })
            .collect();
        let hub = HubActor::new(Arc::clone(&core));
        core.set_hub(HubActor::start_in_arbiter(core.arbiter(), move |_| hub));
        for shard in core.cluster.shards() {
            shard.watch(Arc::new(ShardObserver::new(Arc::downgrade(&core))));
        }
        core.runtime.spawn(sample::run(Arc::downgrade(&core)));
        core.runtime
            .spawn(request_timer::run(Arc::downgrade(&core)));
        nodes::join(&core);
        let inner = Inner {
            core,
            shards,
            threads,
        };
        Ok(Broker {
            inner: Arc::new(inner),
        })
    }

    /// Stops the broker: ends every subscription and wait with [`BrokerError::ShuttingDown`], stores
    /// the positions of durable cursors, and waits for what was proposed. The cluster stays up.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        if !inner.core.begin_closing() {
            return;
        }
        // An actor that is gone has nothing to end.
        if let Ok(hub) = inner.core.hub() {
            let _ = hub.send(hub::Stop).await;
        }
        inner.core.requests.stop();
        for live in inner.core.queues.all() {
            let _ = live.address.send(queue::Stop).await;
        }
        let mut stopping = Vec::new();
        for live in inner.core.topics.all() {
            let (stopped, done) = oneshot::channel();
            let _ = live.address.send(topic::Stop(stopped)).await;
            stopping.push(done);
        }
        wait_for(
            "the positions of cursors",
            futures::future::join_all(stopping),
        )
        .await;
        wait_for("subscriptions elsewhere", inner.core.keepings_over()).await;
        let mut draining = Vec::new();
        for (shard, ingress) in inner.shards.iter().zip(&inner.core.ingresses) {
            ingress.close();
            let (drained, done) = oneshot::channel();
            let _ = shard.send(Drain(drained)).await;
            draining.push(done);
        }
        wait_for("proposals under way", futures::future::join_all(draining)).await;
        let inner = Arc::clone(inner);
        let stopped = tokio::task::spawn_blocking(move || inner.threads.stop());
        if let Err(error) = stopped.await {
            tracing::error!(%error, "the actors' threads were not stopped");
        }
    }

    /// Stores messages in topics. One result per item, in order; items may name different topics.
    ///
    /// What is answered with `Ok` is durable. A dropped call may still store its messages.
    pub async fn publish(&self, batch: Vec<Publish>) -> Vec<Result<Published, BrokerError>> {
        self.begin_publish(batch).await.await
    }

    /// The same for those who have more to publish meanwhile: hands the batch to its shards, waiting for
    /// room. Batches are stored in the order in which that was done.
    pub async fn begin_publish(&self, batch: Vec<Publish>) -> Submitted<Published> {
        store::submit(&self.inner.core, batch).await
    }

    /// Puts messages into queues. One result per item, in order; items may name different queues.
    ///
    /// What is answered with `Ok` is durable. A dropped call may still store its messages.
    pub async fn enqueue(&self, batch: Vec<Enqueue>) -> Vec<Result<Enqueued, BrokerError>> {
        self.begin_enqueue(batch).await.await
    }

    /// The same as [`Self::begin_publish`] is for topics.
    pub async fn begin_enqueue(&self, batch: Vec<Enqueue>) -> Submitted<Enqueued> {
        store::submit(&self.inner.core, batch).await
    }

    /// Most items of one call.
    pub fn batch_items_max(&self) -> usize {
        self.inner.core.config.batch_items_max
    }

    /// Whether what is acknowledged is on disk. If not, it will be within the interval of the node's log.
    pub fn is_synced(&self) -> bool {
        self.inner.core.cluster.is_synced()
    }

    /// Reads a topic from a place on, and goes on with what is stored later. Live when it returns.
    pub async fn subscribe_topic(
        &self,
        request: SubscribeTopic,
    ) -> Result<TopicSubscription, BrokerError> {
        let core = &self.inner.core;
        core.check_open()?;
        check_kind(&request.topic, Kind::Topic)?;
        core.admit(&request.topic).await?;
        TopicSubscription::open(core, request).await
    }

    /// Opens a session for one consumer of queues.
    pub fn open_session(&self) -> Session {
        Session::new(Arc::clone(&self.inner.core))
    }

    /// Shows messages that are available, without taking them. Waits only while there are none.
    pub async fn peek(
        &self,
        queue: Name,
        messages_max: u32,
        bytes_max: u64,
        wait: Duration,
    ) -> Result<Vec<QueueDelivery>, BrokerError> {
        session::peek(&self.inner.core, &queue, messages_max, bytes_max, wait).await
    }

    /// Removes every available message of a queue, and says how many those were.
    pub async fn purge(&self, queue: Name) -> Result<u64, BrokerError> {
        check_kind(&queue, Kind::Queue)?;
        let command = Command::Purge {
            queue: queue.clone(),
        };
        match self.run(&queue, command).await? {
            Outcome::Purged(count) => Ok(count),
            // A queue that nobody ever used has nothing to remove.
            Outcome::Refused(flotilla_model::outcome::Refusal::NotFound { .. }) => Ok(0),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends signals to whoever listens; no listeners is success.
    ///
    /// Returns when listeners have room again, or have been given up on: callers are slowed down
    /// for a short while by a slow listener, not for ever.
    pub async fn signal(&self, batch: Vec<Signal>) -> Vec<Result<(), BrokerError>> {
        let core = &self.inner.core;
        let mut accepted = Vec::with_capacity(batch.len());
        let mut results = Vec::with_capacity(batch.len());
        let over = batch.len() > core.config.batch_items_max;
        for signal in batch {
            let checked = core.check_open().and_then(|()| {
                check_kind(&signal.name, Kind::Signal)?;
                core.check_size(signal.message.encoded_len() as u64)?;
                store::check_count(core, over)
            });
            match &checked {
                Ok(()) => accepted.push(signal),
                Err(error) => core.metrics.refused(Kind::Signal, error),
            }
            results.push(checked);
        }
        if accepted.is_empty() {
            return results;
        }
        for run in accepted.chunk_by(|one, next| one.name == next.name) {
            let bytes = run.iter().map(|one| one.message.body.len() as u64).sum();
            let messages = run.len() as u64;
            core.metrics
                .accepted(Kind::Signal, &run[0].name, messages, bytes);
        }
        core.hubs.all_known().await;
        let sent = match core.hub() {
            Ok(hub) => hub.send(hub::Send(accepted)).await.ok(),
            Err(_) => None,
        };
        match sent {
            Some(slow) => {
                let deadline = Instant::now() + core.config.signal_wait_max;
                for listener in slow {
                    core.wait_for_listener(&listener, deadline).await;
                }
            }
            None => {
                for result in results.iter_mut().filter(|result| result.is_ok()) {
                    *result = Err(BrokerError::ShuttingDown);
                }
            }
        }
        results
    }

    /// Listens to signals, of all nodes. Live when it returns, except where a node could not be told in
    /// a second.
    pub async fn subscribe_signals(
        &self,
        request: SubscribeSignals,
    ) -> Result<SignalSubscription, BrokerError> {
        let core = &self.inner.core;
        core.check_open()?;
        let listening = core.hub()?.send(hub::Listen(request)).await;
        let (subscription, version) = listening.map_err(|_| BrokerError::ShuttingDown)??;
        core.hubs.confirm(version).await;
        Ok(subscription)
    }

    /// Runs one command without payload on the shard of a name.
    async fn run(&self, name: &Name, command: Command) -> Result<Outcome, BrokerError> {
        let core = &self.inner.core;
        core.check_open()?;
        let (_, ingress) = core.shard_for(name);
        let reply = ingress.run(vec![Work::control(command)]).await?;
        Ok(reply.outcome(0)?.0.clone())
    }
}

async fn wait_for(what: &str, done: impl Future) {
    if tokio::time::timeout(SHUTDOWN_STEP_MAX, done).await.is_err() {
        tracing::warn!(what, "not finished in time at shutdown");
    }
}
