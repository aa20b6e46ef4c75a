//! Whom a receive asked, and whether it was heard what became of that.
//!
//! A leader that dies may have leased messages and not have said so. Nobody knows that lease, so that only the
//! end of the state that it was made under gives its messages back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use flotilla_model::ids::ShardId;

use crate::queue::session::Session;
use crate::queue::sessions::SessionState;

/// The attempts of one receive under one state. When it is dropped, the session hears of those that were not
/// answered.
pub(crate) struct Attempts<'a> {
    session: &'a Session,
    state: &'a Arc<SessionState>,
    shard: ShardId,
    begun: AtomicU32,
    gave_up: AtomicBool,
}

impl<'a> Attempts<'a> {
    pub fn new(session: &'a Session, state: &'a Arc<SessionState>, shard: ShardId) -> Self {
        Self {
            session,
            state,
            shard,
            begun: AtomicU32::new(0),
            gave_up: AtomicBool::new(false),
        }
    }

    pub fn state(&self) -> &'a Arc<SessionState> {
        self.state
    }

    /// Somebody is asked: who was asked before fell silent.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Nobody is asked any more.
    pub fn end(&self, is_answered: bool) {
        self.gave_up.store(!is_answered, Ordering::Relaxed);
    }
}

impl Drop for Attempts<'_> {
    /// A lone attempt that is given up half way needs nothing: its leader lives, and gives back by itself what
    /// its receiver does not take.
    fn drop(&mut self) {
        let (begun, gave_up) = (*self.begun.get_mut(), *self.gave_up.get_mut());
        if begun > 1 || (begun == 1 && gave_up) {
            self.session.unheard(self.state, self.shard);
        }
    }
}
