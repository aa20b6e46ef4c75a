//! Paged lists of what exists.

use flotilla_cluster::Shard;
use flotilla_model::ids::{ObjectId, WallTime};
use flotilla_model::name::{Kind, Name};

use crate::api::admin::{ObjectSummary, Page};
use crate::api::error::BrokerError;
use crate::core::Core;
use crate::facade::Broker;
use crate::objects::{self, Part};
use crate::peers::ask::Question;

/// Most items of one page.
const PAGE_ITEMS_MAX: u32 = 1_000;
/// Objects that are looked at for one page: a page may be short, but must not take for ever.
const OBJECTS_PER_PAGE_MAX: usize = 10_000;

impl Broker {
    /// Lists topics, queues, or the names of signals, requests or commands used lately, a page at a time.
    ///
    /// `after` is what the page before gave as `next`. Objects come in no particular order.
    pub async fn list(
        &self,
        kind: Kind,
        after: Option<String>,
        limit: u32,
    ) -> Result<Page<ObjectSummary>, BrokerError> {
        let limit = limit.clamp(1, PAGE_ITEMS_MAX) as usize;
        match kind {
            Kind::Signal | Kind::Request | Kind::Command => {
                self.list_used(kind, after, limit).await
            }
            Kind::Topic | Kind::Queue => list_stored(&self.inner.core, kind, after, limit).await,
        }
    }

    async fn list_used(
        &self,
        kind: Kind,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<ObjectSummary>, BrokerError> {
        let after = match after {
            Some(token) => {
                let (namespace, text) = token.split_once('/').ok_or_else(|| bad_token(&token))?;
                Some(Name::new(namespace, kind, text)?)
            }
            None => None,
        };
        let found = self
            .inner
            .core
            .used_names_everywhere(kind, after, limit)
            .await?;
        let next = found
            .last()
            .filter(|_| found.len() == limit)
            .map(|found| format!("{}/{}", found.name.namespace(), found.name.text()));
        let items = found.into_iter().map(|found| ObjectSummary {
            published_total: found.messages,
            delivered_total: found.deliveries,
            subscriber_count: found.listeners,
            last_published: (found.last > WallTime(0)).then_some(found.last),
            ..ObjectSummary::empty(found.name)
        });
        Ok(Page {
            items: items.collect(),
            next,
        })
    }
}

/// Goes through the shards one after another, and through the objects of each by id.
async fn list_stored(
    core: &Core,
    kind: Kind,
    after: Option<String>,
    limit: usize,
) -> Result<Page<ObjectSummary>, BrokerError> {
    let (mut place, mut last) = match after {
        Some(token) => parse(&token)?,
        None => (0, None),
    };
    let mut items = Vec::new();
    let mut looked_at = 0;
    while let Some(shard) = core.cluster.shards().get(place) {
        let part = next_part(core, shard, kind, last).await?;
        looked_at += part.found.len();
        let is_last = part.is_last();
        for (object, summary) in part.found {
            last = Some(object);
            items.extend(summary);
            if items.len() == limit {
                break;
            }
        }
        if is_last && items.len() < limit {
            (place, last) = (place + 1, None);
        }
        if items.len() == limit || looked_at >= OBJECTS_PER_PAGE_MAX {
            let object = last.map_or(0, |object| object.0);
            let next = Some(format!("{place}:{object}"));
            return Ok(Page { items, next });
        }
    }
    Ok(Page { items, next: None })
}

async fn next_part(
    core: &Core,
    shard: &Shard,
    kind: Kind,
    after: Option<ObjectId>,
) -> Result<Part, BrokerError> {
    let here = || objects::part(core, shard.id(), kind, after);
    let question = Question::Objects {
        shard: shard.id(),
        kind,
        after,
    };
    let there = |node| core.ask(node, &question);
    core.at_leader(shard, core.leader_patience(), here, there)
        .await
}

fn parse(token: &str) -> Result<(usize, Option<ObjectId>), BrokerError> {
    let (place, object) = token.split_once(':').ok_or_else(|| bad_token(token))?;
    let place = place.parse().map_err(|_| bad_token(token))?;
    let object: u64 = object.parse().map_err(|_| bad_token(token))?;
    Ok((place, (object > 0).then_some(ObjectId(object))))
}

fn bad_token(token: &str) -> BrokerError {
    BrokerError::InvalidRequest {
        what: format!("{token:?} is not the `next` of a page"),
    }
}
