//! How many topics and queues there may be in the cluster.
//!
//! Where there is a limit, a name that this node has not seen to exist is asked for at the leader of its shard,
//! and created by itself before anything is stored under it, if there are not as many as are allowed: those of
//! all shards are counted then. A node makes one name at a time. Nodes do not wait for each other, so a limit
//! may be exceeded by one for each other node that makes a name at the same moment. Dead letters are never held
//! up.

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::sync::Arc;

use flotilla_cluster::Shard;
use flotilla_model::command::Command;
use flotilla_model::ids::ShardId;
use flotilla_model::name::{Kind, Name};
use flotilla_model::outcome::Outcome;
use flotilla_model::query;
use flotilla_model::settings::ShardDefaults;
use futures::future::{BoxFuture, try_join_all};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::api::error::BrokerError;
use crate::config::BrokerConfig;
use crate::convert::unexpected;
use crate::core::Core;
use crate::fault::Fault;
use crate::ingress::Work;
use crate::objects;
use crate::peers::ask::Question;

/// Names that are remembered to exist; at more of them all are asked for again.
const KNOWN_MAX: usize = 100_000;

/// What may be, and what is.
pub(crate) struct NameLimits {
    topics_max: Option<u64>,
    queues_max: Option<u64>,
    /// Names that exist, as far as this node has seen.
    known: Mutex<HashSet<Name>>,
    /// Held by who makes a name: it counts all that were made before.
    making: Arc<tokio::sync::Mutex<()>>,
}

impl NameLimits {
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            topics_max: config.topics_max,
            queues_max: config.queues_max,
            known: Mutex::default(),
            making: Arc::default(),
        }
    }

    fn of(&self, kind: Kind) -> Option<u64> {
        match kind {
            Kind::Topic => self.topics_max,
            Kind::Queue => self.queues_max,
            Kind::Signal | Kind::Request | Kind::Command => None,
        }
    }

    /// A name was deleted.
    pub fn forget(&self, name: &Name) {
        if self.of(name.kind()).is_some() {
            self.known.lock().remove(name);
        }
    }

    fn knows(&self, name: &Name) -> bool {
        self.known.lock().contains(name)
    }

    fn learn(&self, name: &Name) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(name.clone());
    }

    /// Makes a name when nobody else of this node does.
    ///
    /// The turn goes to whoever waits longest, at once and whether it is looked after or not. A stream is
    /// not, while its client does not read. So a task of its own waits for the turn, and makes the name or
    /// fails; it ends when the call is dropped.
    async fn in_turn(
        &self,
        runtime: &Handle,
        make: impl Future<Output = Result<(), BrokerError>> + Send + 'static,
    ) -> Result<(), BrokerError> {
        let turn = Arc::clone(&self.making);
        let in_turn = async move {
            let _alone = turn.lock().await;
            make.await
        };
        let mut making = JoinSet::new();
        making.spawn_on(in_turn, runtime);
        match making.join_next().await {
            Some(Ok(made)) => made,
            Some(Err(ended)) if ended.is_panic() => resume_unwind(ended.into_panic()),
            // The runtime is ending, and stopped the task.
            Some(Err(_)) | None => Err(BrokerError::ShuttingDown),
        }
    }
}

/// Names of a batch that may not be used, and why.
#[derive(Default)]
pub(crate) struct Refused(Vec<(Name, BrokerError)>);

impl Refused {
    pub fn check(&self, name: &Name) -> Result<(), BrokerError> {
        let found = self.0.iter().find(|(refused, _)| refused == name);
        found.map_or(Ok(()), |(_, error)| Err(error.clone()))
    }
}

impl Core {
    /// Makes sure that a topic or queue is there or may be made, if their number is limited.
    pub async fn admit(self: &Arc<Self>, name: &Name) -> Result<(), BrokerError> {
        if self.name_limits.of(name.kind()).is_none() || self.name_limits.knows(name) {
            return Ok(());
        }
        // In a box of its own: this is part of every publish, of which hardly any comes here.
        let creating: BoxFuture<'_, _> = Box::pin(self.create(name));
        creating.await?;
        self.name_limits.learn(name);
        Ok(())
    }

