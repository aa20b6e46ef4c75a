//! What is due at a time, see [`crate::timers`].

use bincode::{Decode, Encode};

use crate::ids::{LeaseId, ObjectId};

/// Timers of one time bucket. Chunk 0 also says which chunks there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct TimerChunk {
    /// In chunk 0: the chunk with the next timer.
    pub first: u32,
    /// In chunk 0: the chunk with the latest timer.
    pub last: u32,
    /// In order of arming.
    pub timers: Vec<Timer>,
}

/// Something to look at. Whether there is still anything to do is seen when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Timer {
    /// The deadline of a lease.
    Lease(ObjectId, LeaseId),
    /// The earliest expiry in a page of a queue.
    Expiry(ObjectId, u64),
    /// The delayed messages of a queue in a time bucket.
    Delayed(ObjectId, u64),
    /// The oldest messages of a topic.
    Retention(ObjectId),
    /// The oldest producer-given ids of an object.
    Dedup(ObjectId),
    /// An idle cursor.
    Cursor(ObjectId, [u8; 16]),
}

impl TimerChunk {
    pub(super) fn weight(&self) -> usize {
        self.timers.capacity() * size_of::<Timer>()
    }
}
