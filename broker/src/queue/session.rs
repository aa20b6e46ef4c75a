//! A consumer's session: it owns leases, and gives back what it holds when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::command::{Command, Selection, Settlement};
use flotilla_model::ids::{LeaseId, Sequence};
use flotilla_model::name::{Kind, Name};
use flotilla_model::outcome::Outcome;

use crate::api::error::BrokerError;
use crate::api::queue::{QueueDelivery, Receive, Received, Settled};
use crate::convert::unexpected;
use crate::core::{Core, check_kind};
use crate::ingress::Work;
use crate::objects;
use crate::peers::ask::Question;
use crate::peers::receive::{peek_there, receive_there};
use crate::queue::actor::Wait;
use crate::queue::local::{self, LEASE_MESSAGES_MAX};
use crate::queue::sessions::SessionState;

/// Holds leases for one consumer. When it is dropped, all it holds goes back in the background.
pub struct Session {
    core: Arc<Core>,
    state: Arc<SessionState>,
}

impl Session {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        core.metrics.session_opened();
        let generation = core.cluster.session_generation();
        Self {
            state: core.sessions.open(core.cluster.node().id, generation),
            core,
        }
    }

    /// Resolves when the session has lost all it held, because this node was out of reach of a shard
    /// for too long. Every later call fails; whoever holds messages of it should be told.
    pub async fn lost(&self) -> BrokerError {
        self.state.lost().await
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
        let core = &self.core;
        let queue = &receive.queue;
        let (shard, _) = core.shard_for(queue);
        core.sessions.touch(&self.state, shard.id())?;
        let wait = Wait {
            session: self.state.id,
            messages_max: receive.messages_max,
            bytes_max: receive.bytes_max,
            deadline: local::deadline(receive.wait),
            fill: receive.fill,
            visibility_ms: receive.visibility.map(to_ms),
        };
        let here = || local::receive_here(core, queue, &wait);
        let there = |node| receive_there(core, node, queue, &wait);
        let until = wait
            .deadline
            .max(Instant::now() + core.config.leader_wait_max);
        let mut expired = 0;
        loop {
            let answer = tokio::select! {
                answer = core.at_leader(shard, until, here, there) => answer?,
                error = self.state.lost() => return Err(error),
            };
            let (mut received, spoilt) = answer.accept();
            expired += received.expired;
            if spoilt && Instant::now() < wait.deadline {
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
        let command = Command::Settle {
            queue: queue.clone(),
            session: self.state.id,
            lease,
            which,
            how,
        };
        match self.run(queue, command).await? {
            Outcome::Settled {
                count,
                not_held,
                remaining,
            } => Ok(Settled {
                count,
                not_held,
                remaining,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Restarts the visibility timer of a lease.
    pub async fn extend(
        &self,
        queue: &Name,
        lease: LeaseId,
        visibility: Duration,
    ) -> Result<(), BrokerError> {
        self.core.check_open()?;
        let command = Command::ExtendLease {
            queue: queue.clone(),
            session: self.state.id,
            lease,
            visibility_ms: to_ms(visibility),
        };
        match self.run(queue, command).await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// What the session still holds under a lease; nothing if the lease is over.
    pub async fn held(&self, queue: &Name, lease: LeaseId) -> Result<Vec<Sequence>, BrokerError> {
        let core = &self.core;
        let (shard, _) = core.shard_for(queue);
        let session = self.state.id;
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
        for shard in self.state.take_touched() {
            let command = Command::EndSession {
                session: self.state.id,
            };
            let ended = self
                .core
                .ingress(shard)
                .run(vec![Work::control(command)])
                .await;
            if let Err(error) = ended {
                tracing::warn!(%shard, %error, "a session's end will be told in the background");
                self.state.touch(shard);
            }
        }
    }

    async fn run(&self, queue: &Name, command: Command) -> Result<Outcome, BrokerError> {
        check_kind(queue, Kind::Queue)?;
        self.state.check()?;
        let (_, ingress) = self.core.shard_for(queue);
        let reply = ingress.run(vec![Work::control(command)]).await?;
        Ok(reply.outcome(0)?.0.clone())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.core.metrics.session_closed();
        self.core.sessions.close(self.state.id);
        end_in_background(&self.core, &self.state);
    }
}

/// Has all that a session holds released.
pub(crate) fn end_in_background(core: &Arc<Core>, session: &SessionState) {
    for shard in session.take_touched() {
        let command = Command::EndSession {
            session: session.id,
        };
        core.run_in_background(shard, "end of a session", vec![command]);
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
