//! What this node knows about the others, and what its own sessions carry.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flotilla_model::ids::{NodeId, ShardId};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

use super::message::Greeting;

/// A node that was not heard for this long is taken for gone.
pub(crate) const HEARD_AGE_MAX: Duration = Duration::from_secs(2);
/// From then on it is not waited for.
const SILENT_AGE_MIN: Duration = Duration::from_millis(1_200);
/// Bits of a generation below the start counter.
const RAISE_BITS: u32 = 20;
/// Reports that a slow reader may leave unread; after more it is told that it missed some.
const LOST_KEPT: usize = 64;

/// Sessions that are over: this node could not renew them with the leaders of some shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostShards {
    /// Sessions of this and older generations...
    pub generation: u64,
    /// ...that hold something on these shards must be ended.
    pub shards: Vec<ShardId>,
}

/// The first generation of a node's start.
pub(crate) fn first_generation(incarnation: u64) -> u64 {
    incarnation << RAISE_BITS
}

/// The first generation of the start that a generation belongs to.
pub(crate) fn start_of(generation: u64) -> u64 {
    generation >> RAISE_BITS << RAISE_BITS
}

/// What is known of another node.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// When it last asked or answered.
    pub at: Instant,
    /// When it last asked.
    asked_at: Instant,
    pub generation: u64,
    pub is_leaving: bool,
    /// Its wall clock's lead over this node's, in microseconds.
    pub wall_offset_us: Option<i64>,
    /// How long it asked nothing, counted only while this node was awake.
    silence: Duration,
}

/// See the module.
pub(crate) struct Board {
    pub node: NodeId,
    /// First generation of this start.
    first: u64,
    generation: AtomicU64,
    /// The present generation was given to a session.
    used: AtomicBool,
    /// This node is about to stop.
    leaving: AtomicBool,
    heard: Mutex<HashMap<NodeId, Heard>>,
    /// Nodes whose wall clocks are far from the others'.
    off: Mutex<BTreeSet<NodeId>>,
    lost: broadcast::Sender<LostShards>,
    /// The next round is wanted at once.
    pub hurry: Notify,
}

impl Board {
    pub fn new(node: NodeId, incarnation: u64) -> Arc<Self> {
        let first = first_generation(incarnation);
        Arc::new(Self {
            node,
            first,
            generation: AtomicU64::new(first),
            used: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            heard: Mutex::new(HashMap::new()),
            off: Mutex::default(),
            lost: broadcast::Sender::new(LOST_KEPT),
            hurry: Notify::new(),
        })
    }

    /// For a new session.
    pub fn session_generation(&self) -> u64 {
        // Before it is read: a raise in between makes the mark belong to the next one, which costs
        // nothing but another raise.
        self.used.store(true, Ordering::SeqCst);
        self.generation()
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    pub fn first_generation(&self) -> u64 {
        self.first
    }

    pub fn was_used(&self) -> bool {
        self.used.load(Ordering::SeqCst)
    }

    pub fn lost_shards(&self) -> broadcast::Receiver<LostShards> {
        self.lost.subscribe()
    }

    /// Ends the present generation, since these shards may give away what its sessions hold.
    pub fn raise(&self, shards: BTreeSet<ShardId>) {
        let ended = self.generation();
        let next = ended + 1;
        if start_of(next) == self.first {
            self.used.store(false, Ordering::SeqCst);
            self.generation.store(next, Ordering::SeqCst);
        } else {
            tracing::error!("the session generations of this start are used up: restart the node");
        }
        let lost = LostShards {
            generation: ended,
            shards: shards.into_iter().collect(),
        };
        tracing::warn!(generation = ended, shards = ?lost.shards, "sessions that hold something on shards whose leaders do not answer are over");
        // Nobody may be interested yet.
        let _ = self.lost.send(lost);
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    pub fn set_leaving(&self, is_leaving: bool) {
        self.leaving.store(is_leaving, Ordering::SeqCst);
        self.hurry.notify_one();
    }

    /// Another node has said who it is: by a question of its own, or by its answer to this node's.
    pub fn hear(
        &self,
        node: NodeId,
        greeting: &Greeting,
        asked: bool,
        wall_offset_us: Option<i64>,
    ) {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        let entry = heard.entry(node).or_insert(Heard {
            at: now,
            asked_at: now,
            generation: 0,
            is_leaving: false,
            wall_offset_us: None,
            silence: Duration::ZERO,
        });
        entry.at = now;
        // A late word must not take back a later one.
        entry.generation = entry.generation.max(greeting.generation);
        entry.is_leaving = greeting.is_leaving;
        entry.wall_offset_us = wall_offset_us.or(entry.wall_offset_us);
        if asked {
            entry.asked_at = now;
            entry.silence = Duration::ZERO;
        }
    }

    /// Time went by. `awake` is at most what this node can vouch for.
    pub fn pass(&self, awake: Duration, nodes: &BTreeSet<NodeId>) {
        let mut heard = self.heard.lock();
        heard.retain(|node, _| nodes.contains(node));
        for entry in heard.values_mut() {
            // It may have asked a moment ago.
            entry.silence += awake.min(entry.asked_at.elapsed());
        }
    }

    pub fn heard(&self, node: NodeId) -> Option<Heard> {
        self.heard.lock().get(&node).cloned()
    }

    /// How long a node asked nothing; `None` if it never did.
    pub fn silence(&self, node: NodeId) -> Option<Duration> {
        self.heard.lock().get(&node).map(|heard| heard.silence)
    }

    /// Whether a node answered or asked lately.
    pub fn is_up(&self, node: NodeId) -> bool {
        node == self.node
            || self
                .heard(node)
                .is_some_and(|heard| heard.at.elapsed() <= HEARD_AGE_MAX)
    }

    /// Whether a node that was there has missed a round or two: it would not answer quickly.
    pub fn is_silent(&self, node: NodeId) -> bool {
        self.heard(node)
            .is_some_and(|heard| heard.at.elapsed() > SILENT_AGE_MIN)
    }

    /// Whether a node is there, will stay, and has a clock that agrees with the others'.
    pub fn may_lead(&self, node: NodeId) -> bool {
        self.is_up(node)
            && !self.heard(node).is_some_and(|heard| heard.is_leaving)
            && !self.off.lock().contains(&node)
    }

    /// These nodes' wall clocks are far from the others'.
    pub fn set_off(&self, nodes: BTreeSet<NodeId>) {
        *self.off.lock() = nodes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_counts_starts_and_raises() {
        let board = Board::new(NodeId(1), 7);
        let mut lost = board.lost_shards();
        let first = board.session_generation();
        assert_eq!(first, 7 << 20);
        assert!(board.was_used());
        board.raise(BTreeSet::from([ShardId(2)]));
        assert_eq!(board.generation(), first + 1);
        assert!(!board.was_used());
        assert_eq!(start_of(board.generation()), first);
        let expected = LostShards {
            generation: first,
            shards: vec![ShardId(2)],
        };
        assert_eq!(lost.try_recv().unwrap(), expected);
    }
}
