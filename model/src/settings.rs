//! Settings of topics and queues, with their defaults.

use bincode::{Decode, Encode};

use crate::name::Name;

/// How a topic keeps its messages. The strictest limit wins.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TopicSettings {
    /// Messages older than this are dropped; `None`: no limit.
    pub retention_ms: Option<u64>,
    /// The oldest messages are dropped while more payload bytes than this are kept; `None`: no limit.
    pub retention_bytes: Option<u64>,
    /// The oldest messages are dropped while more than this are kept; `None`: no limit.
    pub retention_messages: Option<u64>,
    /// How long producer-given ids are remembered.
    pub dedup_window_ms: u64,
    /// A durable cursor that moved last this long ago is forgotten.
    pub cursor_idle_ms: u64,
}

/// How a queue treats its messages.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QueueSettings {
    /// Messages published longer ago than this are dropped unread; `None`: no limit.
    pub retention_ms: Option<u64>,
    /// Refuse new messages above this many stored; `None`: no limit.
    pub messages_max: Option<u64>,
    /// Refuse new messages above this many stored payload bytes; `None`: no limit.
    pub bytes_max: Option<u64>,
    /// Deliveries before a message is dead-lettered, where its own policy says nothing; 0: no limit.
    pub receive_count_max: u32,
    /// Dead letters go here where the message's own policy says nothing.
    pub dead_letter: Option<Name>,
    /// How long producer-given ids are remembered.
    pub dedup_window_ms: u64,
}

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            retention_ms: Some(7 * DAY_MS),
            retention_bytes: None,
            retention_messages: None,
            dedup_window_ms: 2 * MINUTE_MS,
            cursor_idle_ms: 7 * DAY_MS,
        }
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            retention_ms: None,
            messages_max: None,
            bytes_max: None,
            receive_count_max: 1_024,
            dead_letter: None,
            dedup_window_ms: 2 * MINUTE_MS,
        }
    }
}

/// What a shard gives to names that nobody configured.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShardDefaults {
    /// How many shards there are: decides where dead letters go.
    pub shard_count: u32,
    /// For topics.
    pub topic: TopicSettings,
    /// For queues.
    pub queue: QueueSettings,
}
