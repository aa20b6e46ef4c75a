//! QueuesDownstream: one stream on which a client gets messages and settles them.
//!
//! ```text
//!   client -> inbox -+-> gets (waiting, any number) --+-> outbox -> client
//!                    +-> settlements, all under way --+   (room for each in-flight
//!                    +-> questions -------------------+    request: bounded)
//!                             |  ^
//!                             v  | of what another stream holds: holders
//! ```
//!
//! Requests begin in the order they came in. A settlement does not wait for the gets before it;
//! everything else waits for the settlements before it, so that a get sees what was given back. Gets are
//! refused while the client leaves too much untaken: settlements behind them must be made all the same. Those
//! that wait already bring nothing meanwhile.

mod get;
mod holders;
mod reply;
mod settle;
mod transactions;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use futures::{FutureExt, Stream};
use prost::Message;
use tonic::Status;

pub use self::holders::Holders;

use self::get::{Batch, Get, Got};
use self::holders::{Asked, Asker, Desk, Holder, Replies};
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
        desk: Desk::new(Arc::clone(&context.holders), context.caller.clone()),
        context,
    };
    consumer::stream(downstream, session, lifecycle, requests)
}

struct Downstream {
    context: Arc<Context>,
    transactions: Transactions,
    /// Read, but not begun; with the time when it was.
    inbox: VecDeque<(Instant, QueuesDownstreamRequest)>,
    /// Answered, but not yet given to the transport; with the bytes.
    outbox: VecDeque<(usize, Outgoing)>,
    fetching: Fetching,
    desk: Desk,
}

/// How a settlement ended, or what was asked of another stream.
enum Over {
    /// Of a transaction of this stream.
    Own(Done),
    /// The same, for another stream.
    ForOther(Done, Asker),
    /// What the stream says that was asked.
    Told(Replies),
}

type Work = consumer::Work<Downstream>;

impl Talk for Downstream {
    type Request = QueuesDownstreamRequest;
    type Response = QueuesDownstreamResponse;
    type Fetched = Got;
    type Settled = Over;
    type Error = RequestError;

    /// Each request under way can become a reply that waits.
    fn room(&self, work: &Work) -> Option<BatchBounds> {
        let bounds = self.context.batch_bounds();
        let under_way = self.inbox.len() + self.outbox.len() + self.own_settlements(work);
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
        let now = Instant::now();
        self.inbox
            .extend(requests.into_iter().map(|one| (now, one)));
    }

    /// Begins what can begin now, in the order it came.
    fn begin(&mut self, work: &mut Work) {
        if let Some(asked) = self.desk.next() {
            self.begin_for_other(work, asked);
        }
        while let Some((_, request)) = self.inbox.front() {
            let kind = kind_of(request);
            let how = How::of(kind);
            if how.is_none() && self.own_settlements(work) > 0 {
                return;
            }
            let Some((arrived, request)) = self.inbox.pop_front() else {
                return;
            };
            if let Err(refused) = validate::downstream_ids(&request) {
                self.tell(Some(Origin::of(&request).error(&refused)));
                continue;
            }
            match (how, kind) {
                (Some(how), _) => self.begin_settlement(work, how, request),
                (None, Type::Get) => self.begin_get(work, &request, arrived),
                (None, kind) => self.begin_question(work, kind, request),
            }
        }
    }

    fn settle_rest(&mut self, work: &mut Work) {
        for asked in self.desk.rest() {
            self.begin_for_other(work, asked);
        }
        for (_, request) in std::mem::take(&mut self.inbox) {
            if let Some(how) = How::of(kind_of(&request))
                && validate::downstream_ids(&request).is_ok()
            {
                self.begin_settlement(work, how, request);
            }
        }
    }

    /// Makes a get's messages a transaction, and a response.
    fn fetched(&mut self, work: &mut Work, got: Got) {
        // What it brought is counted again with the answer.
        drop(got.grant);
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
            let listed = self.desk.list(&id, got.client_id);
            self.transactions
                .open(id, got.queue, lease, sequences, listed);
        }
        self.tell(Some(Outgoing {
            response: QueuesDownstreamResponse {
                messages,
                ..origin.reply()
            },
            written,
        }));
    }

    fn settled(&mut self, _: &mut Work, over: Over) {
        match over {
            Over::Own(done) => {
                let reply = settle::finish(&mut self.transactions, &done);
                self.tell(reply);
            }
            Over::ForOther(done, mut asker) => {
                self.desk.end();
                asker.tell(settle::finish(&mut self.transactions, &done));
                asker.done();
            }
            Over::Told(replies) => {
                for reply in replies {
                    self.tell(Some(Outgoing::plain(reply)));
                }
            }
        }
    }

    fn settled_at_end(over: Over) {
        if let Over::ForOther(done, mut asker) = over {
            asker.tell(done.reply());
            asker.done();
        }
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

    async fn hear(&mut self) {
        self.desk.hear().await;
    }
}

