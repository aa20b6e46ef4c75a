//! What the node that leads a shard says about its topics, queues and groups.

use std::collections::HashMap;

use bincode::{Decode, Encode};
use flotilla_cluster::Shard;
use flotilla_model::ids::{LeaseId, ObjectId, Sequence, SessionId, ShardId};
use flotilla_model::name::{Kind, Name};
use flotilla_model::query::{self, CursorInfo, QueueInfo};
use flotilla_model::records::{NeedsKeys, Records};
use flotilla_model::settings::ShardDefaults;

use crate::api::admin::{GroupDetail, ObjectSummary, QueueDetail, QueueSpan, TopicDetail};
use crate::api::error::BrokerError;
use crate::api::topic::Start;
use crate::core::Core;
use crate::fault::Fault;
use crate::metrics::sample::lag;
use crate::topic::requests::{ForgetCursor, LiveCursor, LiveCursors, MoveCursor};

/// Groups of one topic that are listed.
const GROUPS_MAX: usize = 10_000;
/// Groups that are read at once.
const GROUPS_PER_READ: usize = 100;
/// Objects of a shard that are read at once.
pub(crate) const OBJECTS_PER_READ: usize = 100;

/// The shard of a name, if this node leads it.
async fn led<'a>(core: &'a Core, name: &Name) -> Result<&'a Shard, Fault> {
    let (shard, _) = core.shard_for(name);
    if !core.serves(shard) {
        return Err(Fault::Moved);
    }
    core.confirm_leadership(shard).await?;
    Ok(shard)
}

/// Everything about a topic.
pub(crate) async fn topic(core: &Core, topic: &Name) -> Result<TopicDetail, Fault> {
    let shard = led(core, topic).await?;
    let found = shard
        .read(|records| query::topic_info(records, topic))
        .await?;
    let info = found.ok_or_else(|| missing(topic))?;
    Ok(TopicDetail {
        name: topic.clone(),
        shard: shard.id(),
        settings: info.settings.as_ref().clone(),
        first: info.first,
        next: info.next,
        messages: info.messages(),
        bytes: info.bytes,
        published_total: info.next.0.saturating_sub(1),
        last_published: info.last_wall,
        subscriber_count: core.topics.subscribers(topic),
    })
}

/// Everything about a queue.
pub(crate) async fn queue(core: &Core, queue: &Name) -> Result<QueueDetail, Fault> {
    let shard = led(core, queue).await?;
    let found = shard
        .read(|records| query::queue_info(records, queue))
        .await?;
    let info = found.ok_or_else(|| missing(queue))?;
    Ok(queue_detail(core, shard, queue, &info))
}

/// The same, with where what it holds begins.
pub(crate) async fn queue_span(core: &Core, queue: &Name) -> Result<QueueSpan, Fault> {
    let shard = led(core, queue).await?;
    let found = shard
        .read(|records| {
            let Some(info) = query::queue_info(records, queue)? else {
                return Ok(None);
            };
            let first = query::queue_first(records, info.object)?;
            Ok(Some((info, first)))
        })
        .await?;
    let (info, first) = found.ok_or_else(|| missing(queue))?;
    Ok(QueueSpan {
        detail: queue_detail(core, shard, queue, &info),
        first,
    })
}

fn queue_detail(core: &Core, shard: &Shard, queue: &Name, info: &QueueInfo) -> QueueDetail {
    QueueDetail {
        name: queue.clone(),
        shard: shard.id(),
        settings: info.settings.as_ref().clone(),
        next: info.next_sequence,
        messages: info.available + info.leased + info.delayed,
        bytes: info.bytes,
        available: info.available,
        leased: info.leased,
        delayed: info.delayed,
        enqueued_total: info.enqueued_total,
        delivered_total: info.delivered_total,
        expired_total: info.expired_total,
        dead_lettered_total: info.dead_lettered_total,
        subscriber_count: core.queues.subscribers(queue),
    }
}

/// What a topic or queue begins with that nobody has configured; nothing if it is there already.
pub(crate) async fn unclaimed(core: &Core, name: &Name) -> Result<Option<ShardDefaults>, Fault> {
    let shard = led(core, name).await?;
    let found = shard
        .read(|records| {
            let is_there = match name.kind() {
                Kind::Queue => query::queue_info(records, name)?.is_some(),
                _ => query::topic_info(records, name)?.is_some(),
            };
            if is_there {
                return Ok(None);
            }
            Ok(Some(query::shard_stats(records)?.defaults))
        })
        .await?;
    Ok(found.map(|defaults| defaults.as_ref().clone()))
}

