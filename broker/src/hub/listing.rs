//! Lists of the names that signals or requests were sent to lately, over all nodes: what is on them, and what
//! is put on them or taken off by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bincode::{Decode, Encode};
use flotilla_model::ids::WallTime;
use flotilla_model::name::{Kind, Name};

use crate::api::error::BrokerError;
use crate::core::Core;
use crate::hub::actor::{Forget, Introduce, ListNames};
use crate::peers::ask::Question;

/// A node that does not say what it knows in this time is left out.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// A name and its figures.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct UsedName {
    pub name: Name,
    pub messages: u64,
    pub deliveries: u64,
    pub last: WallTime,
    /// On all nodes.
    pub listeners: u64,
}

impl Core {
    /// Names of a kind that were used on this node, in their order.
    pub async fn used_names(
        &self,
        kind: Kind,
        after: Option<Name>,
        limit: usize,
    ) -> Result<Vec<UsedName>, BrokerError> {
        let found = match kind {
            Kind::Signal => {
                let found = self.hub()?.send(ListNames { after, limit }).await;
                found.map_err(|_| BrokerError::ShuttingDown)?
            }
            // Stored names are not among them.
            _ => self.requests.names(kind, after.as_ref(), limit),
        };
        let names = found.into_iter().map(|(name, seen, listeners)| UsedName {
            name: name.as_ref().clone(),
            messages: seen.messages,
            deliveries: seen.deliveries,
            last: seen.last,
            listeners,
        });
        Ok(names.collect())
    }

    /// Names of a kind that were used on any node that answers, in their order.
    pub async fn used_names_everywhere(
        &self,
        kind: Kind,
        after: Option<Name>,
        limit: usize,
    ) -> Result<Vec<UsedName>, BrokerError> {
        let own = self.used_names(kind, after.clone(), limit).await?;
        let question = question(kind, after, limit);
        let mut names: BTreeMap<Name, UsedName> = BTreeMap::new();
        for found in self.ask_others(&question).await {
            add(&mut names, found);
        }
        add(&mut names, own);
        Ok(names.into_values().take(limit).collect())
    }

    /// Lists a name on this node from now on, though nothing was sent to it yet.
    pub async fn introduce_name(&self, name: Name) -> Result<(), BrokerError> {
        let name = Arc::new(name);
        if name.kind() == Kind::Signal {
            let introducing = self.hub()?.send(Introduce(name)).await;
            return introducing.map_err(|_| BrokerError::ShuttingDown);
        }
        self.requests.introduce(&name);
        Ok(())
    }

    /// The same on this node and every other that answers.
    pub async fn introduce_name_everywhere(&self, name: Name) -> Result<(), BrokerError> {
        self.introduce_name(name.clone()).await?;
        self.ask_others::<()>(&Question::IntroduceName(name)).await;
        Ok(())
    }

    /// Lists a name on this node no longer; false if it was not listed.
    pub async fn forget_name(&self, name: &Name) -> Result<bool, BrokerError> {
        if name.kind() == Kind::Signal {
            let forgetting = self.hub()?.send(Forget(name.clone())).await;
            return forgetting.map_err(|_| BrokerError::ShuttingDown);
        }
        Ok(self.requests.forget(name))
    }

    /// The same on this node and every other that answers; false if none of them listed it.
    pub async fn forget_name_everywhere(&self, name: &Name) -> Result<bool, BrokerError> {
        let here = self.forget_name(name).await?;
        let there = self
            .ask_others::<bool>(&Question::ForgetName(name.clone()))
            .await;
        Ok(here || there.contains(&true))
    }

    /// What every other node says that answers in time.
    async fn ask_others<T: Decode<()>>(&self, question: &Question) -> Vec<T> {
        let asking = self.hubs.reachable().into_iter().map(|node| {
            let asking = self.ask::<T>(node, question);
            tokio::time::timeout(ANSWER_MAX, asking)
        });
        let answers = futures::future::join_all(asking).await.into_iter();
        answers.filter_map(|answer| answer.ok()?.ok()).collect()
    }
}

/// Of signals as older builds ask it too.
fn question(kind: Kind, after: Option<Name>, limit: usize) -> Question {
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    match kind {
        Kind::Signal => Question::SignalNames { after, limit },
        _ => Question::RequestNames { kind, after, limit },
    }
}

fn add(names: &mut BTreeMap<Name, UsedName>, found: Vec<UsedName>) {
    for found in found {
        match names.get_mut(&found.name) {
            Some(known) => {
                known.messages += found.messages;
                known.deliveries += found.deliveries;
                known.last = known.last.max(found.last);
                // Every node counts the listeners of all: the one asked knows best.
                known.listeners = found.listeners;
            }
            None => {
                names.insert(found.name.clone(), found);
            }
        }
    }
}
