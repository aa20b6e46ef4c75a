//! Ids, offsets and times: one newtype each, so that none is passed for another.

use bincode::{Decode, Encode};

/// Shared derives of a number newtype.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A node's identity, given once by the cluster and never reused.
    NodeId(u64)
);
number!(
    /// A shard of the name space, 1 and up; group 0 holds metadata.
    ShardId(u32)
);
number!(
    /// A topic or queue of one shard in one incarnation: dense from 1, never reused.
    ObjectId(u64)
);
number!(
    /// The place of a message in a topic; the first message has offset 1.
    Offset(u64)
);
number!(
    /// The place of a message in a queue; the first message has sequence 1.
    Sequence(u64)
);
number!(
    /// A lease on messages of one queue: dense from 1 within the queue, never reused.
    LeaseId(u64)
);
number!(
    /// The index of an entry in a shard's Raft log.
    LogIndex(u64)
);
number!(
    /// Milliseconds of shard time: it decides leases, delays, expiry and retention, and never
    /// runs backwards, whatever the wall clock does.
    ShardTime(u64)
);
number!(
    /// Nanoseconds since the Unix epoch, for display and for starting at a time. Decides nothing else.
    WallTime(u64)
);

impl ShardId {
    /// The group that holds metadata: it has no messages, but is run like a shard.
    pub const METADATA: Self = Self(0);
}

impl Offset {
    /// The first offset of a topic.
    pub const FIRST: Self = Self(1);
}

impl Sequence {
    /// The first sequence of a queue.
    pub const FIRST: Self = Self(1);
}

impl ShardTime {
    /// This time plus a duration, stopping at the end of the number space.
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// A data directory, told from all others by a random number made at its first start.
///
/// A node whose disk was wiped shows another one, and so cannot be taken for what it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct DiskId(pub [u8; 16]);

impl std::fmt::Display for DiskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for DiskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskId({self})")
    }
}

/// Who holds leases: one consumer's connection or transaction on one node's life.
///
/// The incarnation counts that node's starts, so that what a dead process held can be told
/// from what its successor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct SessionId {
    /// The node that the consumer is connected to.
    pub node: NodeId,
    /// That node's start counter.
    pub incarnation: u64,
    /// Dense within the incarnation.
    pub number: u64,
}

/// Where a batch comes from, for telling a repeat from a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Origin {
    /// A node in one of its lives.
    Node {
        /// The sender.
        node: NodeId,
        /// Its start counter.
        incarnation: u64,
    },
    /// The outbox of a shard, which outlives any node.
    Shard(ShardId),
}

/// The digest of an id that a producer gave to a message, for storing a retried publish once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct DedupId(pub [u8; 16]);

impl DedupId {
    /// Digests an id of any length. Collisions would drop a message, hence a cryptographic digest.
    pub fn of(id: &[u8]) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(id).as_bytes()[..16]);
        Self(digest)
    }
}
