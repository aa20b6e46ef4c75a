//! Producer-given ids that were seen, see [`crate::dedup`].

use bincode::{Decode, Encode};

use crate::ids::{DedupId, ShardTime};

/// Ids in one page of the log of arrivals.
pub const DEDUP_PAGE_IDS: u64 = 24;

/// Where an object's log of arrivals stands; kept in the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct DedupHead {
    /// The oldest place that is remembered.
    pub first: u64,
    /// The next place.
    pub next: u64,
    /// The time bucket in which the oldest is looked at; 0: none.
    pub armed: u64,
}

/// An id that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DedupEntry {
    /// The offset or sequence that its message got.
    pub value: u64,
    /// When.
    pub at: ShardTime,
    /// Its place in the log of arrivals: an id that comes again later has a newer one.
    pub place: u64,
}

/// Ids in order of arrival, with the time of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct DedupPage(pub Vec<(DedupId, ShardTime)>);

impl DedupPage {
    pub(super) fn weight(&self) -> usize {
        self.0.capacity() * size_of::<(DedupId, ShardTime)>()
    }
}
