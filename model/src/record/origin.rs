//! How far a sender's batches were applied, see [`crate::origin`].

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::outcome::Outcome;

/// A sender in its present life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OriginState {
    /// The life; 0 for a shard's outbox, which has but one.
    pub incarnation: u64,
    /// The last batch that was applied.
    pub last: u64,
}

/// What a batch led to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OriginSlot {
    /// The life of the sender.
    pub incarnation: u64,
    /// The batch.
    pub sequence: u64,
    /// One per command.
    pub outcomes: Arc<[Outcome]>,
}

impl OriginSlot {
    pub(super) fn weight(&self) -> usize {
        // Lists inside outcomes are counted roughly: most have none.
        self.outcomes
            .iter()
            .map(|outcome| {
                size_of::<Outcome>()
                    + match outcome {
                        Outcome::Leased { messages, .. } => {
                            messages.capacity() * size_of::<crate::outcome::LeasedMessage>()
                        }
                        _ => 0,
                    }
            })
            .sum()
    }
}
