//! Unordered lists, see [`crate::bag`].

use bincode::{Decode, Encode};

use crate::ids::{LeaseId, ObjectId};

/// Places in one page of a bag.
pub const BAG_PAGE_ITEMS: u64 = 16;

/// Where a bag stands; kept in the record of its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct BagHead {
    /// The next place to be used.
    pub next: u64,
    /// How many items there are.
    pub live: u64,
    /// Height of the trie of pages.
    pub height: u8,
}

/// Items by place within the page, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct BagPage(pub Vec<(u8, BagItem)>);

/// What the bags hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum BagItem {
    /// A lease of a session.
    Lease(ObjectId, LeaseId),
    /// A session of a node: its incarnation and number.
    Session(u64, u64),
    /// The digest of a cursor's name.
    Cursor([u8; 16]),
}

impl BagPage {
    pub(super) fn weight(&self) -> usize {
        self.0.capacity() * size_of::<(u8, BagItem)>()
    }
}
