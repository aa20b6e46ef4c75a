//! Receiving from queues: one actor per queue with waiting receivers matches them, in order of
//! arrival, to what is available.
//!
//! ```text
//!   Session::receive --> QueueActor: WaitList --- one Lease command per answer ---> shard
//!                            ^                                                       |
//!                            +-- Wake <-- Change::Available        payloads are read and sent
//! ```
//!
//! A lease that comes back when its receiver is gone is released at once: whatever carries messages
//! on their way to a receiver carries a guard that does so when it is dropped.

pub(crate) mod actor;
pub(crate) mod attempts;
pub(crate) mod deliver;
pub(crate) mod local;
pub(crate) mod present;
pub(crate) mod session;
pub(crate) mod sessions;
pub(crate) mod waiters;
