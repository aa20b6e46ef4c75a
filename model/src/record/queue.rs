//! A queue.

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::DedupHead;
use crate::ids::{LeaseId, Sequence};
use crate::name::Name;
use crate::settings::QueueSettings;

/// The root record of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Queue {
    /// Its name.
    pub name: Arc<Name>,
    /// How it treats messages.
    pub settings: Arc<QueueSettings>,
    /// The sequence that the next message gets.
    pub next: Sequence,
    /// The last lease id given out.
    pub last_lease: LeaseId,
    /// Messages that can be leased; expired ones count until they are removed.
    pub available: u64,
    /// Messages that are held.
    pub leased: u64,
    /// Messages that are not due.
    pub delayed: u64,
    /// Bytes of all three.
    pub bytes: u64,
    /// Height of the trie of pages with available messages.
    pub available_height: u8,
    /// Height of the trie of pages.
    pub pages_height: u8,
    /// Height of the trie of time buckets with delayed messages.
    pub delayed_height: u8,
    /// Messages put in by producers or moved in, ever.
    pub enqueued_total: u64,
    /// Deliveries, ever.
    pub delivered_total: u64,
    /// Acknowledged, ever.
    pub acked_total: u64,
    /// Returned to the tail, ever.
    pub returned_total: u64,
    /// Expired, ever.
    pub expired_total: u64,
    /// Moved to dead letters or discarded after the last delivery, ever.
    pub dead_lettered_total: u64,
    /// Removed by a purge, ever.
    pub purged_total: u64,
    /// Its producer-given ids.
    pub dedup: DedupHead,
}

impl Queue {
    /// A queue without messages.
    pub fn new(name: Arc<Name>, settings: QueueSettings) -> Self {
        Self {
            name,
            settings: Arc::new(settings),
            next: Sequence::FIRST,
            last_lease: LeaseId(0),
            available: 0,
            leased: 0,
            delayed: 0,
            bytes: 0,
            available_height: 0,
            pages_height: 0,
            delayed_height: 0,
            enqueued_total: 0,
            delivered_total: 0,
            acked_total: 0,
            returned_total: 0,
            expired_total: 0,
            dead_lettered_total: 0,
            purged_total: 0,
            dedup: DedupHead::default(),
        }
    }

    /// All messages it holds.
    pub fn stored(&self) -> u64 {
        self.available + self.leased + self.delayed
    }
}
