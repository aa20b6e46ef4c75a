//! QueuesDownstream: one stream on which a client gets messages and settles them.
//!
//! ```text
//!   client -> inbound -> inbox -+-> gets (waiting, any number) --+-> outbox -> transport -> client
//!                               +-> settlements, all under way --+      (room for each in-flight
//!                               +-> questions ------------------+        request: bounded)
//! ```
//!
//! Requests begin in the order they came in. A settlement does not wait for the gets before it;
//! everything else waits for the settlements before it, so that a get sees what was given back. Gets are
//! refused while the client leaves too much untaken: settlements behind them must be made all the same. A
//! task of its own drives the conversation, for settlements must be made even when the client does
//! not read, and what is still held must be released when the client is gone.

mod get;
mod reply;
mod settle;
mod transactions;

use std::collections::VecDeque;
use std::sync::Arc;

use flotilla_broker::Session;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use self::get::{Batch, Get, Got};
use self::reply::{Origin, Outgoing};
use self::settle::{Done, How};
use self::transactions::Transactions;
use super::context::Context;
use super::convert::new_id;
use super::error::RequestError;
use super::protocol::{
    QueuesDownstreamRequest, QueuesDownstreamRequestType as Type, QueuesDownstreamResponse,
};
use super::validate;
use crate::auto_ack::ack_when_written;
use crate::fetching::Fetching;
use crate::transport::inbound::{BatchBounds, Ended, Inbound};
use crate::transport::outgoing::{Ending, responses};

/// Responses between the conversation and the transport. More would only hold memory.
const OUTGOING_MAX: usize = 4;

/// Answers a downstream.
pub fn stream<S>(
    context: Arc<Context>,
    requests: S,
) -> impl Stream<Item = Result<QueuesDownstreamResponse, Status>> + Send
where
    S: Stream<Item = Result<QueuesDownstreamRequest, Status>> + Send + Unpin + 'static,
{
    let (outgoing, taken_by_transport) = mpsc::channel(OUTGOING_MAX);
    let ending = Ending::default();
    let conversation = Conversation {
        session: Arc::new(context.broker.open_session()),
        context: Arc::clone(&context),
        transactions: Transactions::default(),
        inbox: VecDeque::new(),
        outbox: VecDeque::new(),
        fetching: Fetching::new(context.config.downstream_bytes_max as u64),
        gets: FuturesUnordered::new(),
        settlements: FuturesUnordered::new(),
        auto_acks: FuturesUnordered::new(),
    };
    let inbound = Inbound::new(requests);
    context
        .lifecycle
        .spawn(conversation.run(inbound, outgoing, ending.clone()));
    responses(taken_by_transport, ending)
}

struct Conversation {
    context: Arc<Context>,
    /// Holds all leases of the stream; whatever happens, its end gives them back.
    session: Arc<Session>,
    transactions: Transactions,
    /// Read, but not begun.
    inbox: VecDeque<QueuesDownstreamRequest>,
    /// Answered, but not yet given to the transport; with the bytes.
    outbox: VecDeque<(usize, Outgoing)>,
    fetching: Fetching,
    gets: FuturesUnordered<BoxFuture<'static, Got>>,
    settlements: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Auto-acknowledged gets whose responses are on their way.
    auto_acks: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Conversation {
    async fn run<S>(
        mut self,
        mut inbound: Inbound<S>,
        outgoing: mpsc::Sender<Outgoing>,
        ending: Ending,
    ) where
        S: Stream<Item = Result<QueuesDownstreamRequest, Status>> + Send + Unpin,
    {
        let ended = self.converse(&mut inbound, &outgoing).await;
        self.settle_what_arrived(&mut inbound);
        // The client's receives, and what nobody will read, end before the stream does: what they
        // held goes back.
        self.gets.clear();
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
        outgoing: &mpsc::Sender<Outgoing>,
    ) -> Result<(), Status>
    where
        S: Stream<Item = Result<QueuesDownstreamRequest, Status>> + Send + Unpin,
    {
        let lifecycle = Arc::clone(&self.context.lifecycle);
        let ending = lifecycle.ending();
        tokio::pin!(ending);
        let session = Arc::clone(&self.session);
        let lost = session.lost();
        tokio::pin!(lost);
        loop {
            self.begin_requests();
            if let Some(ended) = inbound.ended() {
                match ended {
                    Ended::Failed(status) => return Err(status.clone()),
                    Ended::HalfClosed if self.is_idle() => return Ok(()),
                    Ended::HalfClosed => {}
                }
            }
            let bounds = self.room();
            tokio::select! {
                // The client is gone.
                () = outgoing.closed() => return Ok(()),
                () = &mut ending => return Err(RequestError::ShuttingDown.status()),
                // Nothing that the client holds is its own any more.
                error = &mut lost => return Err(RequestError::from(error).status()),
                Some(done) = self.settlements.next() => {
                    let reply = settle::finish(&mut self.transactions, done);
                    self.tell(reply);
                }
                Some(got) = self.gets.next() => self.got(got),
                Some(()) = self.auto_acks.next() => {}
                permit = outgoing.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some((bytes, next)) = self.outbox.pop_front() {
                        self.fetching.take(bytes);
                        permit.send(next);
                    }
                }
                requests = inbound.next_batch(bounds),
                    if bounds.count_max > 0 && inbound.ended().is_none() =>
                {
                    self.inbox.extend(requests);
                }
            }
        }
    }

