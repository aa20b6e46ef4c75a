//! What ended and still has records, see [`crate::graveyard`].

use bincode::{Decode, Encode};

use super::{Queue, Topic};
use crate::ids::{NodeId, ObjectId, SessionId};

/// Something whose records are removed bit by bit.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Grave {
    /// A deleted topic.
    Topic(ObjectId, Box<Topic>),
    /// A deleted queue.
    Queue(ObjectId, Box<Queue>),
    /// A session that is over.
    Session(SessionId),
    /// A node's sessions below an incarnation.
    OldSessions(NodeId, u64),
    /// A session that nobody got anything under.
    UnheardSession(SessionId),
}

impl Grave {
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Topic(_, topic) => size_of::<Topic>() + topic.name.text().len(),
            Self::Queue(_, queue) => size_of::<Queue>() + queue.name.text().len(),
            Self::Session(_) | Self::OldSessions(..) | Self::UnheardSession(_) => 0,
        }
    }
}
