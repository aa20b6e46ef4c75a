//! Lists of the names that signals were sent to lately, over all nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use bincode::{Decode, Encode};
use flotilla_model::ids::WallTime;
use flotilla_model::name::Name;

use crate::api::error::BrokerError;
use crate::core::Core;
use crate::hub::actor::ListNames;
use crate::peers::ask::Question;

/// A node that does not say what it knows in this time is left out.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// A name and its figures.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct SignalName {
    pub name: Name,
    pub messages: u64,
    pub deliveries: u64,
    pub last: WallTime,
    /// On all nodes.
    pub listeners: u64,
}

impl Core {
    /// Names that were used on this node, in their order.
    pub async fn signal_names(
        &self,
        after: Option<Name>,
        limit: usize,
    ) -> Result<Vec<SignalName>, BrokerError> {
        let found = self.hub()?.send(ListNames { after, limit }).await;
        let found = found.map_err(|_| BrokerError::ShuttingDown)?;
        let names = found.into_iter().map(|(name, seen, listeners)| SignalName {
            name: name.as_ref().clone(),
            messages: seen.messages,
            deliveries: seen.deliveries,
            last: seen.last,
            listeners,
        });
        Ok(names.collect())
    }

    /// Names that were used on any node that answers, in their order.
    pub async fn signal_names_everywhere(
        &self,
        after: Option<Name>,
        limit: usize,
    ) -> Result<Vec<SignalName>, BrokerError> {
        let own = self.signal_names(after.clone(), limit).await?;
        let question = Question::SignalNames {
            after,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        };
        let asking = self.hubs.reachable().into_iter().map(|node| {
            let asking = self.ask::<Vec<SignalName>>(node, &question);
            tokio::time::timeout(ANSWER_MAX, asking)
        });
        let answers = futures::future::join_all(asking).await;
        let mut names: BTreeMap<Name, SignalName> = BTreeMap::new();
        for found in answers.into_iter().filter_map(|answer| answer.ok()?.ok()) {
            add(&mut names, found);
        }
        add(&mut names, own);
        Ok(names.into_values().take(limit).collect())
    }
}

fn add(names: &mut BTreeMap<Name, SignalName>, found: Vec<SignalName>) {
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
