//! A durable cursor.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::ids::{Offset, ShardTime};

/// A reader's place in a topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CursorState {
    /// Its name within the topic.
    pub name: Arc<str>,
    /// All below is done.
    pub low_water: Offset,
    /// Done above it: inclusive, ascending, apart from each other.
    pub settled: Vec<(Offset, Offset)>,
    /// When it was last opened or moved.
    pub moved_at: ShardTime,
    /// Its place in the topic's list of cursors.
    pub place: u64,
    /// The time bucket in which its idleness is looked at.
    pub armed: u64,
}

impl CursorState {
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>()
            + self.name.len()
            + self.settled.capacity() * size_of::<(Offset, Offset)>()
    }
}
