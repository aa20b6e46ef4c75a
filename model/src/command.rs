//! What can be asked of a shard: the commands of an entry.
//!
//! A command is about one name and many messages. The messages' bytes are not in it: they are the
//! *slots* of the entry, and each `Append` and `Enqueue` takes the next `count` slots in order.

use bincode::{Decode, Encode};

use crate::ids::{
    DedupId, DiskId, LeaseId, NodeId, Offset, Origin, Sequence, SessionId, ShardId, ShardTime,
    WallTime,
};
use crate::metadata::NodeState;
use crate::name::Name;
use crate::settings::{QueueSettings, ShardDefaults, TopicSettings};

/// Most commands of all proposals in one entry.
pub const ENTRY_COMMANDS_MAX: usize = 4_096;

/// The head of a log entry: when it was made, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EntryHead {
    /// Shard time, stamped by the leader. Earlier than the state's own time: the state's time stands.
    pub now: ShardTime,
    /// Wall time of the leader, for display.
    pub wall: WallTime,
    /// Batches of commands, each from one origin.
    pub proposals: Vec<Proposal>,
}

/// A batch of commands from one origin: applied once, however often it arrives.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// The sender.
    pub origin: Origin,
    /// Dense per origin from 1.
    pub sequence: u64,
    /// The first of the entry's slots that belongs to this proposal.
    pub first_slot: u32,
    /// Applied in order, each on its own: one refused command does not undo its neighbours.
    pub commands: Vec<Command>,
}

/// One request to the state machine of a shard. The variants' order is the stored format: only ever
/// append.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Appends the next `count` slots to a topic, which is created if it is new.
    Append {
        /// The topic.
        topic: Name,
        /// How many slots it takes.
        count: u32,
        /// Producer-given ids of some of the messages: (place in this command, id).
        dedup: Vec<(u32, DedupId)>,
    },
    /// Puts the next slots into a queue, which is created if it is new.
    Enqueue {
        /// The queue.
        queue: Name,
        /// Runs of neighbouring messages with the same policy; their lengths add up to the slots taken.
        runs: Vec<EnqueueRun>,
        /// Producer-given ids of some of the messages: (place in this command, id).
        dedup: Vec<(u32, DedupId)>,
    },
    /// Hands messages of a queue to a consumer.
    Lease {
        /// The queue.
        queue: Name,
        /// Who will hold them.
        session: SessionId,
        /// At most this many messages (1 to 4,096).
        messages_max: u32,
        /// At most this many payload bytes, but always one message if there is any.
        bytes_max: u64,
        /// Returned by itself after this long; `None`: held until settled or the session ends.
        visibility_ms: Option<u64>,
    },
    /// Ends the hold on messages of a lease, in one of the ways of [`Settlement`].
    Settle {
        /// The queue.
        queue: Name,
        /// Must be the session that the lease was given to.
        session: SessionId,
        /// The lease.
        lease: LeaseId,
        /// Which of its messages.
        which: Selection,
        /// What becomes of them.
        how: Settlement,
    },
    /// Restarts the visibility timer of a lease.
    ExtendLease {
        /// The queue.
        queue: Name,
        /// Must be the session that the lease was given to.
        session: SessionId,
        /// The lease.
        lease: LeaseId,
        /// From now.
        visibility_ms: u64,
    },
    /// Removes every available message of a queue; leased and delayed ones stay.
    Purge {
        /// The queue.
        queue: Name,
    },
    /// Releases everything that a session holds on this shard.
    EndSession {
        /// The session.
        session: SessionId,
    },
    /// Releases what earlier lives of a node held: sent when the node starts.
    EndOldSessions {
        /// The node.
        node: NodeId,
        /// Its present start counter; sessions below it are over.
        incarnation: u64,
    },
    /// Opens a durable cursor of a topic, or finds the one that is there.
    OpenCursor {
        /// The topic, created if it is new.
        topic: Name,
        /// The cursor's name within the topic, at most 1,024 bytes.
        cursor: String,
        /// Where a new cursor begins, which may be beyond the end; an existing one stays where it is.
        start: Offset,
    },
    /// Records what the readers of a cursor have finished.
    AdvanceCursor {
        /// The topic.
        topic: Name,
        /// The cursor.
        cursor: String,
        /// All below this offset is done.
        low_water: Offset,
        /// Done above it: inclusive ranges, ascending, at most 64.
        settled: Vec<(Offset, Offset)>,
    },
    /// Moves a cursor, forwards or backwards, and forgets what it had settled.
    ResetCursor {
        /// The topic.
        topic: Name,
        /// The cursor.
        cursor: String,
        /// The next offset to read.
        to: Offset,
    },
    /// Forgets a cursor.
    DeleteCursor {
        /// The topic.
        topic: Name,
        /// The cursor.
        cursor: String,
    },
    /// Creates a topic or changes its settings.
    ConfigureTopic {
        /// The topic.
        topic: Name,
        /// Replace the present ones.
        settings: TopicSettings,
    },
    /// Creates a queue or changes its settings.
    ConfigureQueue {
        /// The queue.
        queue: Name,
        /// Replace the present ones.
        settings: QueueSettings,
    },
    /// Deletes a topic or queue with all it holds. A later one of the same name is a new incarnation.
    Delete {
        /// Topic or queue.
        name: Name,
    },
    /// Sets what implicitly created names of this shard get, and how many shards there are.
    SetDefaults {
        /// Replace the present ones.
        defaults: ShardDefaults,
    },
    /// Says that the target shard holds all of this outbox up to an item.
    ConfirmOutbox {
        /// Where the items went.
        target: ShardId,
        /// Inclusive.
        upto: u64,
    },
    /// Metadata: gives a node its id, or brings what is known about it up to date.
    RegisterNode {
        /// Who asks: the same disk is the same node.
        disk: DiskId,
        /// For display.
        name: String,
        /// Where other nodes reach it, as `host:port`; empty for a node alone.
        address: String,
        /// Replicas are spread over zones; may be empty.
        zone: String,
        /// The highest feature level that its build can follow.
        feature_level_max: u16,
        /// The id that a new disk gets; `None`: the next free one.
        wanted: Option<NodeId>,
    },
    /// Metadata: says what part a node takes.
    SetNodeState {
        /// The node.
        node: NodeId,
        /// Replaces the present one; [`NodeState::Removed`] is for ever.
        state: NodeState,
        /// The node's version that the decision was based on.
        expected_version: u64,
    },
    /// Metadata: says which nodes keep a shard.
    SetPlacement {
        /// The shard, or group 0.
        shard: ShardId,
        /// Without repeats; the first should lead.
        replicas: Vec<NodeId>,
        /// The placement's version that the decision was based on; 0: there is none yet.
        expected_version: u64,
    },
    /// Metadata: says how many replicas shards are to have.
    SetReplicas {
        /// At least 1.
        replicas: u32,
    },
    /// Lets new behaviour begin, once every node knows it: in group 0 for the cluster, then in each shard
    /// for itself.
    RaiseFeatureLevel {
        /// The new level.
        to: u16,
    },
    /// Clears what a node left that was removed from the cluster: it is never heard again.
    ForgetNode {
        /// The node.
        node: NodeId,
    },
    /// Withdraws everything that is leased under a session, of which nobody got anything: these deliveries
    /// do not count.
    WithdrawSession {
        /// The session.
        session: SessionId,
    },
}

