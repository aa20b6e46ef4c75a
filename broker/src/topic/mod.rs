//! Reading topics: one actor per subscribed topic feeds bounded buffers, paced by credit.
//!
//! ```text
//!   Change::Appended --> Wake --> TopicActor --- reads runs ---> Shard
//!                                  |      |
//!                        Reader    |      |   Group: ledger + members
//!                     (own place)  v      v   (shared place)
//!                                 Buffer  Buffer ...   <-- next, done --  TopicSubscription
//! ```
//!
//! A buffer never holds more than its credit: what was delivered and is not yet `done`. Nothing is
//! ever dropped for a slow reader; it is read again for it when it has room.

pub(crate) mod actor;
pub(crate) mod buffer;
#[cfg(test)]
mod buffer_test;
pub(crate) mod flush;
pub(crate) mod group;
pub(crate) mod open;
pub(crate) mod ranges;
pub(crate) mod reader;
pub(crate) mod requests;
pub(crate) mod run;
pub(crate) mod subscription;
