//! Consume: one stream on which a client leases messages of queues and settles them.
//!
//! ```text
//!   client -> inbound -> inbox -+-> held -> leases (waiting) -+-> outbox -> frame -> client
//!                               +-> settlements, extends -----+
//! ```
//!
//! Operations begin in the order they came in, and are answered as they are done. Leases are held while
//! the client leaves too much untaken; settlements go past them until as many answers wait as may. A task
//! of its own drives the stream, for settlements must be made even when the client does not read, and what
//! it still has must go back when it is gone.

mod frame;
mod operation;

use std::collections::VecDeque;
use std::sync::Arc;

use flotilla_broker::Session;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use self::frame::{Done, next_frame};
use self::operation::{Fetched, Operation, extend, lease, operations, settle};
use super::context::Context;
use super::error::RequestError;
use super::protocol::consume_request::Lease;
use super::protocol::{ConsumeRequest, ConsumeResponse};
use crate::auto_ack::ack_when_written;
use crate::fetching::Fetching;
use crate::transport::inbound::{BatchBounds, Ended, Inbound};
use crate::transport::outgoing::{Ending, Outgoing, responses};

/// Frames between the task and the transport. More would only hold memory.
const OUTGOING_MAX: usize = 4;
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
    let (outgoing, taken_by_transport) = mpsc::channel(OUTGOING_MAX);
    let ending = Ending::default();
    let conversation = Conversation {
        session: Arc::new(context.broker.open_session()),
        context: Arc::clone(&context),
        inbox: VecDeque::new(),
        held: VecDeque::new(),
        leases: FuturesUnordered::new(),
        settlements: FuturesUnordered::new(),
        auto_acks: FuturesUnordered::new(),
        outbox: VecDeque::new(),
        fetching: Fetching::new(context.bounds.lease_bytes_max),
    };
    let inbound = Inbound::new(requests);
    context
        .lifecycle
        .spawn(conversation.run(inbound, outgoing, ending.clone()));
    responses(taken_by_transport, ending)
}

struct Conversation {
    context: Arc<Context>,
    session: Arc<Session>,
    /// Read, and not begun.
    inbox: VecDeque<Operation>,
    /// Leases that wait for the client to take what it has.
    held: VecDeque<Lease>,
    leases: FuturesUnordered<BoxFuture<'static, Fetched>>,
    settlements: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Of leases whose messages are on their way.
    auto_acks: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Done, and not given to the transport.
    outbox: VecDeque<Done>,
    fetching: Fetching,
}

impl Conversation {
    async fn run<S>(
        mut self,
        mut inbound: Inbound<S>,
        outgoing: mpsc::Sender<Outgoing<ConsumeResponse>>,
        ending: Ending,
    ) where
        S: Stream<Item = Result<ConsumeRequest, Status>> + Send + Unpin,
    {
        let ended = self.converse(&mut inbound, &outgoing).await;
        self.settle_what_arrived(&mut inbound);
        // The client's leases, and what nobody will read, end before the stream does: what they held
        // goes back.
        self.leases.clear();
        self.outbox.clear();
        ending.set(ended);
        drop(outgoing);
        while self.settlements.next().await.is_some() {}
        while self.auto_acks.next().await.is_some() {}
        if let Some(session) = Arc::into_inner(self.session) {
            session.end().await;
        }
    }

