//! The gets of a downstream: waiting for messages while the stream goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_broker::{Receive, Session};
use flotilla_model::ids::{LeaseId, Sequence};
use flotilla_model::name::Name;

use super::reply::Origin;
use crate::access::Action;
use crate::consumer::fetching::{Fetching, Grant};
use crate::kubemq::context::Context;
use crate::kubemq::convert::queue_out;
use crate::kubemq::error::RequestError;
use crate::kubemq::protocol::{QueueMessage, QueuesDownstreamRequest};
use crate::kubemq::validate;

/// How long after its wait time a get may still bring messages.
///
/// The clients that are in a hurry, the blocking ones of Python, give up half a second after the wait time,
/// and then pass over what comes: it would stay held for as long as they live, or be lost if it acknowledges
/// itself. What is left of that is for the ways of the request and the answer. Few milliseconds are needed
/// for what there is when the wait time is over, but on a machine that is too busy, or while a shard has no
/// leader.
const LATE_MAX: Duration = Duration::from_millis(300);

/// A checked get.
pub struct Get {
    pub origin: Origin,
    client_id: String,
    pub auto_ack: bool,
    /// When the request was read: since then its client waits.
    arrived: Instant,
    grant: Grant,
    receive: Receive,
}

/// What a get brought.
pub struct Got {
    pub origin: Origin,
    /// Whose messages they are now.
    pub client_id: String,
    /// Counts what was brought until the answer does.
    pub grant: Grant,
    pub auto_ack: bool,
    pub queue: Name,
    pub result: Result<Batch, RequestError>,
}

/// Leased messages, ready for the client.
pub struct Batch {
    pub lease: LeaseId,
    pub sequences: Vec<Sequence>,
    pub messages: Vec<QueueMessage>,
}

impl Get {
    /// Checks a request.
    pub fn new(
        context: &Context,
        request: &QueuesDownstreamRequest,
        arrived: Instant,
        fetching: &Fetching,
    ) -> Result<Self, RequestError> {
        let queue = validate::downstream_get(request, &context.config.limits)?;
        let queue = context.allowed(&request.client_id, Action::Read, queue)?;
        let all = context.config.limits.receive_messages_max;
        let wanted = match u32::try_from(request.max_items) {
            Ok(items) if items > 0 => items.min(all),
            _ => all,
        };
        let (messages_max, response_bytes_max) = context.response_bounds(queue.text(), wanted);
        let wait_ms = u64::try_from(request.wait_timeout).unwrap_or(0);
        let wait = Duration::from_millis(wait_ms);
        let grant = fetching.begin(response_bytes_max);
        Ok(Self {
            origin: Origin::of(request),
            client_id: request.client_id.clone(),
            auto_ack: request.auto_ack,
            arrived,
            receive: Receive {
                queue,
                messages_max,
                bytes_max: grant.bytes(),
                wait,
                fill: context.fill(),
                visibility: Some(context.config.downstream_hold_max),
                answer_within: Some(wait + LATE_MAX),
            },
            grant,
        })
    }

    /// Waits for the messages.
    pub async fn run(mut self, context: Arc<Context>, session: Arc<Session>) -> Got {
        let queue = self.receive.queue.clone();
        let receive = self.receive.after(self.arrived.elapsed());
        let result = match self.grant.receive(&session, receive).await {
            Ok(received) => Ok(Batch {
                lease: received.lease,
                sequences: received.messages.iter().map(|one| one.sequence).collect(),
                messages: queue_out(
                    &queue,
                    received.messages,
                    context.config.limits.receive_count_max,
                )
                .await,
            }),
            Err(error) => Err(error.into()),
        };
        Got {
            origin: self.origin,
            client_id: self.client_id,
            grant: self.grant,
            auto_ack: self.auto_ack,
            queue,
            result,
        }
    }
}
