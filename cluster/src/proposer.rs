//! Puts batches into a shard's log, in the order they came, exactly once.
//!
//! One task per shard owns the node's sequence of that shard and everything in flight:
//!
//! ```text
//!   Shard::propose --> queue --> [ 3 in flight ] --> Raft --> apply --> outcome
//!                                   ^      |
//!                                   +------+  not logged, or a gap before it: again, same number
//! ```
//!
//! A caller's deadline ends its waiting, not the batch. What may have reached the log is repeated under
//! its number until the outcome is known, since the next batches build on it; what certainly did not is
//! emptied and only its number goes on. The same task proposes a tick, an entry without commands, when a
//! timer is due and nothing else is written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flotilla_model::command::EntryHead;
use flotilla_model::format::encode_head;
use flotilla_model::ids::{NodeId, Origin};
use flotilla_storage::EntryBody;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::config::INFLIGHT_ENTRIES;
use crate::error::ClusterError;
use crate::group::Raft;
use crate::observer::Role;
use crate::pending::{Outcomes, Pending, Stage, Submission, Verdict};
use crate::replica::{Counters, Replica};
use crate::types::Batch;

/// Before a batch that was not taken is offered again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Between ticks, so that many timers share one. With the timers' own grain this stays under 100 ms.
const TICK_PAUSE: Duration = Duration::from_millis(50);
/// A shard without timers looks at its clock this often.
const TICK_SLEEP_MAX: Duration = Duration::from_secs(60);

type WriteAnswer = Result<Outcomes, NotWritten>;

/// Why an attempt has no outcome.
enum NotWritten {
    /// It is not in the log and will not be.
    Refused { leader: Option<u64> },
    /// It may be in the log.
    Unknown,
    /// Raft has stopped; `logged` if it may have taken the entry before.
    Stopped { logged: bool },
}

/// What the task shares with the handles.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Batches queued or in flight.
    pub batches: AtomicUsize,
}

pub(crate) struct Proposer {
    pub replica: Arc<Replica>,
    pub node: NodeId,
    pub incarnation: u64,
    pub queue: mpsc::Receiver<Submission>,
    pub raft: watch::Receiver<Option<Raft>>,
    pub budget: Arc<Semaphore>,
    pub budget_bytes: u64,
    pub load: Arc<Load>,
    /// The last number given.
    pub sequence: u64,
}

/// The parts that live as long as the task.
struct Flight {
    /// In the order of their numbers: front is the oldest.
    pending: VecDeque<(u64, Pending)>,
    attempts: FuturesUnordered<BoxFuture<'static, (u64, WriteAnswer)>>,
    next_ticket: u64,
    /// A batch from the queue that waits for the node's budget; those behind it wait as well.
    admitting: Option<Admitting>,
    retry_at: Option<Instant>,
    tick_in_flight: bool,
    /// When the last tick was proposed; of one that was not taken, when to try again.
    ticked_at: Instant,
}

struct Admitting {
    submission: Submission,
    permit: BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>,
}

/// The ticket of a tick, which no batch has.
const TICK: u64 = 0;

impl Proposer {
    pub async fn run(mut self) {
        let mut flight = Flight {
            pending: VecDeque::new(),
            attempts: FuturesUnordered::new(),
            next_ticket: TICK + 1,
            admitting: None,
            retry_at: None,
            tick_in_flight: false,
            ticked_at: Instant::now(),
        };
        let mut role = self.replica.role.subscribe();
        let mut next_due = self.replica.next_due.subscribe();
        loop {
            let wake_at = self.wake_at(&flight);
            let has_room = flight.pending.len() < INFLIGHT_ENTRIES && flight.admitting.is_none();
            tokio::select! {
                biased;
                Some((ticket, answer)) = flight.attempts.next() => {
                    self.settle(&mut flight, ticket, answer);
                }
                changed = role.changed() => {
                    if changed.is_err() { return; }
                    flight.retry_at = Some(Instant::now());
                }
                changed = self.raft.changed() => {
                    if changed.is_err() { return; }
                    flight.retry_at = Some(Instant::now());
                }
                changed = next_due.changed() => {
                    if changed.is_err() { return; }
                }
                permit = budget_of(&mut flight.admitting) => {
                    // The semaphore is closed only with the node.
                    let Ok(permit) = permit else { return; };
                    admit(&mut flight, permit);
                }
                () = tokio::time::sleep_until(wake_at.into()) => {}
                submission = self.queue.recv(), if has_room => {
                    let Some(submission) = submission else { return; };
                    flight.admitting = Some(self.ask_for_budget(submission));
                }
            }
            self.expire(&mut flight);
            self.offer(&mut flight).await;
            self.tick(&mut flight).await;
        }
    }

