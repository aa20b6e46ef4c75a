//! Puts batches into a shard's log, in the order they came, exactly once, whichever node leads it.
//!
//! One task per shard owns the node's sequence of that shard and everything in flight:
//!
//! ```text
//!   Shard::propose --> queue --> [ 3 in flight ] --> Raft here, or the leader's node --> apply --> outcome
//!                                   ^      |
//!                                   +------+  not logged, a gap before it, another leader: again, same number
//! ```
//!
//! A caller's deadline ends its waiting, not the batch. What may have reached the log is repeated under
//! its number until the outcome is known, since the next batches build on it; what certainly did not is
//! emptied and only its number goes on. On the leader the same task proposes a tick, an entry without
//! commands, when a timer is due and nothing else is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flotilla_model::command::EntryHead;
use flotilla_model::format::encode_head;
use flotilla_model::ids::{NodeId, Origin};
use flotilla_storage::EntryBody;
use futures::stream::StreamExt;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::attempt::{Answer, NotWritten};
use crate::config::INFLIGHT_ENTRIES;
use crate::error::ClusterError;
use crate::flight::{Admitting, Flight, TICK, Way, budget_of};
use crate::forward::ForwardLink;
use crate::leadership::Lead;
use crate::net::Peers;
use crate::pending::{Pending, Stage, Submission, Verdict};
use crate::replica::{Counters, Replica};

/// Before a batch that was not taken is offered again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// The same when the leader itself cannot write.
const RETRY_PAUSE_LONG: Duration = Duration::from_millis(100);
/// Between ticks, so that many timers share one. With the timers' own grain this stays under 100 ms.
const TICK_PAUSE: Duration = Duration::from_millis(50);
/// A shard without timers looks at its clock this often.
const TICK_SLEEP_MAX: Duration = Duration::from_secs(60);

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
    /// Set while this node leads.
    pub lead: watch::Receiver<Option<Lead>>,
    /// The way to another leader.
    pub peers: Peers,
    pub budget: Arc<Semaphore>,
    pub budget_bytes: u64,
    pub load: Arc<Load>,
    /// The last number given.
    pub sequence: u64,
}

impl Proposer {
    pub async fn run(mut self) {
        let mut flight = Flight::new();
        let mut leader = self.replica.leader.subscribe();
        let mut next_due = self.replica.next_due.subscribe();
        loop {
            let wake_at = self.wake_at(&flight);
            let has_room = flight.pending.len() < INFLIGHT_ENTRIES && flight.admitting.is_none();
            tokio::select! {
                biased;
                Some((ticket, answer)) = flight.attempts.next() => {
                    self.settle(&mut flight, ticket, answer);
                }
                changed = leader.changed() => {
                    if changed.is_err() { return; }
                }
                changed = self.lead.changed() => {
                    if changed.is_err() { return; }
                }
                changed = next_due.changed() => {
                    if changed.is_err() { return; }
                }
                permit = budget_of(&mut flight.admitting) => {
                    // The semaphore is closed only with the node.
                    let Ok(permit) = permit else { return; };
                    flight.admit(permit);
                }
                () = tokio::time::sleep_until(wake_at.into()) => {}
                submission = self.queue.recv(), if has_room => {
                    let Some(submission) = submission else { return; };
                    flight.admitting = Some(self.ask_for_budget(submission));
                }
            }
            self.find_way(&mut flight);
            self.expire(&mut flight);
            self.offer(&mut flight).await;
            self.tick(&mut flight).await;
        }
    }

    /// Turns to the present leader. While there is none, what is on its way may still arrive.
    fn find_way(&mut self, flight: &mut Flight) {
        let lead = self.lead.borrow_and_update().clone();
        let leader = self.replica.leader_in_term();
        // A leader that was cut off believes that it leads until it hears of the next one.
        let lead = lead.filter(|lead| leader.is_none_or(|(term, _)| term <= lead.id.term));
        if let Some(lead) = lead {
            if !matches!(&flight.way, Way::Here(present) if present.is(&lead)) {
                flight.turn(Way::Here(lead));
            }
        } else if let Some((_, leader)) = leader
            && leader != self.node
            && !flight.goes_to(leader)
        {
            let link = ForwardLink::new(self.peers.clone(), leader, self.replica.group);
            flight.turn(Way::There(link));
        } else if flight.leads() && flight.attempts.is_empty() {
            flight.turn(Way::Nowhere);
        }
    }

