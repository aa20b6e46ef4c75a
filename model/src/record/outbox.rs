//! Messages on their way to another shard, see [`crate::outbox`].

use bincode::{Decode, Encode};

use crate::command::{Moved, QueuePolicy};
use crate::name::Name;
use crate::outcome::MessageRef;

/// Where the outbox to a shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OutboxHead {
    /// The oldest unconfirmed item.
    pub first: u64,
    /// The next item.
    pub next: u64,
}

/// A message that belongs into a queue of another shard.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OutboxMessage {
    /// The queue it goes to.
    pub queue: Name,
    /// Its bytes, which stay here until the target has them.
    pub at: MessageRef,
    /// How it is to be treated there.
    pub policy: QueuePolicy,
    /// Where it was.
    pub moved: Moved,
}

impl OutboxMessage {
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.queue.text().len() + self.moved.from.text().len() + 64
    }
}
