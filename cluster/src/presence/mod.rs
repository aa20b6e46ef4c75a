//! Who is there: what the nodes tell each other twice a second, and what follows from silence.
//!
//! ```text
//!   every 500 ms, to every other node:  my session generation, my wall clock,
//!                                       the groups that I lead, with their terms and times
//!   and the same comes back
//! ```
//!
//! * A leader that did not hear a node for a while ends the node's sessions on its shard.
//! * A node that some shard's leader did not acknowledge for less than that raises its session generation
//!   and has its own sessions there ended: well before the leader gives to others what they held. See
//!   [`SessionTimes`].
//! * Nodes without a replica learn who leads; followers learn what the leader's clock shows.
//! * The wall clocks of the voters have a median, which a shard's time follows.

mod board;
mod clocks;
mod message;
mod round;
mod sessions;

pub(crate) use board::Board;
pub use board::LostShards;
pub(crate) use clocks::{OFFSET_MAX_US, lower_median_us, median_us};
pub(crate) use round::{Presence, ToldTime, ask_for_time};
pub(crate) use sessions::SessionTimes;
