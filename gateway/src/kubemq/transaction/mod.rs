//! StreamQueueMessage: transactions of the older clients, one stream for one message.
//!
//! ```text
//!   client -> inbox -> Transaction -+-> a receive that waits ------+-> outbox -> client
//!                                   +-> one thing done at a time --+
//! ```
//!
//! The stream ends by itself, and well, once its message is settled, none came, or its time is up: only
//! then can such a client receive again.

mod act;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;

use futures::{FutureExt, Stream};
use tokio::time::Instant;
use tonic::Status;

use self::state::{Act, Acted, Got, Next, Transaction};
use super::context::Context;
use super::error::RequestError;
use super::protocol::{
    StreamQueueMessagesRequest, StreamQueueMessagesResponse, StreamRequestType as Type,
};
use super::validate;
use crate::access::Action;
use crate::consumer::{self, Talk};
use crate::transport::inbound::BatchBounds;
use crate::transport::outgoing::Outgoing;

/// Answers the requests of one transaction.
pub fn stream<S>(
    context: Arc<Context>,
    requests: S,
) -> impl Stream<Item = Result<StreamQueueMessagesResponse, Status>> + Send
where
    S: Stream<Item = Result<StreamQueueMessagesRequest, Status>> + Send + Unpin + 'static,
{
    let session = context.broker.open_session();
    let lifecycle = Arc::clone(&context.lifecycle);
    let conversation = Conversation {
        context,
        transaction: Transaction::default(),
        inbox: VecDeque::new(),
        outbox: VecDeque::new(),
    };
    consumer::stream(conversation, session, lifecycle, requests)
}

struct Conversation {
    context: Arc<Context>,
    transaction: Transaction,
    /// Read, and not begun.
    inbox: VecDeque<StreamQueueMessagesRequest>,
    /// Answered, and not given to the transport.
    outbox: VecDeque<StreamQueueMessagesResponse>,
}

type Work = consumer::Work<Conversation>;

impl Talk for Conversation {
    type Request = StreamQueueMessagesRequest;
    type Response = StreamQueueMessagesResponse;
    type Fetched = Got;
    type Settled = Acted;
    type Error = RequestError;

    /// Requests may hold a message each: more are read when those before are begun.
    fn room(&self, _: &Work) -> Option<BatchBounds> {
        let bounds = self.context.batch_bounds();
        let has_room = self.inbox.is_empty() && self.outbox.len() < bounds.count_max;
        has_room.then_some(bounds)
    }

    fn room_at_end(&self) -> BatchBounds {
        self.context.batch_bounds()
    }

    fn take(&mut self, mut requests: Vec<StreamQueueMessagesRequest>) {
        for request in &mut requests {
            self.context.bind_client(&mut request.client_id);
            if let Some(message) = &mut request.modified_message {
                self.context.bind_client(&mut message.client_id);
            }
        }
        self.inbox.extend(requests);
    }

    fn begin(&mut self, work: &mut Work) {
        while self.is_open()
            && let Some(request) = self.inbox.pop_front()
        {
            self.begin_request(work, request);
        }
    }

    fn settle_rest(&mut self, work: &mut Work) {
        while self.is_open()
            && let Some(request) = self.inbox.pop_front()
        {
            if request.stream_request_type_data != Type::ReceiveMessage as i32 {
                self.begin_request(work, request);
            }
        }
    }

    fn fetched(&mut self, _: &mut Work, got: Got) {
        let answer = self.transaction.received(got);
        self.outbox.push_back(answer);
    }

    fn settled(&mut self, _: &mut Work, acted: Acted) {
        let answer = self.transaction.acted(acted);
        self.outbox.push_back(answer);
    }

    fn has_answer(&self) -> bool {
        !self.outbox.is_empty()
    }

    fn next_answer(&mut self, _: &mut Work) -> Option<Outgoing<StreamQueueMessagesResponse>> {
        self.outbox.pop_front().map(Outgoing::plain)
    }

    fn is_idle(&self) -> bool {
        self.inbox.is_empty()
    }

    fn is_over(&self) -> bool {
        self.transaction.is_over()
    }

    fn deadline(&self) -> Option<Instant> {
        self.transaction.deadline()
    }

    fn time_is_up(&mut self, work: &mut Work) {
        if let Some((origin, held)) = self.transaction.expire() {
            let context = Arc::clone(&self.context);
            work.settle(act::act(context, work.session(), origin, held, Act::Expire).boxed());
        }
    }
}

impl Conversation {
    /// Whether a request can begin.
    fn is_open(&self) -> bool {
        !self.transaction.is_busy() && !self.transaction.is_over()
    }

    /// Whether the client may do this to the queue it names. A name that is none is refused later; whether a
    /// modified message may be sent is found out when it is.
    fn check_access(&self, request: &StreamQueueMessagesRequest) -> Result<(), RequestError> {
        let action = match Type::try_from(request.stream_request_type_data) {
            Ok(Type::ReceiveMessage) => Action::Read,
            Ok(Type::ResendMessage) => Action::Write,
            _ => return Ok(()),
        };
        match validate::queue_name(&request.channel) {
            Ok(queue) => {
                let allowed = self.context.allowed(&request.client_id, action, queue);
                allowed.map(drop)
            }
            Err(_) => Ok(()),
        }
    }

    fn begin_request(&mut self, work: &mut Work, request: StreamQueueMessagesRequest) {
        if let Err(refused) = self.check_access(&request) {
            let answer = self.transaction.refuse(&request, &refused);
            self.outbox.push_back(answer);
            return;
        }
        let (context, session) = (Arc::clone(&self.context), work.session());
        match self
            .transaction
            .request(request, &self.context.config.limits)
        {
            Next::Tell(answer) => self.outbox.push_back(*answer),
            Next::Receive(origin, wanted) => {
                work.fetch(act::receive(context, session, origin, wanted).boxed());
            }
            Next::Act(origin, held, what) => {
                work.settle(act::act(context, session, origin, held, what).boxed());
            }
        }
    }
}
