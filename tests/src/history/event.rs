//! What the clients of a workload did and saw, and when.
//!
//! One test is one machine, so all moments are of one monotonic clock: a moment before another one in
//! the history was before it in the world.

use crate::checker::Name;
use crate::journal::Attempt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Nanoseconds since the recorder was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// What one answer of a receive, or one subscription, is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldId(pub u64);

/// One message that a producer tried to store. The messages of a batch have the same moments, and its
/// order is that of their numbers. A producer begins with the next one when it knows this outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub name: Name,
    pub invoked: Moment,
    pub answered: Moment,
    /// Without it the answer was an error or never came: it is stored once or not at all.
    pub acknowledged: bool,
}

impl Send {
    /// The same without moments.
    pub fn attempt(&self) -> Attempt {
        Attempt {
            producer: self.name.producer,
            number: self.name.number,
            acknowledged: self.acknowledged,
        }
    }
}

/// One entry of a topic as a subscription delivered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The subscription: what it delivers has no gap and no repeat.
    pub reader: HoldId,
    /// The sequence that it asked to begin with.
    pub from: u64,
    /// The node that the reader was connected to.
    pub node: u32,
    pub at: Moment,
    pub sequence: u64,
    pub name: Name,
    /// Whether the bytes are those that were sent.
    pub intact: bool,
    /// Whether this subscription read the whole topic when the load had ended.
    pub whole: bool,
}

/// One queue message as it was handed to a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// All messages of one answer are held together.
    pub hold: HoldId,
    pub consumer: u32,
    pub node: u32,
    pub at: Moment,
    pub sequence: u64,
    pub name: Name,
    pub intact: bool,
    /// 1 at the first delivery.
    pub receive_count: u32,
}

/// How a consumer settled all messages of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    Acknowledge,
    Reject,
}

/// The end of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    pub hold: HoldId,
    pub settlement: Settlement,
    pub invoked: Moment,
    /// When the consumer learned that it had taken effect; none: it may have or not.
    pub confirmed: Option<Moment>,
}

/// Everything about one topic.
#[derive(Clone, Debug, Default)]
pub struct TopicHistory {
    pub sends: Vec<Send>,
    pub reads: Vec<Read>,
}

/// Everything about one queue.
#[derive(Clone, Debug, Default)]
pub struct QueueHistory {
    pub sends: Vec<Send>,
    pub receipts: Vec<Receipt>,
    pub settles: Vec<Settle>,
    /// When a consumer saw that the stream of its hold had ended, without having settled it: another
    /// consumer may get its messages from some moment before that.
    pub lost: BTreeMap<HoldId, Moment>,
    /// What was left when the load had ended, in the order it came out, by a consumer of its own.
    pub drained: Vec<Receipt>,
    /// Whether it was drained at all.
    pub was_drained: bool,
    /// Deliveries after which a message goes to `dead_letter`.
    pub receive_count_max: Option<u32>,
    pub dead_letter: Option<String>,
}

/// A time in which a node was killed, frozen, cut off or otherwise kept from its work: a hold through
/// it may be lost without its consumer knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub what: String,
    pub nodes: Vec<u32>,
    pub from: Moment,
    /// When the cause was removed.
    pub until: Moment,
}

/// Everything that happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub topics: BTreeMap<String, TopicHistory>,
    pub queues: BTreeMap<String, QueueHistory>,
    pub faults: Vec<Fault>,
}

impl History {
    pub fn topic(&mut self, name: &str) -> &mut TopicHistory {
        self.topics.entry(name.to_owned()).or_default()
    }

    pub fn queue(&mut self, name: &str) -> &mut QueueHistory {
        self.queues.entry(name.to_owned()).or_default()
    }
}

/// Where all clients of a workload write their history.
#[derive(Clone)]
pub struct Recorder {
    start: Instant,
    history: Arc<Mutex<History>>,
    next_hold: Arc<std::sync::atomic::AtomicU64>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            history: Arc::default(),
            next_hold: Arc::default(),
        }
    }
}

impl Recorder {
    pub fn now(&self) -> Moment {
        // Half a century fits.
        Moment(self.start.elapsed().as_nanos() as u64)
    }

    pub fn next_hold(&self) -> HoldId {
        use std::sync::atomic::Ordering;
        HoldId(self.next_hold.fetch_add(1, Ordering::Relaxed))
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is recorded so far, out of the recorder.
    pub fn take(&self) -> History {
        std::mem::take(&mut self.history())
    }
}
