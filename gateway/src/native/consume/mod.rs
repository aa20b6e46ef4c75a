//! Consume: one stream on which a client leases messages of queues and settles them.
//!
//! ```text
//!   client -> inbox -+-> held -> leases (waiting) -+-> outbox -> frame -> client
//!                    +-> settlements, extends -----+
//! ```
//!
//! Operations begin in the order they came in, and are answered as they are done. Leases are held while
//! the client leaves too much untaken, those that wait for messages too; settlements go past them until as many
//! answers wait as may.

mod frame;
mod operation;

use std::collections::VecDeque;
use std::sync::Arc;

use futures::Stream;
use tonic::Status;

use self::frame::{Done, next_frame};
use self::operation::{Fetched, Operation, extend, lease, operations, settle};
use super::context::Context;
use super::error::RequestError;
use super::protocol::consume_request::Lease;
use super::protocol::{ConsumeRequest, ConsumeResponse};
use crate::consumer::fetching::Fetching;
use crate::consumer::{self, Talk};
use crate::transport::inbound::BatchBounds;
use crate::transport::outgoing::Outgoing;

/// A client's frame may ask for many things: one is read when those before are begun.
const ONE_FRAME: BatchBounds = BatchBounds {
    count_max: 1,
    bytes_max: usize::MAX,
};

/// Serves one consumer.
pub fn stream<S>(
    context: Arc<Context>,
    requests: S,
) -> impl Stream<Item = Result<ConsumeResponse, Status>> + Send
where
    S: Stream<Item = Result<ConsumeRequest, Status>> + Send + Unpin + 'static,
{
    let session = context.broker.open_session();
    let lifecycle = Arc::clone(&context.lifecycle);
    let consumer = Consumer {
        inbox: VecDeque::new(),
        held: VecDeque::new(),
        outbox: VecDeque::new(),
        fetching: Fetching::new(context.bounds.lease_bytes_max),
        context,
    };
    consumer::stream(consumer, session, lifecycle, requests)
}

struct Consumer {
    context: Arc<Context>,
    /// Read, and not begun.
    inbox: VecDeque<Operation>,
    /// Leases that wait for the client to take what it has.
    held: VecDeque<Lease>,
    /// Done, and not given to the transport.
    outbox: VecDeque<Done>,
    fetching: Fetching,
}

type Work = consumer::Work<Consumer>;

impl Talk for Consumer {
    type Request = ConsumeRequest;
    type Response = ConsumeResponse;
    type Fetched = Fetched;
    type Settled = Done;
    type Error = RequestError;

    fn room(&self, _: &Work) -> Option<BatchBounds> {
        self.inbox.is_empty().then_some(ONE_FRAME)
    }

    fn room_at_end(&self) -> BatchBounds {
        self.context.bounds.together
    }

    fn take(&mut self, requests: Vec<ConsumeRequest>) {
        self.inbox.extend(requests.into_iter().flat_map(operations));
    }

    /// Begins what came, as long as what it becomes has room to wait for the client.
    fn begin(&mut self, work: &mut Work) {
        while self.under_way(work) < self.context.bounds.in_flight_max
            && let Some(operation) = self.inbox.pop_front()
        {
            match operation {
                Operation::Lease(request) => self.held.push_back(request),
                settling => self.begin_operation(work, settling),
            }
        }
        while !self.fetching.is_full()
            && let Some(request) = self.held.pop_front()
        {
            self.begin_lease(work, request);
        }
    }

    fn settle_rest(&mut self, work: &mut Work) {
        for operation in std::mem::take(&mut self.inbox) {
            if !matches!(operation, Operation::Lease(_)) {
                self.begin_operation(work, operation);
            }
        }
    }

    fn fetched(&mut self, _: &mut Work, fetched: Fetched) {
        // What it brought is counted again with the answer.
        drop(fetched.grant);
        self.tell(fetched.done);
    }

    fn settled(&mut self, _: &mut Work, done: Done) {
        self.tell(done);
    }

    fn has_answer(&self) -> bool {
        !self.outbox.is_empty()
    }

    fn next_answer(&mut self, work: &mut Work) -> Option<Outgoing<ConsumeResponse>> {
        let (response, settles_itself) = next_frame(&mut self.outbox, &self.fetching);
        let written = settles_itself.map(|(queue, lease)| work.settle_when_written(queue, lease));
        Some(Outgoing { response, written })
    }

    fn is_idle(&self) -> bool {
        self.inbox.is_empty() && self.held.is_empty()
    }
}

impl Consumer {
    /// What was begun and is not with the transport, or not over.
    fn under_way(&self, work: &Work) -> usize {
        self.held.len() + work.fetches() + work.settlements() + self.outbox.len()
    }

    fn begin_lease(&mut self, work: &mut Work, request: Lease) {
        let number = request.request;
        let allowed = self.context.bounds.leases_max;
        let begun = if work.fetches() < allowed {
            lease(&self.context, work.session(), request, &self.fetching)
        } else {
            Err(RequestError::LeasesWaiting { allowed })
        };
        match begun {
            Ok(begun) => work.fetch(begun),
            Err(error) => self.tell(Done::failed(number, &error)),
        }
    }

    fn begin_operation(&mut self, work: &mut Work, operation: Operation) {
        let session = work.session();
        let (number, begun) = match operation {
            Operation::Lease(request) => return self.begin_lease(work, request),
            Operation::Settle(request) => {
                (request.request, settle(&self.context, session, request))
            }
            Operation::Extend(request) => (request.request, extend(session, request)),
        };
        match begun {
            Ok(begun) => work.settle(begun),
            Err(error) => self.tell(Done::failed(number, &error)),
        }
    }

    fn tell(&mut self, done: Done) {
        self.fetching.wait(done.bytes());
        self.outbox.push_back(done);
    }
}
