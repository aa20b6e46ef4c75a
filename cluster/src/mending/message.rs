//! What nodes say to each other about their replicas.

use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::Bytes;
use flotilla_model::ids::NodeId;

use crate::error::{ClusterError, chain};
use crate::net::{Talk, TalkReceiver, TalkSender};
use crate::packing;

/// A replica is fetched whole.
const MEND_WAIT_MAX: Duration = Duration::from_secs(3600);

/// What a conversation is about: its first frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Opening {
    /// The digest of a replica, read at most at this rate.
    Digest { group: u32, bytes_per_second: u64 },
    /// A snapshot of a replica: of a confirmed leader with all that it has, or of any.
    Fetch { group: u32, must_lead: bool },
    /// Messages of an entry.
    Read {
        group: u32,
        index: u64,
        first: u32,
        count: u32,
    },
    /// Makes the replica anew from one of these nodes; of one that was found damaged, if it still is.
    Mend {
        group: u32,
        from: Vec<NodeId>,
        if_damaged: bool,
    },
    /// The replica has lost entries that it acknowledged, says the leader: makes it anew from the leader.
    Lost { group: u32 },
}

/// What follows from who opened it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Step {
    /// The entry at which replicas are compared, in place of one that was named before.
    At { index: u64 },
    /// The replica is at the entry, and so are the others, or will be: its digest is wanted.
    Compare,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Told {
    /// Nothing will come, and why.
    Refused { reason: String },
    /// How far the log of the replica is.
    Ready { last: u64 },
    /// The digest will be of that entry.
    Armed,
    /// The replica is beyond that entry.
    Passed { applied: u64 },
    /// The replica is there. It waits: another one may have been beyond that entry already.
    Reached,
    /// The next parts, in the order of their places.
    Parts(Vec<Part>),
    /// All parts were told.
    End(Totals),
    /// Its state cannot be read.
    Unsound { reason: String },
    /// The beginning of a snapshot; its chunks follow as they are.
    Snapshot {
        /// The leader's vote, or that of the leader that the replica follows.
        vote: Vec<u8>,
        manifest: Vec<u8>,
    },
    /// The messages follow as they are.
    Messages,
    /// The replica was made anew.
    Mended,
}

/// Neighbouring entries in one part.
pub(super) const ENTRIES_PER_PART: u64 = 16;

/// A place that parts are compared at. The order is the one in which they are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(super) enum Place {
    /// Neighbouring entries, from this one on.
    Entries { first: u64 },
    /// State records up to a key.
    Records { upto: Vec<u8> },
}

/// What a replica holds at a place.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Part {
    pub place: Place,
    /// Messages or records.
    pub count: u32,
    pub bytes: u64,
    pub crc: u32,
    /// Messages that are not whole.
    pub damaged: u32,
}

/// All that was read of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Totals {
    pub messages: u64,
    pub message_bytes: u64,
    pub records: u64,
    /// Messages that are not whole.
    pub damaged: u64,
    /// Entries that Raft may still be asked for.
    pub log_entries: u64,
    /// Those that are not whole.
    pub log_damaged: u64,
    /// The first of them.
    pub log_damaged_first: Option<u64>,
}

/// A conversation in these words.
pub(super) struct Words {
    pub sender: TalkSender,
    pub receiver: TalkReceiver,
}

impl From<Talk> for Words {
    fn from(talk: Talk) -> Self {
        Self {
            sender: talk.sender,
            receiver: talk.receiver,
        }
    }
}

impl Words {
    pub async fn say<T: Encode>(&mut self, word: &T) -> Result<(), ClusterError> {
        say(&self.sender, word).await
    }

    pub async fn raw(&mut self) -> Result<Option<Bytes>, ClusterError> {
        self.receiver.recv().await.transpose().map_err(broken)
    }

    /// The next word; an error at the end of the conversation, too.
    pub async fn hear<T: Decode<()>>(&mut self) -> Result<T, ClusterError> {
        match self.raw().await? {
            Some(frame) => packing::unpack("a word about a replica", &frame).map_err(broken),
            None => Err(broken("the other side has ended the conversation")),
        }
    }

    /// Has the other side make its replica anew, and waits for that.
    pub async fn have_mended(&mut self, opening: &Opening) -> Result<(), ClusterError> {
        self.say(opening).await?;
        match tokio::time::timeout(MEND_WAIT_MAX, self.answer()).await {
            Ok(Ok(Told::Mended)) => Ok(()),
            Ok(Ok(told)) => Err(out_of_turn(&told)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(broken("the replica was not made anew in time")),
        }
    }

    /// The next word of an answer, a refusal being an error.
    pub async fn answer(&mut self) -> Result<Told, ClusterError> {
        match self.hear().await? {
            Told::Refused { reason } => Err(ClusterError::Unavailable { reason }),
            told => Ok(told),
        }
    }
}

pub(super) async fn say<T: Encode>(sender: &TalkSender, word: &T) -> Result<(), ClusterError> {
    let frame = packing::pack(word).map_err(broken)?;
    sender.send(frame).await.map_err(broken)
}

pub(super) fn broken(error: impl std::fmt::Display) -> ClusterError {
    ClusterError::Unavailable {
        reason: error.to_string(),
    }
}

/// What an error says, without what this crate says of every such error.
pub(super) fn reason_of(error: &ClusterError) -> String {
    match error {
        ClusterError::Unavailable { reason } => reason.clone(),
        error => chain(error),
    }
}

/// An answer that does not fit the question.
pub(super) fn out_of_turn(told: &Told) -> ClusterError {
    broken(format!("an answer out of turn: {told:?}"))
}
