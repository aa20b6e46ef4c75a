//! The batches that a proposer has in flight, and the way they take.

use std::collections::VecDeque;
use std::time::Instant;

use flotilla_model::ids::NodeId;
use flotilla_storage::EntryBody;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{AcquireError, OwnedSemaphorePermit};

use crate::attempt::{self, Answer};
use crate::forward::ForwardLink;
use crate::leadership::Lead;
use crate::pending::{Pending, Stage, Submission};

/// The ticket of a tick, which no batch has.
pub(crate) const TICK: u64 = 0;

/// Where entries go.
pub(crate) enum Way {
    /// Nobody is known to lead.
    Nowhere,
    /// This node leads.
    Here(Lead),
    /// Another one does.
    There(ForwardLink),
}

/// What the task has in hand.
pub(crate) struct Flight {
    /// In the order of their numbers: front is the oldest.
    pub pending: VecDeque<(u64, Pending)>,
    pub attempts: FuturesUnordered<BoxFuture<'static, (u64, Answer)>>,
    pub next_ticket: u64,
    /// A batch from the queue that waits for the node's budget; those behind it wait as well.
    pub admitting: Option<Admitting>,
    pub retry_at: Option<Instant>,
    pub tick_in_flight: bool,
    /// When the last tick was proposed; of one that was not taken, when to try again.
    pub ticked_at: Instant,
    pub way: Way,
    /// What was last in the way of a batch.
    pub obstacle: Option<String>,
}

pub(crate) struct Admitting {
    pub submission: Submission,
    pub permit: BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>,
}

impl Flight {
    pub fn new() -> Self {
        Self {
            pending: VecDeque::new(),
            attempts: FuturesUnordered::new(),
            next_ticket: TICK + 1,
            admitting: None,
            retry_at: None,
            tick_in_flight: false,
            ticked_at: Instant::now(),
            way: Way::Nowhere,
            obstacle: None,
        }
    }

    /// Takes another way. What is on its way already is given up, and may arrive all the same: it is
    /// repeated under its number.
    pub fn turn(&mut self, way: Way) {
        self.way = way;
        self.attempts = FuturesUnordered::new();
        self.tick_in_flight = false;
        self.retry_at = None;
        for (_, pending) in &mut self.pending {
            if pending.stage == Stage::Proposed {
                pending.stage = Stage::Waiting;
                pending.maybe_logged = true;
            }
        }
    }

    pub fn leads(&self) -> bool {
        matches!(self.way, Way::Here(_))
    }

    /// Whether the way is that of a conversation with this leader.
    pub fn goes_to(&self, leader: NodeId) -> bool {
        matches!(&self.way, Way::There(link) if link.leader == leader)
    }

    /// Sends an entry off.
    pub async fn send(&mut self, ticket: u64, body: EntryBody) {
        let answer = match &self.way {
            Way::Nowhere => return,
            Way::Here(lead) => attempt::write(lead, body).await,
            Way::There(link) => link.send(body),
        };
        self.attempts
            .push(Box::pin(async move { (ticket, answer.await) }));
    }

    /// A batch has its part of the budget.
    pub fn admit(&mut self, permit: OwnedSemaphorePermit) {
        if let Some(Admitting { submission, .. }) = self.admitting.take() {
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            self.pending
                .push_back((ticket, Pending::new(submission, permit)));
        }
    }
}

/// The budget for the batch that waits for it; never ready without one.
pub(crate) async fn budget_of(
    admitting: &mut Option<Admitting>,
) -> Result<OwnedSemaphorePermit, AcquireError> {
    match admitting {
        Some(admitting) => (&mut admitting.permit).await,
        None => std::future::pending().await,
    }
}
