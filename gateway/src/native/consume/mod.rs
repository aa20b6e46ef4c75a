//! Consume: one stream on which a client leases messages of queues and settles them.
//!
//! ```text
//!   client -> inbound -> inbox -+-> leases (waiting) -----+-> outbox -> frame -> client
//!                               +-> settlements, extends -+
//! ```
//!
//! Operations begin in the order they came in, and are answered as they are done. A task of its own
//! drives the stream, for settlements must be made even when the client does not read, and what is
//! still held must go back when the client is gone.

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
use self::operation::{Operation, extend, lease, operations, settle};
use super::context::Context;
use super::error::RequestError;
use super::protocol::{ConsumeRequest, ConsumeResponse};
use crate::auto_ack::ack_when_written;
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
        leases: FuturesUnordered::new(),
        settlements: FuturesUnordered::new(),
        auto_acks: FuturesUnordered::new(),
        outbox: VecDeque::new(),
        outbox_bytes: 0,
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
    leases: FuturesUnordered<BoxFuture<'static, Done>>,
    settlements: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Of leases whose messages are on their way.
    auto_acks: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Done, and not given to the transport.
    outbox: VecDeque<Done>,
    /// Message bytes in it.
    outbox_bytes: u64,
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
                    self.outbox.push_back(done);
                    while let Some(Some(done)) = self.settlements.next().now_or_never() {
                        self.outbox.push_back(done);
                    }
                }
                Some(done) = self.leases.next() => {
                    self.outbox_bytes += done.bytes();
                    self.outbox.push_back(done);
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
            && self.outbox.is_empty()
            && self.leases.is_empty()
            && self.settlements.is_empty()
    }

    /// Begins what came, as long as what it becomes has room to wait for the client.
    fn begin_operations(&mut self) {
        let bounds = &self.context.bounds;
        let (in_flight_max, bytes_max) = (bounds.in_flight_max, bounds.lease_bytes_max);
        while self.leases.len() + self.settlements.len() + self.outbox.len() < in_flight_max
            && self.outbox_bytes < bytes_max
            && let Some(operation) = self.inbox.pop_front()
        {
            self.begin(operation);
        }
    }

    fn begin(&mut self, operation: Operation) {
        let session = Arc::clone(&self.session);
        let (number, failed) = match operation {
            Operation::Lease(request) => {
                let bounds = &self.context.bounds;
                let (waiting, allowed) = (self.leases.len(), bounds.leases_max);
                // All that wait stay together within what the stream may fetch.
                let share = bounds.lease_bytes_max / (waiting as u64 + 1);
                let number = request.request;
                let checked = if waiting < allowed {
                    lease(session, request, share)
                } else {
                    Err(RequestError::LeasesWaiting { allowed })
                };
                (number, checked.map(|begun| self.leases.push(begun.boxed())))
            }
            Operation::Settle(request) => {
                let number = request.request;
                let checked = settle(session, request);
                (
                    number,
                    checked.map(|begun| self.settlements.push(begun.boxed())),
                )
            }
            Operation::Extend(request) => {
                let number = request.request;
                let checked = extend(session, request);
                (
                    number,
                    checked.map(|begun| self.settlements.push(begun.boxed())),
                )
            }
        };
        if let Err(error) = failed {
            self.outbox.push_back(Done::failed(number, &error));
        }
    }

    fn next_frame(&mut self) -> Outgoing<ConsumeResponse> {
        let (frame, settles_itself) = next_frame(&mut self.outbox, &mut self.outbox_bytes);
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
