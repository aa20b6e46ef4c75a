//! The open sessions of this node, and how they are told that they have lost what they held.
//!
//! A shard's leader releases what the sessions of a node hold once it has not heard of the node for a
//! while. A node that finds out that it may have been given up by a shard begins a new generation of
//! sessions; those of older generations that may hold something there are over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flotilla_model::ids::{NodeId, SessionId, ShardId};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::api::error::BrokerError;

/// What is known of a session beside its handle.
pub(crate) struct SessionState {
    pub id: SessionId,
    /// Shards that may hold something for it.
    touched: Mutex<BTreeSet<ShardId>>,
    /// Leases that were handed out and are not known to be over. Of those that ended by themselves nothing
    /// is heard, so that there may be fewer, and never more.
    leases: AtomicU64,
    lost: watch::Sender<Option<ShardId>>,
}

impl SessionState {
    /// Notes that a shard is still to be told of its end.
    pub fn touch(&self, shard: ShardId) {
        self.touched.lock().insert(shard);
    }

    /// The shards to be told of its end.
    pub fn touched(&self) -> BTreeSet<ShardId> {
        self.touched.lock().clone()
    }

    /// A shard knows of its end.
    pub fn is_told(&self, shard: ShardId) {
        self.touched.lock().remove(&shard);
    }

    /// The shards to be told of its end; none twice.
    pub fn take_touched(&self) -> BTreeSet<ShardId> {
        std::mem::take(&mut *self.touched.lock())
    }

    /// Takes over a lease, unless the session is over.
    pub fn hold(&self) -> Result<(), BrokerError> {
        self.check()?;
        // Counted before the look, and looked at after the loss: one of the two sees the other.
        self.leases.fetch_add(1, Ordering::SeqCst);
        self.check().inspect_err(|_| self.let_go())
    }

    /// A lease that was taken over is over.
    pub fn let_go(&self) {
        let less = |leases: u64| Some(leases.saturating_sub(1));
        // Never fails: there is always a next value.
        let _ = self
            .leases
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }

    /// Whether anybody may hold something under it. If not, nobody got anything of what is still leased.
    pub fn holds(&self) -> bool {
        self.leases.load(Ordering::SeqCst) > 0
    }

    /// Fails once the session is over by no wish of its own.
    pub fn check(&self) -> Result<(), BrokerError> {
        match *self.lost.borrow() {
            Some(shard) => Err(lost(shard)),
            None => Ok(()),
        }
    }

    /// Resolves once the session is over by no wish of its own.
    pub async fn lost(&self) -> BrokerError {
        let mut watched = self.lost.subscribe();
        match watched.wait_for(Option::is_some).await.map(|found| *found) {
            Ok(Some(shard)) => lost(shard),
            // The sender is in `self`, and `wait_for` answers with what was waited for.
            _ => std::future::pending().await,
        }
    }
}

fn lost(shard: ShardId) -> BrokerError {
    BrokerError::Unavailable {
        reason: format!("the session was lost: shard {shard} was out of reach for too long"),
    }
}

/// All open sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<BTreeMap<SessionId, Arc<SessionState>>>,
    /// Up to which generation a shard may have given up the sessions of this node.
    given_up: Mutex<BTreeMap<ShardId, u64>>,
    last: AtomicU64,
}

impl Sessions {
    /// Opens a session that no other of this node's life has the id of.
    pub fn open(&self, node: NodeId, generation: u64) -> Arc<SessionState> {
        let id = SessionId {
            node,
            incarnation: generation,
            number: self.last.fetch_add(1, Ordering::Relaxed) + 1,
        };
        let state = Arc::new(SessionState {
            id,
            touched: Mutex::default(),
            leases: AtomicU64::new(0),
            lost: watch::Sender::new(None),
        });
        self.open.lock().insert(id, Arc::clone(&state));
        state
    }

    pub fn close(&self, id: SessionId) {
        self.open.lock().remove(&id);
    }

    /// Notes that a shard may hold something for a session from now on. Fails if the session is over.
    pub fn touch(&self, session: &SessionState, shard: ShardId) -> Result<(), BrokerError> {
        session.touch(shard);
        // Looked at after the touch: a loss that is told now finds it touched.
        let given_up = self.given_up.lock().get(&shard).copied();
        if given_up.is_some_and(|generation| session.id.incarnation <= generation) {
            session.lost.send_replace(Some(shard));
        }
        session.check()
    }

    /// These shards may have given up the sessions of a generation and of all before it. Those that
    /// touched one of them are over; they are returned, to be ended wherever they hold something.
    pub fn lose(&self, generation: u64, shards: &[ShardId]) -> Vec<Arc<SessionState>> {
        {
            let mut given_up = self.given_up.lock();
            for shard in shards {
                let last = given_up.entry(*shard).or_default();
                *last = generation.max(*last);
            }
        }
        let mut over = Vec::new();
        for state in self.open.lock().values() {
            if state.id.incarnation > generation || state.check().is_err() {
                continue;
            }
            let touched = state.touched.lock();
            if let Some(shard) = shards.iter().find(|shard| touched.contains(shard)) {
                state.lost.send_replace(Some(*shard));
                over.push(Arc::clone(state));
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_older_sessions_that_touched_a_lost_shard_are_over() {
        let sessions = Sessions::default();
        let node = NodeId(1);
        let (held, idle) = (sessions.open(node, 7), sessions.open(node, 7));
        let newer = sessions.open(node, 8);
        for (session, shard) in [(&held, 2), (&idle, 3), (&newer, 2)] {
            assert_eq!(sessions.touch(session, ShardId(shard)), Ok(()));
        }
        let over = sessions.lose(7, &[ShardId(1), ShardId(2)]);
        assert_eq!(over.iter().map(|one| one.id).collect::<Vec<_>>(), [held.id]);
        assert!(held.check().is_err());
        assert!(matches!(held.lost().await, BrokerError::Unavailable { .. }));
        assert_eq!((idle.check(), newer.check()), (Ok(()), Ok(())));
        assert_ne!(held.id, idle.id);
        assert!(sessions.touch(&idle, ShardId(1)).is_err(), "too late");
        assert_eq!(sessions.touch(&newer, ShardId(1)), Ok(()));
    }
}