/// The durable cursors of a topic, with those who read through them.
pub(crate) async fn groups(core: &Core, topic: &Name) -> Result<Vec<GroupDetail>, Fault> {
    let shard = led(core, topic).await?;
    let live = match core.topics.get(topic) {
        // An actor that is going to sleep has no readers.
        Some(live) => live.address.send(LiveCursors).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let live: HashMap<String, LiveCursor> = live
        .into_iter()
        .map(|cursor| (cursor.name.clone(), cursor))
        .collect();
    let info = shard
        .read(|records| query::topic_info(records, topic))
        .await?
        .ok_or_else(|| missing(topic))?;
    let now = shard.now();
    let mut groups = Vec::new();
    let mut after = None;
    while groups.len() < GROUPS_MAX {
        let part: Vec<CursorInfo> = shard
            .read(|records| query::cursors(records, topic, after, GROUPS_PER_READ))
            .await?;
        let Some(last) = part.last() else {
            break;
        };
        after = Some(last.place);
        groups.extend(part.iter().map(|cursor| {
            let live = live.get::<str>(cursor.name.as_ref());
            GroupDetail {
                name: cursor.name.to_string(),
                low_water: cursor.low_water,
                lag: lag(&info, cursor),
                members: live.map_or(0, |live| live.members),
                outstanding: live.map_or(0, |live| live.outstanding),
                idle_ms: now.0.saturating_sub(cursor.moved_at.0),
            }
        }));
    }
    Ok(groups)
}

/// Moves a group to another place of its topic, with its live members.
pub(crate) async fn reset_group(
    core: &std::sync::Arc<Core>,
    topic: &Name,
    group: &str,
    to: Start,
) -> Result<(), Fault> {
    led(core, topic).await?;
    let start = |wake| core.start_topic(topic, wake);
    let request = || MoveCursor {
        cursor: group.to_owned(),
        to,
    };
    core.topics.call(topic, start, request).await?
}

/// Forgets a group that has no live members.
pub(crate) async fn delete_group(
    core: &std::sync::Arc<Core>,
    topic: &Name,
    group: &str,
) -> Result<(), Fault> {
    led(core, topic).await?;
    let start = |wake| core.start_topic(topic, wake);
    let request = || ForgetCursor(group.to_owned());
    core.topics.call(topic, start, request).await?
}

/// What a session holds under a lease; nothing if the lease is over.
pub(crate) async fn held(
    core: &Core,
    queue: &Name,
    lease: LeaseId,
    session: SessionId,
) -> Result<Vec<Sequence>, Fault> {
    let shard = led(core, queue).await?;
    let found = shard
        .read(|records| query::lease_get(records, queue, lease))
        .await?;
    Ok(found
        .filter(|found| found.session == session)
        .map_or_else(Vec::new, |found| found.sequences))
}

/// Some objects of a shard, in the order of their ids.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Part {
    /// Every object that was looked at, with a summary if it is of the kind that is listed.
    pub found: Vec<(ObjectId, Option<ObjectSummary>)>,
}

impl Part {
    /// Whether the shard has no more.
    pub fn is_last(&self) -> bool {
        self.found.len() < OBJECTS_PER_READ
    }
}

/// The next objects of a shard.
pub(crate) async fn part(
    core: &Core,
    shard: ShardId,
    kind: Kind,
    after: Option<ObjectId>,
) -> Result<Part, Fault> {
    let shard = core.cluster.shard(shard).ok_or(Fault::Moved)?;
    if !core.serves(shard) {
        return Err(Fault::Moved);
    }
    let mut found = shard
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
    for summary in found.iter_mut().filter_map(|(_, found)| found.as_mut()) {
        summary.subscriber_count = match kind {
            Kind::Topic => core.topics.subscribers(&summary.name),
            Kind::Queue => core.queues.subscribers(&summary.name),
            Kind::Signal | Kind::Request | Kind::Command => 0,
        };
    }
    Ok(Part { found })
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
            ..ObjectSummary::empty(info.name.as_ref().clone())
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
        ..ObjectSummary::empty(info.name.as_ref().clone())
    }))
}

fn missing(name: &Name) -> BrokerError {
    BrokerError::NotFound {
        what: name.to_string(),
    }
}
