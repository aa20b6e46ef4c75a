//! Lists of the names that signals or requests were sent to lately, over all nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use bincode::{Decode, Encode};
use flotilla_model::ids::WallTime;
use flotilla_model::name::{Kind, Name};

use crate::api::error::BrokerError;
use crate::core::Core;
use crate::hub::actor::ListNames;
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
        let asking = self.hubs.reachable().into_iter().map(|node| {
            let asking = self.ask::<Vec<UsedName>>(node, &question);
            tokio::time::timeout(ANSWER_MAX, asking)
        });
        let answers = futures::future::join_all(asking).await;
        let mut names: BTreeMap<Name, UsedName> = BTreeMap::new();
        for found in answers.into_iter().filter_map(|answer| answer.ok()?.ok()) {
            add(&mut names, found);
        }
        add(&mut names, own);
        Ok(names.into_values().take(limit).collect())
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
