//! Paged lists of what exists.

use flotilla_cluster::Shard;
use flotilla_model::ids::ObjectId;
use flotilla_model::name::{Kind, Name};
use flotilla_model::query;
use flotilla_model::records::{NeedsKeys, Records};

use crate::api::admin::{ObjectSummary, Page};
use crate::api::error::BrokerError;
use crate::core::Core;
use crate::facade::Broker;
use crate::hub::actor::ListNames;

/// Most items of one page.
const PAGE_ITEMS_MAX: u32 = 1_000;
/// Objects that are looked at for one page: a page may be short, but must not take for ever.
const OBJECTS_PER_PAGE_MAX: usize = 10_000;
/// Objects that are read at once.
const OBJECTS_PER_READ: usize = 100;

impl Broker {
    /// Lists topics, queues, or the names of signals used lately, a page at a time.
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
            Kind::Signal => self.list_signals(after, limit).await,
            Kind::Topic | Kind::Queue => list_stored(&self.inner.core, kind, after, limit).await,
        }
    }

    async fn list_signals(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<ObjectSummary>, BrokerError> {
        let after = match after {
            Some(token) => {
                let (namespace, text) = token.split_once('/').ok_or_else(|| bad_token(&token))?;
                Some(Name::new(namespace, Kind::Signal, text)?)
            }
            None => None,
        };
        let request = ListNames { after, limit };
        let found = self.inner.hub.send(request).await;
        let found = found.map_err(|_| BrokerError::ShuttingDown)?;
        let next = found
            .last()
            .filter(|_| found.len() == limit)
            .map(|(name, _, _)| format!("{}/{}", name.namespace(), name.text()));
        let items = found
            .into_iter()
            .map(|(name, seen, listeners)| ObjectSummary {
                published_total: seen.messages,
                delivered_total: seen.deliveries,
                subscriber_count: listeners,
                last_published: Some(seen.last),
                ..empty(name.as_ref().clone())
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
        let part = read_part(shard, kind, last).await?;
        looked_at += part.objects;
        for (object, summary) in part.found {
            last = Some(object);
            if let Some(mut summary) = summary {
                summary.subscriber_count = subscribers(core, &summary.name);
                items.push(summary);
            }
            if items.len() == limit {
                break;
            }
        }
        let shard_done = part.objects < OBJECTS_PER_READ && items.len() < limit;
        if shard_done {
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

struct Part {
    objects: usize,
    /// Every object, with a summary if it is of the kind that is listed.
    found: Vec<(ObjectId, Option<ObjectSummary>)>,
}

async fn read_part(
    shard: &Shard,
    kind: Kind,
    after: Option<ObjectId>,
) -> Result<Part, BrokerError> {
    let found = shard
        .read(|records| {
            let objects = query::objects(records, after, OBJECTS_PER_READ)?;
            let mut found = Vec::with_capacity(objects.len());
            for object in objects {
                let summary = if object.name.kind() == kind {
                    summary(records, kind, object.object)?
                } else {
                    None
                };
                found.push((object.object, summary));
            }
            Ok(found)
        })
        .await?;
    Ok(Part {
        objects: found.len(),
        found,
    })
}

fn summary(
    records: &dyn Records,
    kind: Kind,
    object: ObjectId,
) -> Result<Option<ObjectSummary>, NeedsKeys> {
    if kind == Kind::Topic {
        let info = query::topic_info_of(records, object)?;
        return Ok(info.map(|info| ObjectSummary {
            messages: info.messages(),
            bytes: info.bytes,
            published_total: info.next.0.saturating_sub(1),
            last_published: info.last_wall,
            ..empty(info.name.as_ref().clone())
        }));
    }
    let info = query::queue_info_of(records, object)?;
    Ok(info.map(|info| ObjectSummary {
        messages: info.available + info.leased + info.delayed,
        bytes: info.bytes,
        available: info.available,
        leased: info.leased,
        delayed: info.delayed,
        published_total: info.enqueued_total,
        delivered_total: info.delivered_total,
        expired_total: info.expired_total,
        ..empty(info.name.as_ref().clone())
    }))
}

fn subscribers(core: &Core, name: &Name) -> u64 {
    match name.kind() {
        Kind::Topic => core.topics.subscribers(name),
        Kind::Queue => core.queues.subscribers(name),
        Kind::Signal => 0,
    }
}

fn empty(name: Name) -> ObjectSummary {
    ObjectSummary {
        name,
        messages: 0,
        bytes: 0,
        available: 0,
        leased: 0,
        delayed: 0,
        published_total: 0,
        delivered_total: 0,
        expired_total: 0,
        subscriber_count: 0,
        last_published: None,
    }
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
