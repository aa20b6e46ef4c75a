//! The way into a shard: a bounded list of submissions that the shard's actor empties.
//!
//! A caller adds its whole batch under one lock and wakes the actor only if the list was empty, so
//! that a busy shard costs neither a message nor a wake-up per item. Two bounds keep memory in
//! check: payload bytes, and the number of submissions without payload. They are separate because
//! settlements must get through when producers have filled the first.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flotilla_model::batch::{BATCH_BYTES_MAX, BATCH_SLOTS_MAX, Ticket, cost};
use flotilla_model::command::Command;
use flotilla_model::outcome::Outcome;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::api::error::BrokerError;

/// Room is counted in these, so that many empty messages also meet the bound.
const ROOM_UNIT_BYTES: u64 = 1_024;
/// Submissions without payload that may wait or be in flight, per shard.
const CONTROL_SUBMISSIONS_MAX: usize = 16_384;
/// Most commands of one submission.
pub(crate) const SUBMISSION_WORKS_MAX: usize = 1_024;

/// A command and the payload it takes.
#[derive(Debug)]
pub(crate) struct Work {
    pub command: Command,
    pub slots: Vec<Bytes>,
}

impl Work {
    /// A command without payload.
    pub fn control(command: Command) -> Self {
        Self {
            command,
            slots: Vec::new(),
        }
    }
}

/// What one caller wants in one entry, with the slot that its answer goes to.
pub(crate) struct Submission {
    pub works: Vec<Work>,
    pub slots: usize,
    pub bytes: u64,
    /// Holds payload, and may thus be refused when storage is full.
    pub stores: bool,
    pub reply: oneshot::Sender<Result<EntryReply, BrokerError>>,
    /// Given back when the submission is answered.
    pub room: OwnedSemaphorePermit,
}

impl Submission {
    fn refuse(self, error: BrokerError) {
        // A caller that stopped waiting has no use for the answer.
        let _ = self.reply.send(Err(error));
    }
}

/// The outcomes of the entry that a submission became part of.
#[derive(Debug)]
pub(crate) struct EntryReply {
    outcomes: Arc<[Outcome]>,
    tickets: Vec<Ticket>,
}

impl EntryReply {
    pub fn new(outcomes: Arc<[Outcome]>, tickets: Vec<Ticket>) -> Self {
        Self { outcomes, tickets }
    }

    /// The outcome of the submission's work number `work`, and the place in it where the work's own
    /// messages begin: the command may have been merged with others.
    pub fn outcome(&self, work: usize) -> Result<(&Outcome, u32), BrokerError> {
        let outcome = self
            .tickets
            .get(work)
            .and_then(|ticket| Some((self.outcomes.get(ticket.command as usize)?, ticket)));
        match outcome {
            Some((outcome, ticket)) => Ok((outcome, ticket.first_place)),
            None => Err(BrokerError::Unavailable {
                reason: "the shard gave fewer outcomes than it was given commands".to_owned(),
            }),
        }
    }
}

/// The answer to a submission, once it is there.
pub(crate) struct PendingReply(oneshot::Receiver<Result<EntryReply, BrokerError>>);

impl Future for PendingReply {
    type Output = Result<EntryReply, BrokerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| {
            // The sender is dropped unanswered only when the actor ends while the entry is under way.
            answer.unwrap_or(Err(BrokerError::OutcomeUnknown))
        })
    }
}

/// What waits for the shard's actor.
#[derive(Default)]
struct Waiting {
    submissions: VecDeque<Submission>,
    /// Why nobody works them off any more.
    ended: Option<BrokerError>,
}

/// One shard's list of submissions.
pub(crate) struct ShardIngress {
    waiting: Mutex<Waiting>,
    /// Wakes the shard's actor.
    pub wake: Notify,
    payload_room: Arc<Semaphore>,
    payload_units_max: u32,
    control_room: Arc<Semaphore>,
    wait_max: Duration,
    closed: AtomicBool,
}

impl ShardIngress {
    pub fn new(bytes_max: u64, wait_max: Duration) -> Self {
        let units = (bytes_max / ROOM_UNIT_BYTES).clamp(1, u64::from(u32::MAX >> 4)) as u32;
        Self {
            waiting: Mutex::default(),
            wake: Notify::new(),
            payload_room: Arc::new(Semaphore::new(units as usize)),
            payload_units_max: units,
            control_room: Arc::new(Semaphore::new(CONTROL_SUBMISSIONS_MAX)),
            wait_max,
            closed: AtomicBool::new(false),
        }
    }

