//! QueuesDownstream: one stream on which a client gets messages and settles them.
//!
//! ```text
//!   client -> inbox -+-> gets (waiting, any number) --+-> outbox -> client
//!                    +-> settlements, all under way --+   (room for each in-flight
//!                    +-> questions -------------------+    request: bounded)
//! ```
//!
//! Requests begin in the order they came in. A settlement does not wait for the gets before it;
//! everything else waits for the settlements before it, so that a get sees what was given back. Gets are
//! refused while the client leaves too much untaken: settlements behind them must be made all the same.

mod get;
mod reply;
mod settle;
mod transactions;

use std::collections::VecDeque;
use std::sync::Arc;

use futures::{FutureExt, Stream};
use prost::Message;
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
use crate::access::Action;
use crate::consumer::fetching::Fetching;
use crate::consumer::{self, Talk};
use crate::transport::inbound::BatchBounds;

/// Answers a downstream.
pub fn stream<S>(
    context: Arc<Context>,
    requests: S,
) -> impl Stream<Item = Result<QueuesDownstreamResponse, Status>> + Send
where
    S: Stream<Item = Result<QueuesDownstreamRequest, Status>> + Send + Unpin + 'static,
{
    let session = context.broker.open_session();
    let lifecycle = Arc::clone(&context.lifecycle);
    let downstream = Downstream {
        transactions: Transactions::default(),
        inbox: VecDeque::new(),
        outbox: VecDeque::new(),
        fetching: Fetching::new(context.config.downstream_bytes_max as u64),
        context,
    };
    consumer::stream(downstream, session, lifecycle, requests)
}

struct Downstream {
    context: Arc<Context>,
    transactions: Transactions,
    /// Read, but not begun.
    inbox: VecDeque<QueuesDownstreamRequest>,
    /// Answered, but not yet given to the transport; with the bytes.
    outbox: VecDeque<(usize, Outgoing)>,
    fetching: Fetching,
}

type Work = consumer::Work<Downstream>;

impl Talk for Downstream {
    type Request = QueuesDownstreamRequest;
    type Response = QueuesDownstreamResponse;
    type Fetched = Got;
    type Settled = Done;
    type Error = RequestError;

    /// Each request under way can become a reply that waits.
    fn room(&self, work: &Work) -> Option<BatchBounds> {
        let bounds = self.context.batch_bounds();
        let under_way = self.inbox.len() + self.outbox.len() + work.settlements();
        let count_max = bounds.count_max.saturating_sub(under_way);
        (count_max > 0).then_some(BatchBounds {
            count_max,
            ..bounds
        })
    }

    fn room_at_end(&self) -> BatchBounds {
        self.context.batch_bounds()
    }

    fn take(&mut self, mut requests: Vec<QueuesDownstreamRequest>) {
        for request in &mut requests {
            self.context.bind_client(&mut request.client_id);
        }
        self.inbox.extend(requests);
    }

    /// Begins what can begin now, in the order it came.
    fn begin(&mut self, work: &mut Work) {
        while let Some(request) = self.inbox.front() {
            let kind =
                Type::try_from(request.request_type_data).unwrap_or(Type::PollRequestTypeUnknown);
            let how = How::of(kind);
            if how.is_none() && work.settlements() > 0 {
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
                (Some(how), _) => self.begin_settlement(work, how, &request),
                (None, Type::Get) => self.begin_get(work, &request),
                (None, kind) => {
                    let reply = self.answer(kind, &request);
                    self.tell(Some(reply));
                }
            }
        }
    }

    fn settle_rest(&mut self, work: &mut Work) {
        for request in std::mem::take(&mut self.inbox) {
            let kind = Type::try_from(request.request_type_data);
            if let Some(how) = kind.ok().and_then(How::of)
                && validate::downstream_ids(&request).is_ok()
            {
                self.begin_settlement(work, how, &request);
            }
        }
    }

    /// Makes a get's messages a transaction, and a response.
    fn fetched(&mut self, work: &mut Work, got: Got) {
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
            written = Some(work.settle_when_written(got.queue, lease));
            self.transactions.remember_closed(id);
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

    fn settled(&mut self, _: &mut Work, done: Done) {
        let reply = settle::finish(&mut self.transactions, done);
        self.tell(reply);
    }

    fn has_answer(&self) -> bool {
        !self.outbox.is_empty()
    }

    fn next_answer(&mut self, _: &mut Work) -> Option<Outgoing> {
        let (bytes, next) = self.outbox.pop_front()?;
        self.fetching.take(bytes);
        Some(next)
    }

    fn is_idle(&self) -> bool {
        self.inbox.is_empty()
    }
}

impl Downstream {
    fn begin_settlement(&mut self, work: &mut Work, how: How, request: &QueuesDownstreamRequest) {
        // What is moved is sent: whoever took it out must be allowed to do that there.
        let target = how.target(request).map_or(Ok(()), |to| {
            let allowed = self.context.allowed(&request.client_id, Action::Write, to);
            allowed.map(drop)
        });
        if let Err(refused) = target {
            self.tell(Some(Origin::of(request).error(&refused)));
            return;
        }
        let (settlings, reply) = settle::begin(&mut self.transactions, how, request);
        self.tell(reply);
        for settling in settlings {
            work.settle(settling.run(work.session()).boxed());
        }
    }

    fn begin_get(&mut self, work: &mut Work, request: &QueuesDownstreamRequest) {
        let allowed = self.context.config.transactions_per_stream_max;
        let get = if self.transactions.len() + work.fetches() >= allowed {
            Err(RequestError::TransactionsMax { allowed })
        } else if self.fetching.is_full() {
            Err(RequestError::Untaken)
        } else {
            Get::new(&self.context, request, &mut self.fetching)
        };
        match get {
            Ok(get) => {
                let context = Arc::clone(&self.context);
                work.fetch(get.run(context, work.session()).boxed());
            }
            Err(refused) => self.tell(Some(Origin::of(request).error(&refused))),
        }
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
            _ => origin.error(&RequestError::DownstreamType),
        }
    }
}
