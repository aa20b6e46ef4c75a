//! What a command led to: one outcome per command, and what changed for whoever watches.

use bincode::{Decode, Encode};

use crate::command::Settlement;
use crate::ids::{
    LeaseId, LogIndex, NodeId, ObjectId, Offset, Sequence, ShardId, ShardTime, WallTime,
};
use crate::name::{Kind, Name};

/// The result of one command. The variants' order is the stored format: only ever append.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// Of `Append`: the messages that are new got dense offsets from `first`, in order.
    Appended {
        /// The first new offset.
        first: Offset,
        /// When, as stored with the messages.
        at: WallTime,
        /// Messages that were there already: (place in the command, their offset), ascending.
        duplicates: Vec<(u32, Offset)>,
    },
    /// Of `Enqueue`.
    Enqueued {
        /// When, as stored with the messages.
        at: WallTime,
        /// Places in the command of messages whose id was seen before, ascending: stored once only.
        duplicates: Vec<u32>,
    },
    /// Of `Lease`; no messages and lease 0 if none was available.
    Leased {
        /// Names the lease in settlements.
        lease: LeaseId,
        /// In order of delivery.
        messages: Vec<LeasedMessage>,
        /// Expired messages that were passed over and removed.
        expired: u32,
    },
    /// Of `Settle`.
    Settled {
        /// How many messages were settled.
        count: u32,
        /// Sequences asked for that this lease does not hold.
        not_held: Vec<Sequence>,
        /// How many the lease still holds; 0: it is over.
        remaining: u32,
    },
    /// Of `OpenCursor`.
    CursorOpened {
        /// All below is done.
        low_water: Offset,
        /// Done above it.
        settled: Vec<(Offset, Offset)>,
        /// Whether it was there before.
        existed: bool,
    },
    /// Of `Purge`: how many messages were removed.
    Purged(u64),
    /// Of commands with nothing to tell.
    Done,
    /// The command was refused and changed nothing.
    Refused(Refusal),
    /// Of `RegisterNode`.
    NodeRegistered {
        /// The id that the disk has, new or not.
        node: NodeId,
    },
}

impl Outcome {
    /// The offset that the message at `place` of an `Append` has, new or not.
    ///
    /// `None` for any other outcome.
    pub fn offset_at(&self, place: u32) -> Option<Offset> {
        let Self::Appended {
            first, duplicates, ..
        } = self
        else {
            return None;
        };
        match duplicates.binary_search_by_key(&place, |(at, _)| *at) {
            Ok(found) => Some(duplicates[found].1),
            Err(before) => Some(Offset(first.0 + u64::from(place) - before as u64)),
        }
    }
}

/// Why a command was refused. The variants' order is the stored format: only ever append.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    /// No such topic, queue or cursor.
    #[error("{what} does not exist")]
    NotFound {
        /// What was named.
        what: String,
    },
    /// The lease is over, or was given to another session.
    #[error("lease {lease} is over or held by another session")]
    StaleLease {
        /// What was named.
        lease: LeaseId,
    },
    /// The queue's own limit.
    #[error("the queue is full: {stored} of at most {allowed} {unit}")]
    QueueFull {
        /// What it holds.
        stored: u64,
        /// What it may hold.
        allowed: u64,
        /// `messages` or `bytes`.
        unit: String,
    },
    /// A value outside its range.
    #[error("{what}")]
    Invalid {
        /// Which value, and what is allowed.
        what: String,
    },
    /// The origin skipped a sequence, or repeated one whose outcome is forgotten.
    #[error("batch {got} of an origin cannot be applied after batch {last}")]
    OriginGap {
        /// The last one applied.
        last: u64,
        /// The one that arrived.
        got: u64,
    },
    /// A metadata command came to a shard.
    #[error("metadata is kept by group 0, not by shard {shard}")]
    NotMetadata {
        /// Where it came to.
        shard: ShardId,
    },
    /// The node was removed from the cluster, which is for ever.
    #[error("node {node} was removed from the cluster and cannot come back with its old data")]
    NodeRemoved {
        /// The node.
        node: NodeId,
    },
    /// The id that a new disk wanted is that of another one.
    #[error("the id of node {node} is taken by another disk")]
    NodeIdTaken {
        /// The id.
        node: NodeId,
    },
    /// What was to be changed has changed meanwhile.
    #[error("{what} has version {found}, not {expected}")]
    VersionConflict {
        /// What was named.
        what: String,
        /// Its version.
        found: u64,
        /// The version that the decision was based on.
        expected: u64,
    },
    /// A node cannot follow the feature level.
    #[error("node {node} knows feature levels up to {known}, not {wanted}")]
    FeatureLevel {
        /// The node, 0 for one that has no id yet.
        node: NodeId,
        /// The highest level that its build can follow.
        known: u16,
        /// The level of the cluster, or the one that was asked for.
        wanted: u16,
    },
}

/// Where a message's bytes are: a slot of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct MessageRef {
    /// The entry.
    pub index: LogIndex,
    /// The slot in it.
    pub slot: u32,
    /// How many bytes.
    pub bytes: u32,
}

/// A queue message as a consumer or a peek sees it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LeasedMessage {
    /// Its place in the queue.
    pub sequence: Sequence,
    /// Where its bytes are.
    pub at: MessageRef,
    /// When it was put there.
    pub published: WallTime,
    /// Deliveries so far, this one included.
    pub receive_count: u32,
    /// When it expires, if it does.
    pub expires: Option<WallTime>,
    /// Deliveries allowed; 0: no limit.
    pub receive_count_max: u32,
    /// Where it goes after the last one.
    pub dead_letter: Option<Name>,
    /// The queue it was moved from.
    pub moved_from: Option<Name>,
    /// The ttl that the producer asked for, in ms.
    pub ttl_ms: Option<u64>,
    /// The delay that the producer asked for, in ms.
    pub delay_ms: u64,
}

/// What an applied entry changed, for waking those who wait; it may name the same thing twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A topic has new messages.
    Appended {
        /// The topic.
        object: ObjectId,
        /// Its name.
        name: Name,
        /// The offset after the last one.
        next: Offset,
    },
    /// A queue has messages to lease.
    Available {
        /// The queue.
        object: ObjectId,
        /// Its name.
        name: Name,
    },
    /// A lease ended other than by its holder's settlement.
    LeaseEnded {
        /// The queue.
        name: Name,
        /// The lease.
        lease: LeaseId,
        /// `Return` after its timer, `Release` after its session.
        how: Settlement,
    },
    /// A topic or queue is gone.
    Deleted {
        /// Topic or queue.
        kind: Kind,
        /// Its name.
        name: Name,
    },
    /// The outbox to another shard has something to send.
    Outbox {
        /// Where to.
        target: ShardId,
    },
    /// What group 0 knows about the cluster is another.
    Metadata,
}

/// Slots of an entry whose bytes nothing refers to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleasedSlots {
    /// The entry.
    pub index: LogIndex,
    /// The first slot.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// What applying an entry gave.
#[derive(Debug, Default)]
pub struct Applied {
    /// Per proposal, per command. Shared, because they are kept for repeats.
    pub outcomes: Vec<std::sync::Arc<[Outcome]>>,
    /// Who to wake.
    pub changes: Vec<Change>,
    /// Bytes that died.
    pub released: Vec<ReleasedSlots>,
    /// When the next timer is due, if there is one; a time at or before now: more is due already.
    pub next_due: Option<ShardTime>,
    /// Which behaviour the next entry finds.
    pub feature_level: u16,
}
