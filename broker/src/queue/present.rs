//! Under what a session takes leases at present, and whether it holds any.
//!
//! ```text
//!   current --lost, holds nothing--------> another one; this one is ended
//!      |  \---lost, holds something-------> its client is told
//!      |
//!      +----unheard, holds nothing-------> another one; this one is ended
//!      \----unheard, holds something----> another one; this one is retired, until nothing is held
//! ```
//!
//! Who is lost while it holds nothing has lost nothing: the session goes on under a new state, and whoever
//! waits for messages through it need not know.
//!
//! **Unheard** is a state when somebody was asked for messages under it and fell silent. A leader may have leased
//! some and died before it could say so: nobody but the state's end gives them back.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::error::BrokerError;
use crate::api::queue::Received;
use crate::queue::deliver::Answer;
use crate::queue::sessions::SessionState;

/// More states than this are not kept at a time: then one is used on, whatever is leased unheard under it.
const RETIRED_MAX: usize = 8;

/// The state of a session, which may change.
pub(crate) struct Present {
    states: Mutex<States>,
    changed: Notify,
}

struct States {
    current: Arc<SessionState>,
    /// Those that only hold what they held, oldest first.
    retired: Vec<Arc<SessionState>>,
}

impl Present {
    pub fn new(state: Arc<SessionState>) -> Self {
        Self {
            states: Mutex::new(States {
                current: state,
                retired: Vec::new(),
            }),
            changed: Notify::new(),
        }
    }

    pub fn state(&self) -> Arc<SessionState> {
        Arc::clone(&self.states.lock().current)
    }

    /// Those that hold something beside the current one: mostly none.
    pub fn retired(&self) -> Vec<Arc<SessionState>> {
        self.states.lock().retired.clone()
    }

    /// Resolves with a state that is lost.
    pub async fn lost(&self) -> Arc<SessionState> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let current = self.state();
            let retired = self.retired().into_iter().map(|state| {
                Box::pin(async move {
                    state.lost().await;
                    state
                })
            });
            let mut retired: FuturesUnordered<_> = retired.collect();
            tokio::select! {
                _ = current.lost() => return current,
                Some(state) = retired.next() => return state,
                () = changed => {}
            }
        }
    }

    /// Whether this is the state under which leases are taken.
    pub fn is_current(&self, state: &Arc<SessionState>) -> bool {
        is(&self.states.lock().current, state)
    }

    /// Resolves when leases are taken under another state than this one.
    pub async fn replaced(&self, state: &Arc<SessionState>) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if !self.is_current(state) {
                return;
            }
            changed.await;
        }
    }

    /// Takes over what was leased under a state, or gives it back as it came if that is over by now: its
    /// leases are everybody's.
    pub fn accept(
        &self,
        under: &Arc<SessionState>,
        answer: Answer,
    ) -> Result<(Received, bool), Answer> {
        let current = &self.states.lock().current;
        let is_over = match answer.received.messages.is_empty() {
            // That there is nothing is as true under another state.
            true => under.check().is_err(),
            false => !is(current, under) || under.hold().is_err(),
        };
        match is_over {
            true => Err(answer),
            false => Ok(answer.accept()),
        }
    }

    /// A lease that was handed out under a state is over. Returned is the state, if it is of no use any more
    /// and to be ended.
    pub fn ended(&self, under: &Arc<SessionState>) -> Option<Arc<SessionState>> {
        let mut states = self.states.lock();
        under.let_go();
        let place = states.retired.iter().position(|one| is(one, under))?;
        (!under.holds()).then(|| states.retired.remove(place))
    }

    /// After the loss of a state: begins another one, unless something was held under it, which is told.
    /// The lost one is returned to the first who comes with it.
    pub fn renew(
        &self,
        lost: &Arc<SessionState>,
        open: impl FnOnce() -> Arc<SessionState>,
    ) -> Result<Option<Arc<SessionState>>, BrokerError> {
        let mut states = self.states.lock();
        if states.retired.iter().any(|one| is(one, lost)) {
            return lost.check().map(|()| None);
        }
        if !is(&states.current, lost) {
            return Ok(None);
        }
        if lost.holds() {
            return lost.check().map(|()| None);
        }
        let over = std::mem::replace(&mut states.current, open());
        self.changed.notify_waiters();
        Ok(Some(over))
    }

    /// After somebody fell silent who was asked for messages under a state: takes no more leases under it.
    /// Returned is the state, if it holds nothing and is to be ended.
    pub fn unheard(
        &self,
        under: &Arc<SessionState>,
        open: impl FnOnce() -> Arc<SessionState>,
    ) -> Option<Arc<SessionState>> {
        let mut states = self.states.lock();
        if states.retired.iter().any(|one| is(one, under)) {
            return None;
        }
        if !is(&states.current, under) {
            // Ended already, and perhaps leased under again since.
            return Some(Arc::clone(under));
        }
        let holds_something = under.holds();
        if holds_something && states.retired.len() >= RETIRED_MAX {
            return None;
        }
        let over = std::mem::replace(&mut states.current, open());
        self.changed.notify_waiters();
        if holds_something {
            states.retired.push(over);
            return None;
        }
        Some(over)
    }
}

fn is(one: &Arc<SessionState>, other: &Arc<SessionState>) -> bool {
    Arc::ptr_eq(one, other)
}