    /// Begins the settlements that the client sent before it went: it may acknowledge and leave at
    /// once, and what it did must not come back.
    fn settle_what_arrived<S>(&mut self, inbound: &mut Inbound<S>)
    where
        S: Stream<Item = Result<QueuesDownstreamRequest, Status>> + Send + Unpin,
    {
        let bounds = self.context.batch_bounds();
        if inbound.ended().is_none()
            && let Some(requests) = inbound.next_batch(bounds).now_or_never()
        {
            self.inbox.extend(requests);
        }
        for request in std::mem::take(&mut self.inbox) {
            let kind = Type::try_from(request.request_type_data);
            if let Some(how) = kind.ok().and_then(How::of)
                && validate::downstream_ids(&request).is_ok()
            {
                self.begin_settlement(how, &request);
            }
        }
    }

    /// Nothing is under way for the client.
    fn is_idle(&self) -> bool {
        self.inbox.is_empty()
            && self.outbox.is_empty()
            && self.gets.is_empty()
            && self.settlements.is_empty()
    }

    /// How many more requests may be read: each under way can become a reply that waits.
    fn room(&self) -> BatchBounds {
        let bounds = self.context.batch_bounds();
        let under_way = self.inbox.len() + self.outbox.len() + self.settlements.len();
        BatchBounds {
            count_max: bounds.count_max.saturating_sub(under_way),
            ..bounds
        }
    }

    /// Begins what can begin now, in the order it came.
    fn begin_requests(&mut self) {
        while let Some(request) = self.inbox.front() {
            let kind =
                Type::try_from(request.request_type_data).unwrap_or(Type::PollRequestTypeUnknown);
            let how = How::of(kind);
            if how.is_none() && !self.settlements.is_empty() {
                return;
            }
            let Some(request) = self.inbox.pop_front() else {
                return;
            };
            if let Err(refused) = validate::downstream_ids(&request) {
                self.tell(Some(Origin::of(&request).error(&refused)));
                continue;
            }
            match (how, kind) {
                (Some(how), _) => self.begin_settlement(how, &request),
                (None, Type::Get) => self.begin_get(&request),
                (None, kind) => {
                    let reply = self.answer(kind, &request);
                    self.tell(Some(reply));
                }
            }
        }
    }

    fn begin_settlement(&mut self, how: How, request: &QueuesDownstreamRequest) {
        let (settlings, reply) = settle::begin(&mut self.transactions, how, request);
        self.tell(reply);
        for settling in settlings {
            let session = Arc::clone(&self.session);
            self.settlements.push(settling.run(session).boxed());
        }
    }

    fn begin_get(&mut self, request: &QueuesDownstreamRequest) {
        let allowed = self.context.config.transactions_per_stream_max;
        let open = self.transactions.len() + self.gets.len() + self.auto_acks.len();
        let get = if open >= allowed {
            Err(RequestError::TransactionsMax { allowed })
        } else if self.fetching.is_full() {
            Err(RequestError::Untaken)
        } else {
            Get::new(&self.context, request, &mut self.fetching)
        };
        match get {
            Ok(get) => {
                let (context, session) = (Arc::clone(&self.context), Arc::clone(&self.session));
                self.gets.push(get.run(context, session).boxed());
            }
            Err(refused) => self.tell(Some(Origin::of(request).error(&refused))),
        }
    }

    /// Makes a get's messages a transaction, and a response.
    fn got(&mut self, got: Got) {
        self.fetching.end(got.granted);
        let id = new_id();
        let origin = got.origin.with_transaction(id.clone());
        let Batch {
            lease,
            sequences,
            messages,
        } = match got.result {
            Ok(batch) => batch,
            Err(failure) => {
                self.tell(Some(origin.error(&failure)));
                return;
            }
        };
        let mut written = None;
        if messages.is_empty() {
            // Nothing is leased, so there is nothing to open.
        } else if got.auto_ack {
            let (tell, told) = oneshot::channel();
            let session = Arc::clone(&self.session);
            self.auto_acks
                .push(ack_when_written(session, got.queue, lease, told).boxed());
            self.transactions.remember_closed(id);
            written = Some(tell);
        } else {
            self.transactions.open(id, got.queue, lease, sequences);
        }
        self.tell(Some(Outgoing {
            response: QueuesDownstreamResponse {
                messages,
                ..origin.reply()
            },
            written,
        }));
    }

    /// Has the client told, if there is anything to tell.
    fn tell(&mut self, reply: Option<Outgoing>) {
        if let Some(reply) = reply {
            let bytes = reply.response.encoded_len();
            self.fetching.wait(bytes);
            self.outbox.push_back((bytes, reply));
        }
    }

    /// Replies to what neither gets nor settles.
    fn answer(&self, kind: Type, request: &QueuesDownstreamRequest) -> Outgoing {
        let id = &request.ref_transaction_id;
        let origin = Origin::of(request);
        match kind {
            Type::ActiveOffsets => match self.transactions.held(id) {
                Ok(held) => Outgoing::plain(QueuesDownstreamResponse {
                    active_offsets: held
                        .iter()
                        .map(|sequence| i64::try_from(sequence.0).unwrap_or(i64::MAX))
                        .collect(),
                    ..origin.reply()
                }),
                Err(refused) => origin.error(&refused),
            },
            Type::TransactionStatus => Outgoing::plain(QueuesDownstreamResponse {
                transaction_complete: self.transactions.is_complete(id),
                ..origin.reply()
            }),
            Type::ReQueueAll | Type::ReQueueRange => origin.error(&RequestError::NotServed {
                what: "requeueing messages to another queue",
            }),
            _ => origin.error(&RequestError::DownstreamType),
        }
    }
}