/// Neighbouring messages of an [`Command::Enqueue`] that share everything but their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EnqueueRun {
    /// How many messages.
    pub count: u32,
    /// How they are to be treated.
    pub policy: QueuePolicy,
    /// Set by moves between shards: where the messages were before.
    pub moved: Option<Moved>,
}

/// What a producer asks for a queue message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct QueuePolicy {
    /// Not delivered before this long; 0: at once.
    pub delay_ms: u64,
    /// Removed undelivered this long after it became deliverable; `None`: never.
    pub ttl_ms: Option<u64>,
    /// Deliveries before it is dead-lettered or discarded; 0: the queue's setting.
    pub receive_count_max: u32,
    /// Where it goes then; `None`: the queue's setting, and if that is unset it is discarded.
    pub dead_letter: Option<Name>,
}

/// What a message that was moved from another queue keeps.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Moved {
    /// The queue it was in.
    pub from: Name,
    /// Its expiry as (time left in ms, wall time), if it had one: a move does not renew it.
    pub expiry: Option<(u64, WallTime)>,
}

/// Which messages of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Selection {
    /// All that are still held.
    All,
    /// These, ascending and without repeats; one that is not held is reported and stops nothing.
    Sequences(Vec<Sequence>),
}

/// What becomes of a leased message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Settlement {
    /// Done: it is removed.
    Ack,
    /// Not done: it goes to the tail under a new sequence, or to dead letters after its last delivery.
    Return,
    /// Undelivered, or its consumer is gone: back to its old place under its old sequence, or to
    /// dead letters after its last delivery.
    Release,
    /// Goes to another queue, treated there as a new message.
    Move {
        /// Where to.
        to: Name,
    },
    /// Its consumer certainly got nothing of it: the delivery does not count, and so cannot have been the
    /// last one. Back to its old place under its old sequence, or to the tail after a pause.
    Withdraw {
        /// 0: none.
        pause_ms: u64,
    },
    /// Cannot be done now: like a return, but available only after a pause.
    Postpone {
        /// 0: none.
        pause_ms: u64,
    },
}

impl Command {
    /// How many slots of its proposal the command takes.
    pub fn slot_count(&self) -> u64 {
        match self {
            Self::Append { count, .. } => u64::from(*count),
            Self::Enqueue { runs, .. } => runs.iter().map(|run| u64::from(run.count)).sum(),
            _ => 0,
        }
    }
}
