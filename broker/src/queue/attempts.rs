//! Whom a receive asked, and whether it was heard what became of that.
//!
//! A leader that dies may have leased messages and not have said so. Nobody knows that lease, so that only the
//! end of the state that it was made under gives its messages back. A leader that lives gives back by itself
//! what its receiver does not take.
//!
//! So a receive that goes on after such a silence does so under another state: under the same one it would wait,
//! perhaps for hours, for messages that are leased to itself.

use std::sync::Arc;

use flotilla_cluster::Shard;
use flotilla_model::ids::NodeId;
use parking_lot::Mutex;

use crate::api::error::BrokerError;
use crate::fault::Fault;
use crate::leader::Seat;
use crate::queue::session::Session;
use crate::queue::sessions::SessionState;

/// The attempts of one receive under one state. When it is dropped, the session hears of those that were not
/// answered.
pub(crate) struct Attempts<'a> {
    session: &'a Session,
    state: &'a Arc<SessionState>,
    shard: &'a Shard,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    /// Another node, which has not answered yet.
    asked: Option<NodeId>,
    /// Somebody fell silent.
    unheard: bool,
}

impl<'a> Attempts<'a> {
    pub fn new(session: &'a Session, state: &'a Arc<SessionState>, shard: &'a Shard) -> Self {
        Self {
            session,
            state,
            shard,
            told: Mutex::default(),
        }
    }

    pub fn state(&self) -> &'a Arc<SessionState> {
        self.state
    }

    /// Another node is asked. One that was asked before and did not answer is not listened to any more.
    pub fn asks(&self, node: NodeId) {
        let mut told = self.told.lock();
        told.unheard |= told.asked.replace(node).is_some();
    }

    /// The node that was asked has said what came of it.
    pub fn heard(&self) {
        self.told.lock().asked = None;
    }

    /// Whether something may have been leased that nobody will tell of. Whoever goes on under the same state
    /// would wait for messages that only the end of that state gives back.
    pub fn is_unheard(&self) -> bool {
        let mut told = self.told.lock();
        told.unheard |= told.asked.take().is_some();
        told.unheard
    }

    /// An attempt is over, whoever was asked.
    pub fn over<T>(&self, answer: &Result<T, Fault>) {
        let is_unknown = matches!(answer, Err(Fault::Failed(BrokerError::OutcomeUnknown)));
        let mut told = self.told.lock();
        told.unheard |= told.asked.take().is_some() || is_unknown;
    }
}

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        let told = self.told.get_mut();
        // Given up half way: somebody else may lead by now, or nobody. A state that is not the session's any more
        // may have been ended before this one was asked.
        let is_gone = |node| {
            self.session.seat(self.shard) != Seat::At(node) || !self.session.is_under(self.state)
        };
        if told.unheard || told.asked.is_some_and(is_gone) {
            self.session.unheard(self.state, self.shard.id());
        }
    }
}
