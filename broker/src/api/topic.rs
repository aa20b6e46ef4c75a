//! Publishing to topics and reading from them.

use std::time::Duration;

use bincode::{Decode, Encode};
use flotilla_model::ids::{DedupId, Offset, WallTime};
use flotilla_model::message::Message;
use flotilla_model::name::Name;

/// One message for a topic.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where to; created on first use.
    pub topic: Name,
    /// What.
    pub message: Message,
    /// A repeat of this id within the topic's window is stored once and gets the first one's offset.
    pub dedup: Option<DedupId>,
}

/// What became of a [`Publish`]: it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its place in the topic.
    pub offset: Offset,
    /// When, as stored with it.
    pub at: WallTime,
    /// It was there already under its dedup id.
    pub duplicate: bool,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Start {
    /// What is stored after the subscription is live.
    NewOnly,
    /// The oldest message kept.
    First,
    /// The last stored message, then new ones.
    Last,
    /// The first message at or after this offset.
    Offset(Offset),
    /// The first message stored at or after this time.
    Wall(WallTime),
    /// The first message stored at or after now minus this.
    Ago(Duration),
}

/// Who remembers how far reading has come.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CursorMode {
    /// Nobody.
    None,
    /// The shard, for one reader; while it is in use a second reader gets an independent place.
    Exclusive {
        /// Unique within the topic, groups included; at most 1,024 bytes.
        name: String,
    },
    /// The shard, for members that share the messages.
    Group {
        /// Unique within the topic, exclusive cursors included; at most 1,024 bytes.
        name: String,
    },
}

/// What a reader wants.
#[derive(Clone, Debug, Encode, Decode)]
pub struct SubscribeTopic {
    /// From where; created on first use.
    pub topic: Name,
    /// Ignored if the cursor exists already.
    pub start: Start,
    /// Who remembers.
    pub cursor: CursorMode,
    /// At most this many messages are delivered and not yet `done`.
    pub buffer_messages: u32,
    /// At most this many message bytes are delivered and not yet `done`, but always one message.
    pub buffer_bytes: u64,
}

/// One message of a topic.
#[derive(Clone, Debug)]
pub struct TopicDelivery {
    /// Its place in the topic.
    pub offset: Offset,
    /// When it was stored.
    pub at: WallTime,
    /// What.
    pub message: Message,
}
