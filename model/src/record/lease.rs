//! A lease on messages of a queue.

use bincode::{Decode, Encode};

use crate::ids::{Sequence, SessionId, ShardTime};

/// Messages that a session holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LeaseState {
    /// Who holds them.
    pub session: SessionId,
    /// Which ones, ascending and apart from each other; never empty.
    pub held: Vec<SequenceRange>,
    /// When they are returned by themselves.
    pub deadline: Option<ShardTime>,
    /// The time bucket in which the deadline is looked at; 0: none.
    pub armed: u64,
    /// Its place in the session's list.
    pub place: u64,
}

/// Neighbouring sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SequenceRange {
    /// The first one.
    pub first: Sequence,
    /// How many, at least 1.
    pub count: u32,
}

impl SequenceRange {
    /// The sequence after the last one.
    pub fn end(&self) -> u64 {
        self.first.0 + u64::from(self.count)
    }
}

impl LeaseState {
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.held.capacity() * size_of::<SequenceRange>()
    }
}
