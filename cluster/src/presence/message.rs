//! What nodes tell each other about themselves.

use bincode::{Decode, Encode};

/// A question of one node to another.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Question {
    /// I am here; and you?
    Greeting(Greeting),
    /// What do you believe the time of this group to be?
    Time {
        /// 0 for metadata, else the shard.
        group: u32,
    },
}

/// The answer to it.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Answer {
    Greeting(Greeting),
    Time {
        time_ms: u64,
        /// See [`crate::time::TimeEstimate`].
        is_live: bool,
        wall_us: i64,
    },
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Greeting {
    /// What new sessions of the sender carry.
    pub generation: u64,
    pub wall_us: i64,
    /// It is about to stop and must not be made a leader.
    pub is_leaving: bool,
    /// The groups that it leads, with a majority behind it.
    pub leads: Vec<Claim>,
}

/// "I lead this group."
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Claim {
    pub group: u32,
    pub term: u64,
    /// What the group's clock shows.
    pub time_ms: u64,
}
