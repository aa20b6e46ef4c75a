//! The shapes of `/ready` and `/v1/stats`, as tools of KubeMQ read them.

use flotilla_broker::{GroupDetail, ObjectSummary, QueueSpan, TopicDetail};
use serde::Serialize;

use super::wall_ms;

/// What the name of a client's own cursor begins with.
const CLIENT: &str = "client:";

/// The answer of `/ready`.
#[derive(Debug, Serialize)]
pub struct HealthView {
    pub is_healthy: bool,
    pub is_ready: bool,
}

/// What surrounds figures.
#[derive(Debug, Serialize)]
pub struct StatsView<T> {
    node: String,
    error: bool,
    error_string: &'static str,
    data: T,
}

impl<T> StatsView<T> {
    pub fn of(node: &str, data: T) -> Self {
        Self {
            node: node.to_owned(),
            error: false,
            error_string: "",
            data,
        }
    }
}

/// Queues, or Events Store channels: these tools call both so.
#[derive(Debug, Serialize)]
pub struct QueuesView {
    total: usize,
    queues: Vec<StoredView>,
    next: Option<String>,
}

impl QueuesView {
    pub fn of(queues: Vec<StoredView>, next: Option<String>) -> Self {
        Self {
            total: queues.len(),
            queues,
            next,
        }
    }
}

/// A channel that stores messages. What is missing, channels of its pattern do not have.
#[derive(Debug, Serialize)]
pub struct StoredView {
    name: String,
    messages: u64,
    bytes: u64,
    first_sequence: u64,
    last_sequence: u64,
    sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delayed: Option<u64>,
    subscribers: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<Vec<ReaderView>>,
}

impl From<QueueSpan> for StoredView {
    fn from(QueueSpan { detail, first }: QueueSpan) -> Self {
        Self {
            name: detail.name.text().to_owned(),
            messages: detail.messages,
            bytes: detail.bytes,
            first_sequence: first.map_or(0, |first| first.0),
            last_sequence: detail.next.0.saturating_sub(1),
            sent: detail.enqueued_total,
            delivered: Some(detail.delivered_total),
            waiting: Some(detail.available),
            delayed: Some(detail.delayed),
            subscribers: detail.subscriber_count,
            clients: None,
        }
    }
}

impl StoredView {
    /// Of a topic and those who have a place in it.
    pub fn of_topic(topic: &TopicDetail, readers: &[GroupDetail]) -> Self {
        let first = if topic.messages > 0 { topic.first.0 } else { 0 };
        Self {
            name: topic.name.text().to_owned(),
            messages: topic.messages,
            bytes: topic.bytes,
            first_sequence: first,
            last_sequence: topic.next.0.saturating_sub(1),
            sent: topic.published_total,
            delivered: None,
            waiting: None,
            delayed: None,
            subscribers: topic.subscriber_count,
            clients: Some(
                readers
                    .iter()
                    .map(|one| ReaderView::of(None, one))
                    .collect(),
            ),
        }
    }
}

/// Who has a place in an Events Store channel.
#[derive(Debug, Serialize)]
pub struct ReaderView {
    client_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    active: bool,
    last_sequence_sent: u64,
    pending: u64,
}

impl ReaderView {
    /// A group shows as `group:` and its name.
    pub fn of(channel: Option<&str>, reader: &GroupDetail) -> Self {
        let client_id = reader.name.strip_prefix(CLIENT).unwrap_or(&reader.name);
        Self {
            client_id: client_id.to_owned(),
            channel: channel.map(str::to_owned),
            active: reader.members > 0,
            last_sequence_sent: reader.low_water.0.saturating_sub(1) + reader.outstanding,
            pending: reader.lag,
        }
    }
}

/// A channel of any pattern.
#[derive(Debug, Serialize)]
pub struct ChannelView {
    name: String,
    r#type: &'static str,
    sent: u64,
    delivered: u64,
    subscribers: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_sent_ms: Option<u64>,
}

impl ChannelView {
    pub fn of(pattern: &'static str, item: &ObjectSummary) -> Self {
        Self {
            name: item.name.text().to_owned(),
            r#type: pattern,
            sent: item.published_total,
            delivered: item.delivered_total,
            subscribers: item.subscriber_count,
            last_sent_ms: item.last_published.map(wall_ms),
        }
    }
}

/// Channels of all patterns.
#[derive(Debug, Serialize)]
pub struct ChannelsView {
    total: usize,
    channels: Vec<ChannelView>,
}

impl ChannelsView {
    pub fn of(channels: Vec<ChannelView>) -> Self {
        Self {
            total: channels.len(),
            channels,
        }
    }
}

/// Those who have a place in some channels.
#[derive(Debug, Serialize)]
pub struct ClientsView {
    total: usize,
    clients: Vec<ReaderView>,
    next: Option<String>,
}

impl ClientsView {
    pub fn of(clients: Vec<ReaderView>, next: Option<String>) -> Self {
        Self {
            total: clients.len(),
            clients,
            next,
        }
    }
}