impl Downstream {
    fn begin_settlement(&mut self, work: &mut Work, how: How, request: QueuesDownstreamRequest) {
        // What is moved is sent: whoever took it out must be allowed to do that there.
        let target = how.target(&request).map_or(Ok(()), |to| {
            let allowed = self.context.allowed(&request.client_id, Action::Write, to);
            allowed.map(drop)
        });
        if let Err(refused) = target {
            self.tell(Some(Origin::of(&request).error(&refused)));
            return;
        }
        if how.settlement(&request).is_ok()
            && let Some(holder) = self.other_holder(&request)
        {
            let unknown = Origin::of(&request).error(&RequestError::TransactionUnknown);
            self.ask(work, holder, request, unknown);
            return;
        }
        let (settlings, reply) = settle::begin(&mut self.transactions, how, &request);
        self.tell(reply);
        for settling in settlings {
            work.settle(settling.run(work.session()).map(Over::Own).boxed());
        }
    }

    /// Carries out what another stream was asked of a transaction of this one.
    fn begin_for_other(&mut self, work: &mut Work, asked: Asked) {
        let Asked { request, mut asker } = asked;
        let kind = kind_of(&request);
        let Some(how) = How::of(kind) else {
            asker.tell(Some(self.answer(kind, &request)));
            asker.done();
            return;
        };
        let (mut settlings, refused) = settle::begin(&mut self.transactions, how, &request);
        asker.tell(refused);
        // One at most: what is asked here names its transaction.
        let Some(settling) = settlings.pop() else {
            asker.done();
            return;
        };
        self.desk.begin();
        let settled = settling.run(work.session());
        work.settle(settled.map(|done| Over::ForOther(done, asker)).boxed());
    }

    /// Answers what neither gets nor settles.
    fn begin_question(&mut self, work: &mut Work, kind: Type, request: QueuesDownstreamRequest) {
        let reply = self.answer(kind, &request);
        let is_of_transaction = matches!(kind, Type::ActiveOffsets | Type::TransactionStatus);
        let holder = is_of_transaction.then(|| self.other_holder(&request));
        match holder.flatten() {
            Some(holder) => self.ask(work, holder, request, reply),
            None => self.tell(Some(reply)),
        }
    }

    /// The stream that holds the transaction of a request, if it is another one of the same client.
    fn other_holder(&self, request: &QueuesDownstreamRequest) -> Option<Arc<Holder>> {
        let id = &request.ref_transaction_id;
        if id.is_empty() || self.transactions.knows(id) {
            return None;
        }
        self.desk.find(id, &request.client_id)
    }

    /// Has another stream do what is asked for; if that is gone by then, this is what to tell.
    fn ask(
        &self,
        work: &mut Work,
        holder: Arc<Holder>,
        request: QueuesDownstreamRequest,
        if_gone: Outgoing,
    ) {
        let messages_max = self.context.config.limits.receive_messages_max as usize;
        let asking = async move {
            let replies = holder.ask(request, messages_max).await;
            Over::Told(replies.unwrap_or_else(|| vec![if_gone.response]))
        };
        work.settle(asking.boxed());
    }

    /// Settlements under way for this stream's own client. It does not wait for those of other streams,
    /// which come without an end.
    fn own_settlements(&self, work: &Work) -> usize {
        work.settlements().saturating_sub(self.desk.under_way())
    }

    fn begin_get(&mut self, work: &mut Work, request: &QueuesDownstreamRequest, arrived: Instant) {
        let allowed = self.context.config.transactions_per_stream_max;
        let get = if self.transactions.len() + work.fetches() >= allowed {
            Err(RequestError::TransactionsMax { allowed })
        } else if self.fetching.is_full() {
            Err(RequestError::Untaken)
        } else {
            Get::new(&self.context, request, arrived, &self.fetching)
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

    /// What this stream says to what neither gets nor settles.
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

fn kind_of(request: &QueuesDownstreamRequest) -> Type {
    Type::try_from(request.request_type_data).unwrap_or(Type::PollRequestTypeUnknown)
}

#[cfg(test)]
mod two_streams_test;