    /// Adds a submission, waiting for room: in the order of the calls, and no longer than configured.
    ///
    /// Room that comes free goes to whoever waits longest, at once and whether it is looked after or
    /// not. A stream is not, while its client does not read. So a task of its own waits, and uses the
    /// room or gives it up; it ends when the call is dropped.
    pub async fn submit(self: &Arc<Self>, works: Vec<Work>) -> Result<PendingReply, BrokerError> {
        let works = match self.try_submit(works) {
            Ok(pending) => return Ok(pending),
            Err(Refused::Closed) => return Err(BrokerError::ShuttingDown),
            Err(Refused::NoRoom(works)) => works,
        };
        let measure = Measure::of(&works);
        let (room, units) = self.room_for(&measure);
        let mut acquiring = Box::pin(Arc::clone(room).acquire_many_owned(units));
        // Takes its place among those who wait before anybody else can.
        if let Some(permit) = (&mut acquiring).now_or_never() {
            let permit = permit.map_err(|_| BrokerError::ShuttingDown)?;
            return Ok(self.push(works, measure, permit));
        }
        let ingress = Arc::clone(self);
        let mut waiting: JoinSet<Result<PendingReply, BrokerError>> = JoinSet::new();
        waiting.spawn(async move {
            let acquired = tokio::time::timeout(ingress.wait_max, acquiring).await;
            let permit = acquired
                .map_err(|_| BrokerError::Busy {
                    what: "the shard takes no more at present".to_owned(),
                })?
                .map_err(|_| BrokerError::ShuttingDown)?;
            Ok(ingress.push(works, measure, permit))
        });
        match waiting.join_next().await {
            Some(Ok(submitted)) => submitted,
            // The runtime is ending, and stopped the task while it waited.
            Some(Err(_)) | None => Err(BrokerError::ShuttingDown),
        }
    }

    /// Adds a submission if there is room at once; gives the works back if not.
    pub fn try_submit(&self, works: Vec<Work>) -> Result<PendingReply, Refused> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Refused::Closed);
        }
        let measure = Measure::of(&works);
        let (room, units) = self.room_for(&measure);
        match Arc::clone(room).try_acquire_many_owned(units) {
            Ok(permit) => Ok(self.push(works, measure, permit)),
            Err(_) => Err(Refused::NoRoom(works)),
        }
    }

    /// Submits and waits for the outcomes.
    pub async fn run(self: &Arc<Self>, works: Vec<Work>) -> Result<EntryReply, BrokerError> {
        self.submit(works).await?.await
    }

    /// Takes as many submissions from the front as `fits` allows, asked one by one.
    pub fn take_while(&self, mut fits: impl FnMut(&Submission) -> bool) -> Vec<Submission> {
        let mut waiting = self.waiting.lock();
        let submissions = &mut waiting.submissions;
        let count = submissions.iter().take_while(|next| fits(next)).count();
        submissions.drain(..count).collect()
    }

    /// Puts submissions back, before all others, in their order.
    pub fn put_back(&self, submissions: Vec<Submission>) {
        let mut waiting = self.waiting.lock();
        for submission in submissions.into_iter().rev() {
            waiting.submissions.push_front(submission);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.lock().submissions.is_empty()
    }

    /// How many submissions wait.
    pub fn depth(&self) -> usize {
        self.waiting.lock().submissions.len()
    }

    /// Refuses all further submissions; those that wait are still worked off.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.payload_room.close();
        self.control_room.close();
        self.wake.notify_one();
    }

    /// Nobody will work off what waits: answers it with an error, and what has its room already and is
    /// still to come.
    pub fn end(&self, error: &BrokerError) {
        self.close();
        let left = {
            let mut waiting = self.waiting.lock();
            waiting.ended = Some(error.clone());
            std::mem::take(&mut waiting.submissions)
        };
        for submission in left {
            submission.refuse(error.clone());
        }
    }

    fn room_for(&self, measure: &Measure) -> (&Arc<Semaphore>, u32) {
        if measure.stores {
            // A message larger than all the room takes all of it, instead of waiting for ever.
            let units =
                (measure.bytes / ROOM_UNIT_BYTES + 1).min(u64::from(self.payload_units_max));
            (&self.payload_room, units as u32)
        } else {
            (&self.control_room, 1)
        }
    }

    fn push(&self, works: Vec<Work>, measure: Measure, room: OwnedSemaphorePermit) -> PendingReply {
        let (reply, pending) = oneshot::channel();
        let submission = Submission {
            works,
            slots: measure.slots,
            bytes: measure.bytes,
            stores: measure.stores,
            reply,
            room,
        };
        self.add(submission);
        PendingReply(pending)
    }

    fn add(&self, submission: Submission) {
        let was_empty = {
            let mut waiting = self.waiting.lock();
            if let Some(error) = waiting.ended.clone() {
                drop(waiting);
                submission.refuse(error);
                return;
            }
            let was_empty = waiting.submissions.is_empty();
            waiting.submissions.push_back(submission);
            was_empty
        };
        if was_empty {
            self.wake.notify_one();
        }
    }
}

/// Why [`ShardIngress::try_submit`] took nothing.
pub(crate) enum Refused {
    Closed,
    NoRoom(Vec<Work>),
}

/// Whether a submission with these sizes may still join an entry that holds the others.
pub(crate) fn fits_entry(held: (usize, usize, u64), more: (usize, usize, u64)) -> bool {
    let (works, slots, bytes) = (held.0 + more.0, held.1 + more.1, held.2 + more.2);
    held.0 == 0
        || (works <= BATCH_SLOTS_MAX && slots <= BATCH_SLOTS_MAX && bytes <= BATCH_BYTES_MAX as u64)
}

struct Measure {
    slots: usize,
    bytes: u64,
    stores: bool,
}

impl Measure {
    fn of(works: &[Work]) -> Self {
        let mut measure = Self {
            slots: 0,
            bytes: 0,
            stores: false,
        };
        for work in works {
            measure.bytes += cost(&work.command) as u64;
            measure.slots += work.slots.len();
            measure.bytes += work.slots.iter().map(|slot| slot.len() as u64).sum::<u64>();
            measure.stores |= !work.slots.is_empty();
        }
        measure
    }
}

#[cfg(test)]
#[path = "ingress_test.rs"]
mod tests;
