//! Queues: messages that are leased, settled, delayed, expired and moved to dead letters.
//!
//! ```text
//!  enqueue ──► delayed ──► available ──► leased ──► gone (ack)
//!     └──────────────────────▲  ▲  ▲        │
//!                 tail ──────┘  │  └────────┤ release: old place     the last allowed
//!                 (return)      └───────────┘ return: new sequence ──► delivery: dead letters
//! ```
//!
//! What could not be handed to its consumer is withdrawn, which is a release or a return without a
//! delivery; a return may wait with the delayed messages for a while.
//!
//! Messages lie in pages of neighbouring sequences. Two tries say which pages exist and which have
//! a message to lease, so that neither a message held for days at the head nor any number of acked
//! ones costs the next lease a search.

mod configure;
mod deliver;
mod depart;
mod enqueue;
mod expire;
mod fate;
mod lease;
mod open;
mod page;
mod purge;
mod settle;

pub(crate) use configure::configure;
pub(crate) use deliver::fire_delayed;
pub(crate) use enqueue::enqueue;
pub(crate) use expire::fire_expiry;
pub(crate) use lease::{Wanted, lease, shown};
pub(crate) use page::{bury_step, sequence_at};
pub(crate) use purge::purge_step;
pub(crate) use settle::{end_lease, extend, fire_lease, settle};

/// Most messages of one lease.
pub const LEASE_MESSAGES_MAX: u32 = 4_096;
