//! A consumer's session: it owns leases, and gives back what it holds when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_cluster::Shard;
use flotilla_model::command::{Command, Selection, Settlement};
use flotilla_model::ids::{LeaseId, Sequence, SessionId, ShardId};
use flotilla_model::name::{Kind, Name};
use flotilla_model::outcome::Outcome;

use crate::api::error::BrokerError;
use crate::api::queue::{QueueDelivery, Receive, Received, Settled};
use crate::convert::unexpected;
use crate::core::{Core, check_kind};
use crate::ingress::Work;
use crate::leader::{PAUSE, Seat, no_leader};
use crate::objects;
use crate::peers::ask::Question;
use crate::peers::receive::{peek_there, receive_there};
use crate::queue::actor::Wait;
use crate::queue::attempts::Attempts;
use crate::queue::deliver::Answer;
use crate::queue::local::{self, LEASE_MESSAGES_MAX};
use crate::queue::present::Present;
use crate::queue::sessions::SessionState;

/// Holds leases for one consumer. When it is dropped, all it holds goes back in the background.
pub struct Session {
    core: Arc<Core>,
    present: Present,
}

impl Session {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        core.metrics.session_opened();
        Self {
            present: Present::new(open(&core)),
            core,
        }
    }

    /// Resolves when the session has lost what it held, because this node was out of reach of a shard
    /// for too long. Every later call fails; whoever holds messages of it should be told.
    pub async fn lost(&self) -> BrokerError {
        loop {
            let state = self.present.lost().await;
            if let Err(error) = self.go_on(&state) {
                return error;
            }
        }
    }

    /// After the loss of a state: goes on under another one, or fails if something was held.
    fn go_on(&self, lost: &Arc<SessionState>) -> Result<(), BrokerError> {
        let over = self.present.renew(lost, || open(&self.core))?;
        self.is_over(over);
        Ok(())
    }

    /// Ends a state under which nothing is held, if there is one to be ended.
    fn is_over(&self, state: Option<Arc<SessionState>>) {
        if let Some(over) = state {
            self.core.sessions.close(over.id);
            end_in_background(&self.core, &over);
        }
    }

    /// Who leads a shard, as far as is known.
    pub(crate) fn seat(&self, shard: &Shard) -> Seat {
        self.core.seat(shard)
    }

    /// Whether leases are taken under a state.
    pub(crate) fn is_under(&self, state: &Arc<SessionState>) -> bool {
        self.present.is_current(state)
    }

    /// Somebody was asked for messages under a state, and fell silent.
    pub(crate) fn unheard(&self, state: &Arc<SessionState>, shard: ShardId) {
        let over = self.present.unheard(state, || open(&self.core));
        if let Some(over) = &over {
            // Perhaps once more.
            over.touch(shard);
        }
        self.is_over(over);
    }

    /// Under what something is held, perhaps: the current state first.
    fn states(&self) -> impl Iterator<Item = Arc<SessionState>> {
        let current = std::iter::once_with(|| self.present.state());
        let retired = std::iter::once_with(|| self.present.retired());
        current.chain(retired.flatten())
    }

    /// Receives messages, which the session then holds under one lease.
    ///
    /// May be dropped at any time: messages that were on their way go back to their place.
    pub async fn receive(&self, receive: Receive) -> Result<Received, BrokerError> {
        self.core.check_open()?;
        check_kind(&receive.queue, Kind::Queue)?;
        if !(1..=LEASE_MESSAGES_MAX).contains(&receive.messages_max) {
            return Err(BrokerError::InvalidRequest {
                what: format!(
                    "messages_max is {}, 1 to {LEASE_MESSAGES_MAX} are allowed",
                    receive.messages_max
                ),
            });
        }
        let deadline = local::deadline(receive.wait);
        let Some(within) = receive.answer_within else {
            return self.receive_until(&receive, deadline, None).await;
        };
        let limit = local::deadline(within);
        let asked = self.receive_until(&receive, deadline, Some(limit));
        if let Ok(answer) = tokio::time::timeout_at(limit.into(), asked).await {
            return answer;
        }
        match self.core.shard_for(&receive.queue) {
            (shard, _) if self.core.seat(shard) == Seat::Vacant => Err(no_leader(shard)),
            _ => Ok(Answer::empty(0).received),
        }
    }

    /// Receives once somebody leads the queue's shard. What comes after the limit was leased for nobody.
    async fn receive_until(
        &self,
        receive: &Receive,
        deadline: Instant,
        limit: Option<Instant>,
    ) -> Result<Received, BrokerError> {
        let core = &self.core;
        let queue = &receive.queue;
        let (shard, _) = core.shard_for(queue);
        let until = deadline.max(Instant::now() + core.config.leader_wait_max);
        let mut expired = 0;
        loop {
            let state = self.present.state();
            let attempts = Attempts::new(self, &state, shard);
            let answer = self.ask(&attempts, receive, deadline, until).await?;
            let answer = answer.and_then(|answer| {
                expired += answer.received.expired;
                if limit.is_some_and(|limit| Instant::now() > limit) {
                    return Some((Answer::empty(0).received, false));
                }
                self.present.accept(&state, answer).ok()
            });
            drop(attempts);
            let Some((mut received, spoilt)) = answer else {
                // Nothing came under this state, and nothing will.
                self.go_on(&state)?;
                if state.check().is_err() {
                    if Instant::now() >= until {
                        return Err(no_leader(shard));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            };
            if spoilt && Instant::now() < deadline {
                continue;
            }
            received.expired = expired;
            let messages = received.messages.len() as u64;
            let bytes = received.messages.iter().map(body_bytes).sum();
            let metrics = &core.metrics;
            metrics.delivered(Kind::Queue, queue, messages, bytes);
            return Ok(received);
        }
    }

    /// Asks whoever leads the queue's shard for messages. `None`: the state is lost, or somebody fell silent
    /// who was asked under it, here or by another receive: the next is to be asked under another one.
    async fn ask(
        &self,
        attempts: &Attempts<'_>,
        receive: &Receive,
        deadline: Instant,
        until: Instant,
    ) -> Result<Option<Answer>, BrokerError> {
        let core = &self.core;
        let state = attempts.state();
        let queue = &receive.queue;
        let (shard, _) = core.shard_for(queue);
        if core.sessions.touch(state, shard.id()).is_err() {
            return Ok(None);
        }
        let wait = Wait {
            session: state.id,
            messages_max: receive.messages_max,
            bytes_max: receive.bytes_max,
            deadline,
            fill: receive.fill,
            visibility_ms: receive.visibility.map(to_ms),
        };
        let (queue, wait) = (queue, &wait);
        let here = || async move {
            if attempts.is_unheard() {
                return Ok(None);
            }
            let answer = local::receive_here(core, queue, wait).await;
            attempts.over(&answer);
            answer.map(Some)
        };
        let there = |node| async move {
            if attempts.is_unheard() {
                return Ok(None);
            }
            let answer = receive_there(core, node, queue, wait, attempts).await;
            attempts.over(&answer);
            answer.map(Some)
        };
        tokio::select! {
            answer = core.at_leader(shard, until, here, there) => answer,
            _ = state.lost() => Ok(None),
            () = self.present.replaced(state) => Ok(None),
        }
    }

    /// Ends the hold on messages of a lease.
    pub async fn settle(
        &self,
        queue: &Name,
        lease: LeaseId,
        which: Selection,
        how: Settlement,
    ) -> Result<Settled, BrokerError> {
        self.core.check_open()?;
        if let Settlement::Move { to } = &how {
            self.core.admit(to).await?;
        }
        for state in self.states() {
            let command = Command::Settle {
                queue: queue.clone(),
                session: state.id,
                lease,
                which: which.clone(),
                how: how.clone(),
            };
            match self.run(&state, queue, command).await? {
                Outcome::Settled {
                    count,
                    not_held,
                    remaining,
                } => {
                    // Only whoever settles the last of it ends a lease.
                    if count > 0 && remaining == 0 {
                        self.is_over(self.present.ended(&state));
                    }
                    return Ok(Settled {
                        count,
                        not_held,
                        remaining,
                    });
                }
                other => not_held(&other)?,
            }
        }
        Err(BrokerError::StaleLease)
    }

    /// Restarts the visibility timer of a lease.
    pub async fn extend(
        &self,
        queue: &Name,
        lease: LeaseId,
        visibility: Duration,
    ) -> Result<(), BrokerError> {
        self.core.check_open()?;
        for state in self.states() {
            let command = Command::ExtendLease {
                queue: queue.clone(),
                session: state.id,
                lease,
                visibility_ms: to_ms(visibility),
            };
            match self.run(&state, queue, command).await? {
                Outcome::Done => return Ok(()),
                other => not_held(&other)?,
            }
        }
        Err(BrokerError::StaleLease)
    }

    /// What the session still holds under a lease; nothing if the lease is over.
    pub async fn held(&self, queue: &Name, lease: LeaseId) -> Result<Vec<Sequence>, BrokerError> {
        for state in self.states() {
            let held = self.held_under(state.id, queue, lease).await?;
            if !held.is_empty() {
                return Ok(held);
            }
        }
        Ok(Vec::new())
    }

    async fn held_under(
        &self,
        session: SessionId,
        queue: &Name,
        lease: LeaseId,
    ) -> Result<Vec<Sequence>, BrokerError> {
        let core = &self.core;
        let (shard, _) = core.shard_for(queue);
        let here = || objects::held(core, queue, lease, session);
        let question = Question::Held {
            queue: queue.clone(),
            lease,
            session,
        };
        let there = |node| core.ask(node, &question);
        core.at_leader(shard, core.leader_patience(), here, there)
            .await
    }

    /// Gives back all that is held, and returns when that is done.
    pub async fn end(self) {
        for state in self.states() {
            for shard in state.touched() {
                let command = end_of(&self.core, shard, &state);
                let ingress = self.core.ingress(shard);
                match ingress.run(vec![Work::control(command)]).await {
                    Ok(_) => state.is_told(shard),
                    // By whoever drops the session, as if this were dropped half way.
                    Err(error) => {
                        tracing::warn!(%shard, %error, "a session's end will be told in the background");
                    }
                }
            }
        }
    }

    async fn run(
        &self,
        state: &SessionState,
        queue: &Name,
        command: Command,
    ) -> Result<Outcome, BrokerError> {
        check_kind(queue, Kind::Queue)?;
        state.check()?;
        let (_, ingress) = self.core.shard_for(queue);
        let reply = ingress.run(vec![Work::control(command)]).await?;
        Ok(reply.outcome(0)?.0.clone())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.core.metrics.session_closed();
        for state in self.states() {
            self.core.sessions.close(state.id);
            end_in_background(&self.core, &state);
        }
    }
}

/// Whether a lease is only not held under the state that was tried.
fn not_held(outcome: &Outcome) -> Result<(), BrokerError> {
    match unexpected(outcome) {
        BrokerError::StaleLease => Ok(()),
        error => Err(error),
    }
}

fn open(core: &Core) -> Arc<SessionState> {
    let generation = core.cluster.session_generation();
    core.sessions.open(core.cluster.node().id, generation)
}

/// Has all given back that is leased under a state of a session.
pub(crate) fn end_in_background(core: &Arc<Core>, state: &SessionState) {
    for shard in state.take_touched() {
        let command = end_of(core, shard, state);
        core.run_in_background(shard, "end of a session", vec![command]);
    }
}

/// Gives back what is leased in a shard under a state. Where nobody got anything of it, it does not count as
/// delivered, unless the shard cannot do so yet.
fn end_of(core: &Core, shard: ShardId, state: &SessionState) -> Command {
    let level = core.cluster.shard(shard).map(Shard::feature_level);
    end_at(level, state)
}

fn end_at(level: Option<u16>, state: &SessionState) -> Command {
    let session = state.id;
    let withdrawal = Command::WithdrawSession { session };
    match level {
        Some(level) if !state.holds() && level >= withdrawal.feature_level() => withdrawal,
        _ => Command::EndSession { session },
    }
}

/// Shows available messages without taking them; waits only while there are none.
pub(crate) async fn peek(
    core: &Arc<Core>,
    queue: &Name,
    messages_max: u32,
    bytes_max: u64,
    wait: Duration,
) -> Result<Vec<QueueDelivery>, BrokerError> {
    core.check_open()?;
    check_kind(queue, Kind::Queue)?;
    let until = local::deadline(wait);
    let here = || local::peek_here(core, queue, messages_max, bytes_max, until);
    let there = |node| {
        let left = until.saturating_duration_since(Instant::now());
        peek_there(core, node, queue, messages_max, bytes_max, left)
    };
    let (shard, _) = core.shard_for(queue);
    let patience = until.max(Instant::now() + core.config.leader_wait_max);
    core.at_leader(shard, patience, here, there).await
}

fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn body_bytes(delivery: &QueueDelivery) -> u64 {
    delivery.message.body.len() as u64
}

#[cfg(test)]
mod tests {
    use flotilla_model::ids::NodeId;

    use super::*;
    use crate::queue::sessions::Sessions;

    #[test]
    fn only_what_nobody_holds_is_withdrawn() {
        let state = Sessions::default().open(NodeId(1), 1);
        let session = state.id;
        let (end, withdrawal) = (
            Command::EndSession { session },
            Command::WithdrawSession { session },
        );
        let level = withdrawal.feature_level();
        assert_eq!(end_at(Some(level), &state), withdrawal);
        assert_eq!(end_at(Some(level - 1), &state), end);
        assert_eq!(end_at(None, &state), end);
        state.hold().unwrap();
        assert_eq!(end_at(Some(level), &state), end);
        state.let_go();
        assert_eq!(end_at(Some(level), &state), withdrawal);
    }
}