    /// The same for the names of a batch of one kind; most are known, and neighbours often share theirs.
    pub async fn admit_all<'a>(
        self: &Arc<Self>,
        kind: Kind,
        names: impl Iterator<Item = &'a Name>,
    ) -> Refused {
        let mut refused = Refused::default();
        if self.name_limits.of(kind).is_none() {
            return refused;
        }
        let mut last = None;
        for name in names {
            if last.replace(name) == Some(name) || refused.check(name).is_err() {
                continue;
            }
            // What is of another kind is refused for that.
            if name.kind() == kind
                && let Err(error) = self.admit(name).await
            {
                refused.0.push((name.clone(), error));
            }
        }
        refused
    }

    /// Creates a topic or queue as the first message to it would; one that is there stays as it is.
    pub async fn create(self: &Arc<Self>, name: &Name) -> Result<(), BrokerError> {
        if self.unclaimed(name).await?.is_none() {
            return Ok(());
        }
        if self.name_limits.of(name.kind()).is_none() {
            return self.make(name).await;
        }
        let (core, name) = (Arc::clone(self), name.clone());
        let make = async move { core.make(&name).await };
        self.name_limits.in_turn(&self.runtime, make).await
    }

    /// The same for whoever has the turn, if names are limited.
    async fn make(&self, name: &Name) -> Result<(), BrokerError> {
        // Whoever was here before may have made it.
        let Some(defaults) = self.unclaimed(name).await? else {
            return Ok(());
        };
        self.check_room(name.kind()).await?;
        let command = if name.kind() == Kind::Queue {
            Command::ConfigureQueue {
                queue: name.clone(),
                settings: defaults.queue,
            }
        } else {
            Command::ConfigureTopic {
                topic: name.clone(),
                settings: defaults.topic,
            }
        };
        let (_, ingress) = self.shard_for(name);
        let reply = ingress.run(vec![Work::control(command)]).await?;
        match reply.outcome(0)?.0 {
            Outcome::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// What a topic or queue begins with; nothing if it is there.
    async fn unclaimed(&self, name: &Name) -> Result<Option<ShardDefaults>, BrokerError> {
        let (shard, _) = self.shard_for(name);
        let question = Question::Unclaimed(name.clone());
        let here = || objects::unclaimed(self, name);
        let there = |node| self.ask(node, &question);
        self.at_leader(shard, self.leader_patience(), here, there)
            .await
    }

    async fn check_room(&self, kind: Kind) -> Result<(), BrokerError> {
        let Some(allowed) = self.name_limits.of(kind) else {
            return Ok(());
        };
        let counts = self.cluster.shards().iter();
        let counts = try_join_all(counts.map(|shard| self.count(shard, kind))).await?;
        if counts.into_iter().sum::<u64>() >= allowed {
            return Err(BrokerError::Conflict {
                what: format!("there are {allowed} {kind}s, which is the most that are allowed"),
            });
        }
        Ok(())
    }

    /// How many topics or queues a shard has.
    async fn count(&self, shard: &Shard, kind: Kind) -> Result<u64, BrokerError> {
        let id = shard.id();
        let question = Question::Count { shard: id, kind };
        let here = || count(self, id, kind);
        let there = |node| self.ask(node, &question);
        self.at_leader(shard, self.leader_patience(), here, there)
            .await
    }
}

/// How many topics or queues a shard has that this node leads.
pub(crate) async fn count(core: &Core, shard: ShardId, kind: Kind) -> Result<u64, Fault> {
    let shard = core.cluster.shard(shard).ok_or(Fault::Moved)?;
    if !core.serves(shard) {
        return Err(Fault::Moved);
    }
    let stats = shard.read(|records| query::shard_stats(records)).await?;
    Ok(match kind {
        Kind::Queue => stats.queues,
        Kind::Topic | Kind::Signal | Kind::Request | Kind::Command => stats.topics,
    })
}

#[cfg(test)]
#[path = "name_limits_test.rs"]
mod tests;
