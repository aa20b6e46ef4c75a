//! A responder: takes requests, and replies to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use flotilla_model::name::Name;

use crate::api::error::BrokerError;
use crate::api::request::{CallId, Reply, ReplyToken, RequestDelivery};
use crate::core::Core;
use crate::hub::buffer::{Bounds, Buffer, Weighed};
use crate::hub::request::letter::Letter;
use crate::hub::table::Member;

/// A request on its way to a responder.
pub(crate) struct Given {
    pub call: CallId,
    pub letter: Letter,
    pub deadline: Instant,
}

impl Weighed for Given {
    fn bytes(&self) -> u64 {
        self.letter.bytes
    }
}

/// One responder and what waits for it.
pub(crate) struct Responder {
    id: u64,
    pub buffer: Buffer<Given>,
    /// Requests that it was given and that are not over.
    under_way: AtomicUsize,
    calls_max: usize,
}

impl Responder {
    pub fn new(id: u64, calls_max: usize, bytes_max: u64) -> Self {
        Self {
            id,
            buffer: Buffer::new(Bounds::hard(calls_max, bytes_max)),
            under_way: AtomicUsize::new(0),
            calls_max,
        }
    }

    /// Counts one request more, if it may have one more. Only the hub gives it any, one at a time.
    pub fn try_begin(&self) -> bool {
        let has_room = self.has_room();
        if has_room {
            self.under_way.fetch_add(1, Ordering::AcqRel);
        }
        has_room
    }

    /// One of its requests is over.
    pub fn end_one(&self) {
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Member for Responder {
    fn id(&self) -> u64 {
        self.id
    }

    fn has_room(&self) -> bool {
        // What it does not take stays in its buffer, also when it is over.
        self.under_way.load(Ordering::Acquire) < self.calls_max && self.buffer.has_room()
    }
}

/// A live subscription to requests. Dropping it ends it; see [`crate::WhenNobody`] for what becomes of
/// the requests that it has.
pub struct RequestSubscription {
    core: Arc<Core>,
    responder: Arc<Responder>,
}

impl RequestSubscription {
    pub(crate) fn new(core: Arc<Core>, responder: Arc<Responder>) -> Self {
        Self { core, responder }
    }

    /// The requests that are ready, at least one; waits for it. To be called by one task at a time; may
    /// be dropped without losing any.
    pub async fn next(&self) -> Result<Vec<RequestDelivery>, BrokerError> {
        loop {
            let given = self.responder.buffer.take().await?;
            let now = Instant::now();
            let mut deliveries = Vec::with_capacity(given.len());
            for given in given {
                let timeout_left = given.deadline.saturating_duration_since(now);
                // Nobody waits for the reply any more.
                if timeout_left.is_zero() {
                    continue;
                }
                deliveries.push(RequestDelivery {
                    call: given.call,
                    name: Arc::clone(&given.letter.name),
                    message: Arc::clone(&given.letter.message),
                    extra: given.letter.extra.clone(),
                    timeout_left,
                });
            }
            if !deliveries.is_empty() {
                self.core.metrics.requests_delivered(&deliveries);
                return Ok(deliveries);
            }
        }
    }

    /// Replies to requests. One result per item, in order: it fails with [`BrokerError::Conflict`] if
    /// the request was replied to by another, timed out, or was never given to this subscription.
    pub fn reply(&self, batch: Vec<(CallId, Reply)>) -> Vec<Result<(), BrokerError>> {
        let responder = self.responder.id;
        self.core.requests.reply(&self.core, responder, batch)
    }

    /// What requests are for, to know who may reply to them; `None` for those that are over.
    pub fn names_of(&self, calls: &[CallId]) -> Vec<Option<Arc<Name>>> {
        self.core.requests.names_of(calls)
    }

    /// Gives requests back that whoever serves here is not to see. Others get them as if this subscription were not
    /// there; it has room for as many more, and may not reply to them.
    pub fn decline(&self, calls: Vec<CallId>) {
        if !calls.is_empty() {
            self.core
                .requests
                .decline(&self.core, self.responder.id, calls);
        }
    }

    /// With this anybody may reply to a request of this subscription, through any node.
    pub fn token(&self, call: CallId) -> ReplyToken {
        self.core.requests.token(&self.core, call)
    }
}

impl Drop for RequestSubscription {
    fn drop(&mut self) {
        self.core.requests.leave(&self.core, self.responder.id);
    }
}
