//! The shapes of answers: the broker's types as JSON.

mod cluster;
mod health;
pub mod stats;
mod verification;

use flotilla_broker::{DamagedRange, GroupDetail, ObjectSummary, Page, QueueDetail, TopicDetail};
use flotilla_model::ids::WallTime;
use serde::Serialize;

use crate::settings::{QueueSettingsView, TopicSettingsView};

pub use cluster::{ClusterView, NodeView};
pub use health::{AliveView, ReadyView};
pub use verification::{VerificationView, VerifyBegunView};

/// A part of a list.
#[derive(Debug, Serialize)]
pub struct PageView<T> {
    pub items: Vec<T>,
    /// Pass it as `after` for the next part; `null` at the end.
    pub next: Option<String>,
}

impl<T> PageView<T> {
    /// The items of one namespace, or all, each in its shape.
    pub fn of(page: Page<ObjectSummary>, namespace: Option<&str>) -> Self
    where
        T: From<ObjectSummary>,
    {
        let wanted = |item: &ObjectSummary| namespace.is_none_or(|n| item.name.namespace() == n);
        Self {
            items: page.items.into_iter().filter(wanted).map(T::from).collect(),
            next: page.next,
        }
    }
}

/// Everything of a short list.
#[derive(Debug, Serialize)]
pub struct ListView<T> {
    pub items: Vec<T>,
}

impl<T> ListView<T> {
    pub fn of<S>(items: Vec<S>) -> Self
    where
        T: From<S>,
    {
        Self {
            items: items.into_iter().map(T::from).collect(),
        }
    }
}

/// A topic in a list.
#[derive(Debug, Serialize)]
pub struct TopicSummaryView {
    namespace: String,
    name: String,
    messages: u64,
    bytes: u64,
    published_total: u64,
    subscriber_count: u64,
    last_published_ms: Option<u64>,
}

impl From<ObjectSummary> for TopicSummaryView {
    fn from(object: ObjectSummary) -> Self {
        Self {
            namespace: object.name.namespace().to_owned(),
            name: object.name.text().to_owned(),
            messages: object.messages,
            bytes: object.bytes,
            published_total: object.published_total,
            subscriber_count: object.subscriber_count,
            last_published_ms: object.last_published.map(wall_ms),
        }
    }
}

/// A queue in a list.
#[derive(Debug, Serialize)]
pub struct QueueSummaryView {
    namespace: String,
    name: String,
    messages: u64,
    bytes: u64,
    available: u64,
    leased: u64,
    delayed: u64,
    enqueued_total: u64,
    delivered_total: u64,
    expired_total: u64,
    subscriber_count: u64,
    last_published_ms: Option<u64>,
}

impl From<ObjectSummary> for QueueSummaryView {
    fn from(object: ObjectSummary) -> Self {
        Self {
            namespace: object.name.namespace().to_owned(),
            name: object.name.text().to_owned(),
            messages: object.messages,
            bytes: object.bytes,
            available: object.available,
            leased: object.leased,
            delayed: object.delayed,
            enqueued_total: object.published_total,
            delivered_total: object.delivered_total,
            expired_total: object.expired_total,
            subscriber_count: object.subscriber_count,
            last_published_ms: object.last_published.map(wall_ms),
        }
    }
}

/// A topic alone.
#[derive(Debug, Serialize)]
pub struct TopicView {
    namespace: String,
    name: String,
    shard: u32,
    first_offset: u64,
    next_offset: u64,
    messages: u64,
    bytes: u64,
    published_total: u64,
    subscriber_count: u64,
    last_published_ms: Option<u64>,
    settings: TopicSettingsView,
}

impl From<TopicDetail> for TopicView {
    fn from(topic: TopicDetail) -> Self {
        Self {
            namespace: topic.name.namespace().to_owned(),
            name: topic.name.text().to_owned(),
            shard: topic.shard.0,
            first_offset: topic.first.0,
            next_offset: topic.next.0,
            messages: topic.messages,
            bytes: topic.bytes,
            published_total: topic.published_total,
            subscriber_count: topic.subscriber_count,
            last_published_ms: topic.last_published.map(wall_ms),
            settings: topic.settings.into(),
        }
    }
}

/// A queue alone.
#[derive(Debug, Serialize)]
pub struct QueueView {
    namespace: String,
    name: String,
    shard: u32,
    next_sequence: u64,
    messages: u64,
    bytes: u64,
    available: u64,
    leased: u64,
    delayed: u64,
    enqueued_total: u64,
    delivered_total: u64,
    expired_total: u64,
    dead_lettered_total: u64,
    subscriber_count: u64,
    settings: QueueSettingsView,
}

impl From<QueueDetail> for QueueView {
    fn from(queue: QueueDetail) -> Self {
        Self {
            namespace: queue.name.namespace().to_owned(),
            name: queue.name.text().to_owned(),
            shard: queue.shard.0,
            next_sequence: queue.next.0,
            messages: queue.messages,
            bytes: queue.bytes,
            available: queue.available,
            leased: queue.leased,
            delayed: queue.delayed,
            enqueued_total: queue.enqueued_total,
            delivered_total: queue.delivered_total,
            expired_total: queue.expired_total,
            dead_lettered_total: queue.dead_lettered_total,
            subscriber_count: queue.subscriber_count,
            settings: queue.settings.into(),
        }
    }
}

/// A consumer group of a topic.
#[derive(Debug, Serialize)]
pub struct GroupView {
    name: String,
    next_offset: u64,
    lag: u64,
    members: u64,
    outstanding: u64,
    idle_ms: u64,
}

impl From<GroupDetail> for GroupView {
    fn from(group: GroupDetail) -> Self {
        Self {
            name: group.name,
            next_offset: group.low_water.0,
            lag: group.lag,
            members: group.members,
            outstanding: group.outstanding,
            idle_ms: group.idle_ms,
        }
    }
}

/// Bytes that cannot be read.
#[derive(Debug, Serialize)]
pub struct DamageView {
    segment: u64,
    offset: u64,
    bytes: u64,
    shard: Option<u32>,
    first_index: Option<u64>,
    last_index: Option<u64>,
    reason: String,
}

impl From<DamagedRange> for DamageView {
    fn from(range: DamagedRange) -> Self {
        Self {
            segment: range.segment,
            offset: range.offset,
            bytes: range.bytes,
            shard: range.shard.map(|shard| shard.0),
            first_index: range.indexes.map(|(first, _)| first),
            last_index: range.indexes.map(|(_, last)| last),
            reason: range.reason,
        }
    }
}

/// Nanoseconds do not fit the numbers of JavaScript, so times are shown in milliseconds.
fn wall_ms(time: WallTime) -> u64 {
    time.0 / 1_000_000
}
