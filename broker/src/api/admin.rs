//! What operators see: objects, groups, health and damage.

use bincode::{Decode, Encode};
use flotilla_model::ids::{Offset, Sequence, ShardId, WallTime};
use flotilla_model::name::Name;
use flotilla_model::settings::{QueueSettings, TopicSettings};

/// A part of a long list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// This part; may be short, or empty, before the end.
    pub items: Vec<T>,
    /// Pass it to get the next part; `None` at the end.
    pub next: Option<String>,
}

/// A topic, queue or signal name in a list. What a kind does not have is 0.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ObjectSummary {
    /// Which.
    pub name: Name,
    /// Stored now.
    pub messages: u64,
    /// Stored now, encoded.
    pub bytes: u64,
    /// Of a queue: ready to be received.
    pub available: u64,
    /// Of a queue: held by receivers.
    pub leased: u64,
    /// Of a queue: not yet due.
    pub delayed: u64,
    /// Published so far.
    pub published_total: u64,
    /// Delivered so far, as far as the kind counts it.
    pub delivered_total: u64,
    /// Expired undelivered so far.
    pub expired_total: u64,
    /// Subscriptions of a topic or signal, waiting receivers of a queue.
    pub subscriber_count: u64,
    /// The last publish, if known.
    pub last_published: Option<WallTime>,
}

impl ObjectSummary {
    /// Of a name without any figures.
    pub(crate) fn empty(name: Name) -> Self {
        Self {
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
}

/// Everything about a topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TopicDetail {
    /// Which.
    pub name: Name,
    /// The shard that holds it.
    pub shard: ShardId,
    /// In force.
    pub settings: TopicSettings,
    /// The oldest message kept; equal to `next` if there is none.
    pub first: Offset,
    /// The next message will get this.
    pub next: Offset,
    /// Stored now.
    pub messages: u64,
    /// Stored now, encoded.
    pub bytes: u64,
    /// Published so far.
    pub published_total: u64,
    /// The last publish, if there was one.
    pub last_published: Option<WallTime>,
    /// Live subscriptions.
    pub subscriber_count: u64,
}

/// Everything about a queue.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QueueDetail {
    /// Which.
    pub name: Name,
    /// The shard that holds it.
    pub shard: ShardId,
    /// In force.
    pub settings: QueueSettings,
    /// The next message will get this.
    pub next: Sequence,
    /// Stored now, in any state.
    pub messages: u64,
    /// Stored now, encoded.
    pub bytes: u64,
    /// Ready to be received.
    pub available: u64,
    /// Held by receivers.
    pub leased: u64,
    /// Not yet due.
    pub delayed: u64,
    /// Put in so far.
    pub enqueued_total: u64,
    /// Handed out so far, repeats included.
    pub delivered_total: u64,
    /// Expired undelivered so far.
    pub expired_total: u64,
    /// Moved to dead letters, or discarded in their place, so far.
    pub dead_lettered_total: u64,
    /// Receivers that wait now.
    pub subscriber_count: u64,
}

/// A queue, and where what it holds begins.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QueueSpan {
    /// Everything else about it.
    pub detail: QueueDetail,
    /// The oldest message that is ready or held, if there is one: what is not yet due has no place.
    pub first: Option<Sequence>,
}

/// A durable cursor of a topic and who shares it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupDetail {
    /// Unique within the topic.
    pub name: String,
    /// All below is done.
    pub low_water: Offset,
    /// Messages from the low-water mark to the end that are not done.
    pub lag: u64,
    /// Live members.
    pub members: u64,
    /// Delivered to members and not yet done.
    pub outstanding: u64,
    /// Since the cursor moved last, in ms of shard time.
    pub idle_ms: u64,
}

/// Whether the node lives and serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The process does its work; false calls for a restart.
    pub alive: bool,
    /// All of it takes requests now.
    pub ready: bool,
    /// Some of it may: calls are worth trying, and those that cannot be served say why. False
    /// while the node ends.
    pub serving: bool,
    /// Why not, in words.
    pub reasons: Vec<String>,
    /// Shard by shard.
    pub shards: Vec<ShardHealth>,
}

/// One shard replica on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardHealth {
    /// Which; 0 is the metadata group.
    pub shard: ShardId,
    /// This node leads it.
    pub is_leader: bool,
    /// The Raft term.
    pub term: u64,
    /// The last entry applied.
    pub applied: u64,
    /// Why it takes no writes, if so.
    pub failed: Option<String>,
}

/// Stored bytes that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// The segment file's number.
    pub segment: u64,
    /// The first damaged byte in it.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// Whose they are, if that could be told.
    pub shard: Option<ShardId>,
    /// Which entries, inclusive, if that could be told.
    pub indexes: Option<(u64, u64)>,
    /// What is wrong with them.
    pub reason: String,
}