    /// Whether entries are taken. A leader that hands over takes none for a moment.
    fn is_open(&self, flight: &Flight) -> bool {
        match flight.way {
            Way::Nowhere => false,
            Way::Here(_) => self.lead.borrow().is_some(),
            Way::There(_) => true,
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
                    .or_else(|| flight.obstacle.clone())
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

    /// Sends waiting batches off, in order.
    async fn offer(&mut self, flight: &mut Flight) {
        if flight.retry_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        flight.retry_at = None;
        if !self.is_open(flight) {
            return;
        }
        let origin = Origin::Node {
            node: self.node,
            incarnation: self.incarnation,
        };
        for place in 0..flight.pending.len() {
            let (ticket, pending) = &mut flight.pending[place];
            if pending.stage != Stage::Waiting {
                continue;
            }
            let ticket = *ticket;
            // On its way to another leader a batch carries a time that says nothing.
            let (now, wall) = (self.replica.clock.now(), self.replica.clock.wall());
            match pending.encode(origin, &mut self.sequence, now, wall) {
                Ok(body) => {
                    pending.stage = Stage::Proposed;
                    flight.send(ticket, body).await;
                }
                Err(error) => {
                    pending.answer(Err(error));
                    pending.hollow();
                }
            }
        }
        self.drop_moot(flight);
    }

    fn settle(&self, flight: &mut Flight, ticket: u64, answer: Answer) {
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
                    flight.obstacle = None;
                    self.load.batches.fetch_sub(1, Ordering::Relaxed);
                    return;
                }
                // The batches before it come first, and they wait for their own pause.
                Verdict::Again => {}
            },
            Err(obstacle) => {
                let pause = self.consider(pending, obstacle, &mut flight.obstacle);
                flight.retry_at = Some(Instant::now() + pause);
            }
        }
        self.drop_moot(flight);
    }

    /// What an attempt without an outcome means for its batch, and how long to wait before the next.
    fn consider(
        &self,
        pending: &mut Pending,
        obstacle: NotWritten,
        told: &mut Option<String>,
    ) -> Duration {
        match obstacle {
            NotWritten::NotLeader { leader } => {
                if let Some((term, node)) = leader.filter(|(_, node)| *node != self.node) {
                    self.replica
                        .hear_of_leader(|view| view.claim(term, node, Instant::now()));
                }
            }
            NotWritten::Unknown => pending.maybe_logged = true,
            NotWritten::Unavailable { reason } => {
                *told = Some(reason);
                return RETRY_PAUSE_LONG;
            }
            NotWritten::Refused(error) => pending.refuse(error),
            NotWritten::Stopped { logged } => {
                pending.maybe_logged |= logged;
                // Where there are other nodes, one of them will lead.
                if self.replica.is_alone() {
                    self.give_up(pending);
                }
            }
        }
        RETRY_PAUSE
    }

    fn give_up(&self, pending: &mut Pending) {
        let reason = self
            .replica
            .trouble()
            .unwrap_or_else(|| "the group was stopped".to_owned());
        if pending.maybe_logged {
            pending.answer(Err(ClusterError::OutcomeUnknown { reason }));
        } else {
            pending.answer(Err(ClusterError::Unavailable { reason }));
            pending.hollow();
        }
    }

    /// When the next tick should be proposed, if nothing else is written before.
    fn tick_at(&self, flight: &Flight) -> Option<Instant> {
        let idle = flight.pending.is_empty() && !flight.tick_in_flight;
        if !idle || !flight.leads() || !self.is_open(flight) {
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
        flight.send(TICK, body).await;
    }
}
