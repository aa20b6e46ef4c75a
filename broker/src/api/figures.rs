//! What a node counts, for those who show it under other names than the broker's own metrics.

use flotilla_model::name::{Kind, Name};

/// What a node has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Of the names that have series of their own: no more than the settings allow.
    pub names: Vec<NameFigures>,
    /// Of all names together, by kind.
    pub kinds: Vec<KindFigures>,
    /// Replies that came to those who asked on this node, refusals included.
    pub replies: u64,
}

/// Of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindFigures {
    /// Which.
    pub kind: Kind,
    /// Messages handed to consumers, repeats included.
    pub messages_out: u64,
    /// Body bytes of these.
    pub bytes_out: u64,
    /// Messages that were not accepted.
    pub refused: u64,
}

/// Of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameFigures {
    /// Which.
    pub name: Name,
    /// Messages accepted on this node.
    pub messages_in: u64,
    /// Body bytes of these.
    pub bytes_in: u64,
    /// Messages handed to consumers on this node, repeats included; of signals not counted by name.
    pub messages_out: u64,
    /// Body bytes of these.
    pub bytes_out: u64,
    /// When the last one was accepted, in ms since the Unix epoch; 0: never.
    pub last_in_ms: u64,
    /// When the last one was handed over.
    pub last_out_ms: u64,
    /// Of a queue that this node leads.
    pub queue: Option<QueueFigures>,
    /// Of a topic that this node leads: its durable cursors, and how many messages each has not finished.
    pub readers: Vec<(String, u64)>,
}

/// What is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFigures {
    /// Ready to be received.
    pub available: u64,
    /// Not yet due.
    pub delayed: u64,
    /// Expired undelivered so far.
    pub expired_total: u64,
}
