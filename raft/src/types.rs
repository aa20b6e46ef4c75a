//! The types that Raft is run with. One configuration serves every group, the metadata group too.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_model::outcome::Outcome;
use flotilla_storage::EntryBody;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

openraft::declare_raft_types!(
    /// How Flotilla's groups use openraft.
    pub Groups:
        D = Batch,
        R = BatchOutcome,
        NodeId = u64,
        Node = Peer,
        AsyncRuntime = crate::runtime::Runtime,
);

/// The id of a log entry.
pub type LogId = openraft::alias::LogIdOf<Groups>;
/// Who leads or wants to lead, in which term.
pub type Vote = openraft::alias::VoteOf<Groups>;
/// An entry as Raft sees it.
pub type Entry = openraft::alias::EntryOf<Groups>;
/// A leader in its term.
pub type LeaderId = openraft::alias::LeaderIdOf<Groups>;
/// A membership with the id of the entry that set it.
pub type StoredMembership = openraft::alias::StoredMembershipOf<Groups>;
/// What a snapshot is about.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<Groups>;
/// A snapshot, and what it is about.
pub type Snapshot<S> = openraft::alias::SnapshotOf<Groups, S>;

/// A voter or learner as every member of the group knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The node's name, for display.
    pub name: String,
    /// Where its peers reach it; empty on a node without a cluster listener.
    pub address: String,
}

/// One entry of a group: its bytes are the same in memory, on the wire and on disk.
#[derive(Clone, PartialEq)]
pub struct Batch(pub EntryBody);

impl Batch {
    /// Stands for an entry that this node cannot read any more, towards peers that have it: they skip
    /// what it holds, and nobody ever stores it. The head of a real batch is never empty.
    pub fn withheld() -> io::Result<Self> {
        EntryBody::builder()
            .build()
            .map(Self)
            .map_err(io::Error::other)
    }

    pub fn is_withheld(&self) -> bool {
        self.0.is_bare()
    }
}

impl fmt::Debug for Batch {
    // Never the contents: they are messages of users, and long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        EntryBody::parse(bytes).map(Self).map_err(D::Error::custom)
    }
}

/// What applying an entry gave: per proposal, per command. Empty for entries without proposals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchOutcome(pub Vec<Arc<[Outcome]>>);

impl fmt::Display for BatchOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outcomes of {} proposals", self.0.len())
    }
}

// Raft asks for these; an outcome crosses nodes in the encoding that the model gives it.
impl Serialize for BatchOutcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        let plain: Vec<Vec<Outcome>> = self.0.iter().map(|outcomes| outcomes.to_vec()).collect();
        let bytes = bincode::encode_to_vec(&plain, bincode::config::standard())
            .map_err(S::Error::custom)?;
        Bytes::from(bytes).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BatchOutcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        let (plain, _): (Vec<Vec<Outcome>>, usize) =
            bincode::decode_from_slice(&bytes, bincode::config::standard())
                .map_err(D::Error::custom)?;
        Ok(Self(plain.into_iter().map(Arc::from).collect()))
    }
}
