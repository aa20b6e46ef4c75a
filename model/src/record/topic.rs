//! A topic.

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::{BagHead, DedupHead};
use crate::ids::{Offset, WallTime};
use crate::name::Name;
use crate::settings::TopicSettings;

/// The root record of a topic. Index records are numbered from 0; those from `first_record` to
/// before `next_record` are stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Topic {
    /// Its name.
    pub name: Arc<Name>,
    /// How it keeps messages.
    pub settings: Arc<TopicSettings>,
    /// The first retained offset.
    pub first: Offset,
    /// The offset that the next message gets.
    pub next: Offset,
    /// The oldest index record.
    pub first_record: u64,
    /// The next index record.
    pub next_record: u64,
    /// Bytes of all stored index records.
    pub bytes: u64,
    /// Bytes ever appended.
    pub appended_bytes_total: u64,
    /// When the last message came.
    pub last_wall: WallTime,
    /// The time bucket in which retention is looked at; 0: none.
    pub armed: u64,
    /// Its cursors.
    pub cursors: BagHead,
    /// Its producer-given ids.
    pub dedup: DedupHead,
}

impl Topic {
    /// A topic without messages.
    pub fn new(name: Arc<Name>, settings: TopicSettings) -> Self {
        Self {
            name,
            settings: Arc::new(settings),
            first: Offset::FIRST,
            next: Offset::FIRST,
            first_record: 0,
            next_record: 0,
            bytes: 0,
            appended_bytes_total: 0,
            last_wall: WallTime(0),
            armed: 0,
            cursors: BagHead::default(),
            dedup: DedupHead::default(),
        }
    }
}