    /// When there is something to do without anyone calling.
    fn wake_at(&self, flight: &Flight) -> Instant {
        let now = Instant::now();
        let mut at = now + TICK_SLEEP_MAX;
        let deadlines = flight
            .pending
            .iter()
            .filter(|(_, pending)| pending.reply.is_some())
            .map(|(_, pending)| pending.deadline);
        let queued = flight.admitting.as_ref();
        at = deadlines
            .chain(queued.map(|admitting| admitting.submission.deadline))
            .chain(flight.retry_at)
            .fold(at, Instant::min);
        if let Some(tick_at) = self.tick_at(flight) {
            at = at.min(tick_at);
        }
        at.max(now)
    }

    fn ask_for_budget(&self, submission: Submission) -> Admitting {
        // At most the whole budget, so that a batch above it goes alone.
        let bytes = submission.budget_bytes().clamp(1, self.budget_bytes);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Admitting {
            submission,
            permit: Box::pin(self.budget.clone().acquire_many_owned(bytes)),
        }
    }

    /// Answers callers whose time is up.
    fn expire(&self, flight: &mut Flight) {
        let now = Instant::now();
        if let Some(late) = flight
            .admitting
            .take_if(|admitting| admitting.submission.deadline <= now)
        {
            self.load.batches.fetch_sub(1, Ordering::Relaxed);
            let _ = late.submission.reply.send(Err(ClusterError::Busy));
        }
        for (_, pending) in &mut flight.pending {
            if pending.reply.is_none() || pending.deadline > now {
                continue;
            }
            if pending.stage == Stage::Waiting && !pending.maybe_logged {
                pending.hollow();
                let reason = self
                    .replica
                    .trouble()
                    .unwrap_or_else(|| "no leader took the batch before the deadline".to_owned());
                pending.answer(Err(ClusterError::Unavailable { reason }));
            } else {
                pending.answer(Err(ClusterError::OutcomeUnknown {
                    reason: "no outcome before the deadline".to_owned(),
                }));
            }
        }
        self.drop_moot(flight);
    }

    fn drop_moot(&self, flight: &mut Flight) {
        let before = flight.pending.len();
        flight
            .pending
            .retain(|(_, pending)| pending.stage == Stage::Proposed || !pending.is_moot());
        let dropped = before - flight.pending.len();
        self.load.batches.fetch_sub(dropped, Ordering::Relaxed);
    }

    /// Puts waiting batches into the log, in order. Stops at the first that is not taken.
    async fn offer(&mut self, flight: &mut Flight) {
        if flight.retry_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        flight.retry_at = None;
        let Some(raft) = self.raft.borrow().clone() else {
            return;
        };
        if *self.replica.role.borrow() != Role::Leader {
            return;
        }
        let origin = Origin::Node {
            node: self.node,
            incarnation: self.incarnation,
        };
        let mut over = Vec::new();
        for (ticket, pending) in &mut flight.pending {
            if pending.stage != Stage::Waiting {
                continue;
            }
            let now = self.replica.clock.now();
            let wall = self.replica.clock.wall();
            let body = match pending.encode(origin, &mut self.sequence, now, wall) {
                Ok(body) => body,
                Err(error) => {
                    pending.answer(Err(error));
                    pending.hollow();
                    over.push(*ticket);
                    continue;
                }
            };
            pending.stage = Stage::Proposed;
            let attempt = write(&raft, *ticket, body).await;
            flight.attempts.push(attempt);
        }
        if !over.is_empty() {
            self.drop_moot(flight);
        }
    }