    /// Until one side has ended; the answer is how to end the other.
    async fn converse<S>(
        &mut self,
        inbound: &mut Inbound<S>,
        outgoing: &mpsc::Sender<Outgoing<ConsumeResponse>>,
    ) -> Result<(), Status>
    where
        S: Stream<Item = Result<ConsumeRequest, Status>> + Send + Unpin,
    {
        let mut server_end = self.context.server_end();
        let session = Arc::clone(&self.session);
        let lost = session.lost();
        tokio::pin!(lost);
        loop {
            self.begin_operations();
            match inbound.ended() {
                Some(Ended::Failed(status)) => return Err(status.clone()),
                Some(Ended::HalfClosed) if self.is_idle() => return Ok(()),
                _ => {}
            }
            let reads_on = self.inbox.is_empty() && inbound.ended().is_none();
            tokio::select! {
                // The client is gone.
                () = outgoing.closed() => return Ok(()),
                error = &mut server_end => return Err(error.status()),
                // Nothing that the client holds is its own any more.
                error = &mut lost => return Err(RequestError::from(error).status()),
                Some(done) = self.settlements.next() => {
                    self.tell(done);
                    while let Some(Some(done)) = self.settlements.next().now_or_never() {
                        self.tell(done);
                    }
                }
                Some(fetched) = self.leases.next() => {
                    self.fetching.end(fetched.granted);
                    self.tell(fetched.done);
                }
                Some(()) = self.auto_acks.next() => {}
                permit = outgoing.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    permit.send(self.next_frame());
                }
                requests = inbound.next_batch(ONE_FRAME), if reads_on => {
                    self.inbox.extend(requests.into_iter().flat_map(operations));
                }
            }
        }
    }

    /// Begins the settlements that the client sent before it went: it may acknowledge and leave at
    /// once, and what it did must not come back.
    fn settle_what_arrived<S>(&mut self, inbound: &mut Inbound<S>)
    where
        S: Stream<Item = Result<ConsumeRequest, Status>> + Send + Unpin,
    {
        let together = self.context.bounds.together;
        if inbound.ended().is_none()
            && let Some(requests) = inbound.next_batch(together).now_or_never()
        {
            self.inbox.extend(requests.into_iter().flat_map(operations));
        }
        for operation in std::mem::take(&mut self.inbox) {
            if !matches!(operation, Operation::Lease(_)) {
                self.begin(operation);
            }
        }
    }

    /// Nothing is under way for the client.
    fn is_idle(&self) -> bool {
        self.inbox.is_empty()
            && self.held.is_empty()
            && self.outbox.is_empty()
            && self.leases.is_empty()
            && self.settlements.is_empty()
    }

    /// Begins what came, as long as what it becomes has room to wait for the client.
    fn begin_operations(&mut self) {
        while self.under_way() < self.context.bounds.in_flight_max
            && let Some(operation) = self.inbox.pop_front()
        {
            match operation {
                Operation::Lease(request) => self.held.push_back(request),
                settling => self.begin(settling),
            }
        }
        while !self.fetching.is_full()
            && let Some(request) = self.held.pop_front()
        {
            self.begin_lease(request);
        }
    }

    /// What was begun and is not with the transport, or not over.
    fn under_way(&self) -> usize {
        let fetches = self.held.len() + self.leases.len() + self.auto_acks.len();
        fetches + self.settlements.len() + self.outbox.len()
    }

    fn begin_lease(&mut self, request: Lease) {
        let number = request.request;
        let allowed = self.context.bounds.leases_max;
        let begun = if self.leases.len() + self.auto_acks.len() < allowed {
            lease(Arc::clone(&self.session), request, &mut self.fetching)
        } else {
            Err(RequestError::LeasesWaiting { allowed })
        };
        match begun {
            Ok(begun) => self.leases.push(begun),
            Err(error) => self.tell(Done::failed(number, &error)),
        }
    }

    fn begin(&mut self, operation: Operation) {
        let session = Arc::clone(&self.session);
        let (number, begun) = match operation {
            Operation::Lease(request) => return self.begin_lease(request),
            Operation::Settle(request) => (request.request, settle(session, request)),
            Operation::Extend(request) => (request.request, extend(session, request)),
        };
        match begun {
            Ok(begun) => self.settlements.push(begun),
            Err(error) => self.tell(Done::failed(number, &error)),
        }
    }

    fn tell(&mut self, done: Done) {
        self.fetching.wait(done.bytes());
        self.outbox.push_back(done);
    }

    fn next_frame(&mut self) -> Outgoing<ConsumeResponse> {
        let (frame, settles_itself) = next_frame(&mut self.outbox, &mut self.fetching);
        let mut written = None;
        if let Some((queue, lease)) = settles_itself {
            let (tell, told) = oneshot::channel();
            let session = Arc::clone(&self.session);
            self.auto_acks
                .push(ack_when_written(session, queue, lease, told).boxed());
            written = Some(tell);
        }
        Outgoing {
            response: frame,
            written,
        }
    }
}