#[cfg(test)]
mod tests {
    use flotilla_model::ids::{LeaseId, NodeId, Sequence, ShardId, WallTime};
    use flotilla_model::message::Message;

    use super::*;
    use crate::api::queue::QueueDelivery;
    use crate::queue::sessions::Sessions;

    const NODE: NodeId = NodeId(1);
    const SHARD: ShardId = ShardId(2);

    fn answer() -> Answer {
        let delivery = QueueDelivery {
            lease: LeaseId(1),
            sequence: Sequence(1),
            published: WallTime(0),
            receive_count: 1,
            expires: None,
            policy: flotilla_model::command::QueuePolicy::default(),
            moved_from: None,
            message: Message::default(),
        };
        let mut answer = Answer::empty(0);
        answer.received.messages.push(delivery);
        answer
    }

    #[test]
    fn a_session_goes_on_after_a_loss_once_its_leases_are_over_and_tells_it_before() {
        let sessions = Sessions::default();
        let first = sessions.open(NODE, 1);
        let present = Present::new(Arc::clone(&first));
        assert_eq!(sessions.touch(&first, SHARD), Ok(()));
        assert!(present.accept(&first, answer()).is_ok());
        sessions.lose(1, &[SHARD]);
        let second = || sessions.open(NODE, 2);
        assert!(present.renew(&first, second).is_err(), "it holds something");
        present.ended(&first);
        let over = present.renew(&first, second).ok().flatten();
        assert!(over.is_some_and(|over| over.id == first.id));
        assert_ne!(present.state().id, first.id);
        // Who comes later finds it done, and what comes under the old state is not the session's.
        assert!(
            present
                .renew(&first, second)
                .is_ok_and(|over| over.is_none())
        );
        assert!(present.accept(&first, answer()).is_err());
        assert!(present.accept(&present.state(), answer()).is_ok());
        present.ended(&first);
        assert!(present.state().holds(), "another lease than that one");
    }

    #[test]
    fn what_comes_after_the_loss_is_not_taken_over() {
        let sessions = Sessions::default();
        let state = sessions.open(NODE, 1);
        let present = Present::new(Arc::clone(&state));
        assert_eq!(sessions.touch(&state, SHARD), Ok(()));
        sessions.lose(1, &[SHARD]);
        assert!(present.accept(&state, answer()).is_err());
        assert!(!state.holds());
    }

    #[test]
    fn a_state_that_was_unheard_takes_no_more_and_is_ended_once_it_holds_nothing() {
        let sessions = Sessions::default();
        let open = || sessions.open(NODE, 1);
        let present = Present::new(open());
        let first = present.state();
        assert!(present.accept(&first, answer()).is_ok());
        assert!(
            present.unheard(&first, open).is_none(),
            "it holds something"
        );
        let second = present.state();
        assert_ne!(second.id, first.id);
        assert!(first.holds() && !second.holds());
        assert!(present.accept(&first, answer()).is_err());
        assert!(present.unheard(&first, open).is_none(), "nothing new");
        assert_eq!(present.state().id, second.id);
        let over = present.ended(&first);
        assert!(over.is_some_and(|over| over.id == first.id));
        assert!(present.retired().is_empty());
        // Nothing is held: it is over at once, and again for each who was asked under it.
        for _ in 0..2 {
            let over = present.unheard(&second, open);
            assert!(over.is_some_and(|over| over.id == second.id));
        }
        assert_ne!(present.state().id, second.id);
    }

    #[tokio::test]
    async fn whoever_waits_under_a_state_hears_when_another_one_takes_its_place() {
        let sessions = Sessions::default();
        let open = || sessions.open(NODE, 1);
        let present = Present::new(open());
        let first = present.state();
        let mut replaced = Box::pin(present.replaced(&first));
        assert!(futures::poll!(replaced.as_mut()).is_pending());
        assert!(present.unheard(&first, open).is_some());
        assert!(futures::poll!(replaced.as_mut()).is_ready());
        assert!(present.accept(&first, answer()).is_err());
        assert!(
            present.accept(&first, Answer::empty(0)).is_ok(),
            "that there is nothing is no lease"
        );
    }

    #[test]
    fn no_more_states_are_kept_than_there_is_room_for() {
        let sessions = Sessions::default();
        let open = || sessions.open(NODE, 1);
        let present = Present::new(open());
        for _ in 0..2 * RETIRED_MAX {
            let state = present.state();
            assert!(present.accept(&state, answer()).is_ok());
            assert!(present.unheard(&state, open).is_none());
        }
        assert_eq!(present.retired().len(), RETIRED_MAX);
    }

    #[tokio::test]
    async fn the_loss_of_a_retired_state_is_told_as_the_current_ones_is() {
        let sessions = Sessions::default();
        let open = || sessions.open(NODE, 1);
        let present = Present::new(open());
        let first = present.state();
        assert_eq!(sessions.touch(&first, SHARD), Ok(()));
        assert!(present.accept(&first, answer()).is_ok());
        let mut lost = Box::pin(present.lost());
        assert!(futures::poll!(lost.as_mut()).is_pending());
        assert!(present.unheard(&first, open).is_none());
        assert!(futures::poll!(lost.as_mut()).is_pending());
        sessions.lose(1, &[SHARD]);
        assert_eq!(lost.await.id, first.id);
        assert!(present.renew(&first, open).is_err(), "it holds something");
        assert!(present.state().check().is_ok());
    }
}
