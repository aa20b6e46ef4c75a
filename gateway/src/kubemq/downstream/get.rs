//! The gets of a downstream: waiting for messages while the stream goes on.

use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{Receive, Session};
use flotilla_model::ids::{LeaseId, Sequence};
use flotilla_model::name::Name;

use super::reply::Origin;
use crate::access::Action;
use crate::consumer::fetching::Fetching;
use crate::kubemq::context::Context;
use crate::kubemq::convert::queue_out;
use crate::kubemq::error::RequestError;
use crate::kubemq::protocol::{QueueMessage, QueuesDownstreamRequest};
use crate::kubemq::validate;

/// A checked get.
pub struct Get {
    pub origin: Origin,
    pub auto_ack: bool,
    receive: Receive,
}

/// What a get brought.
pub struct Got {
    pub origin: Origin,
    /// To be given back to [`Fetching`].
    pub granted: u64,
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
        fetching: &mut Fetching,
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
        Ok(Self {
            origin: Origin::of(request),
            auto_ack: request.auto_ack,
            receive: Receive {
                queue,
                messages_max,
                bytes_max: fetching.begin(response_bytes_max),
                wait: Duration::from_millis(wait_ms),
                fill: context.fill(),
                visibility: Some(context.config.downstream_hold_max),
            },
        })
    }

    /// Waits for the messages.
    pub async fn run(self, context: Arc<Context>, session: Arc<Session>) -> Got {
        let queue = self.receive.queue.clone();
        let granted = self.receive.bytes_max;
        let result = match session.receive(self.receive).await {
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
            granted,
            auto_ack: self.auto_ack,
            queue,
            result,
        }
    }
}