    fn settle(&self, flight: &mut Flight, ticket: u64, answer: WriteAnswer) {
        if ticket == TICK {
            flight.tick_in_flight = false;
            if answer.is_err() {
                flight.ticked_at = Instant::now() + RETRY_PAUSE;
            }
            return;
        }
        let Some(place) = flight.pending.iter().position(|(of, _)| *of == ticket) else {
            return;
        };
        let pending = &mut flight.pending[place].1;
        pending.stage = Stage::Waiting;
        match answer {
            Ok(outcomes) => match pending.judge(outcomes) {
                Verdict::Over(answer) => {
                    pending.answer(answer);
                    flight.pending.remove(place);
                    self.load.batches.fetch_sub(1, Ordering::Relaxed);
                    return;
                }
                Verdict::Again => {}
            },
            Err(NotWritten::Refused { leader }) => {
                let elsewhere = leader.filter(|leader| *leader != self.node.0);
                if let (Some(leader), false) = (elsewhere, pending.maybe_logged) {
                    pending.hollow();
                    pending.answer(Err(ClusterError::NotLeader {
                        hint: Some(NodeId(leader)),
                    }));
                }
                flight.retry_at = Some(Instant::now() + RETRY_PAUSE);
            }
            Err(NotWritten::Unknown) => {
                pending.maybe_logged = true;
                flight.retry_at = Some(Instant::now() + RETRY_PAUSE);
            }
            Err(NotWritten::Stopped { logged }) => {
                pending.maybe_logged |= logged;
                let reason = self
                    .replica
                    .trouble()
                    .unwrap_or_else(|| "the group was stopped".to_owned());
                pending.answer(Err(if pending.maybe_logged {
                    ClusterError::OutcomeUnknown { reason }
                } else {
                    ClusterError::Unavailable { reason }
                }));
                if !pending.maybe_logged {
                    pending.hollow();
                }
                flight.retry_at = Some(Instant::now() + RETRY_PAUSE);
            }
        }
        self.drop_moot(flight);
    }

    /// When the next tick should be proposed, if nothing else is written before.
    fn tick_at(&self, flight: &Flight) -> Option<Instant> {
        let idle = flight.pending.is_empty() && !flight.tick_in_flight;
        if !idle || *self.replica.role.borrow() != Role::Leader {
            return None;
        }
        let due = (*self.replica.next_due.borrow())?;
        let now = self.replica.clock.now();
        let wait = Duration::from_millis(due.0.saturating_sub(now.0)).min(TICK_SLEEP_MAX);
        // Rounded up, so that the clock has passed the time when the tick is stamped.
        let at = Instant::now() + wait + Duration::from_millis(u64::from(!wait.is_zero()));
        Some(at.max(flight.ticked_at + self.tick_pause(due.0)))
    }

    /// A timer that was due when the last entry was applied is work left over: no pause for that.
    fn tick_pause(&self, due_ms: u64) -> Duration {
        if due_ms <= self.replica.applied_time().0 {
            Duration::ZERO
        } else {
            TICK_PAUSE
        }
    }

    async fn tick(&self, flight: &mut Flight) {
        if self.tick_at(flight).is_none_or(|at| at > Instant::now()) {
            return;
        }
        let Some(raft) = self.raft.borrow().clone() else {
            return;
        };
        let head = EntryHead {
            now: self.replica.clock.now(),
            wall: self.replica.clock.wall(),
            proposals: Vec::new(),
        };
        let body = match EntryBody::builder().head(encode_head(&head)).build() {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(group = self.replica.group.0, %error, "a tick could not be encoded");
                return;
            }
        };
        Counters::add(&self.replica.counters.ticks, 1);
        flight.tick_in_flight = true;
        flight.ticked_at = Instant::now();
        let attempt = write(&raft, TICK, body).await;
        flight.attempts.push(attempt);
    }
}

/// The budget for the batch that waits for it; never ready without one.
async fn budget_of(
    admitting: &mut Option<Admitting>,
) -> Result<OwnedSemaphorePermit, AcquireError> {
    match admitting {
        Some(admitting) => (&mut admitting.permit).await,
        None => std::future::pending().await,
    }
}

fn admit(flight: &mut Flight, permit: OwnedSemaphorePermit) {
    if let Some(Admitting { submission, .. }) = flight.admitting.take() {
        let ticket = flight.next_ticket;
        flight.next_ticket += 1;
        flight
            .pending
            .push_back((ticket, Pending::new(submission, permit)));
    }
}

/// Hands an entry to Raft. The order of the calls is the order in the log.
async fn write(
    raft: &Raft,
    ticket: u64,
    body: EntryBody,
) -> BoxFuture<'static, (u64, WriteAnswer)> {
    let (responder, outcome) = ProgressResponder::complete_only();
    let taken = raft.write(Batch(body)).responder(responder).await;
    Box::pin(async move {
        if taken.is_err() {
            return (ticket, Err(NotWritten::Stopped { logged: false }));
        }
        let answer = match outcome.await {
            Ok(Ok(written)) => Ok(written.data.0),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(NotWritten::Refused {
                leader: forward.leader_id,
            }),
            // Anything else leaves open whether the entry is or will be committed.
            Ok(Err(_)) => Err(NotWritten::Unknown),
            Err(_) => Err(NotWritten::Stopped { logged: true }),
        };
        (ticket, answer)
    })
}
