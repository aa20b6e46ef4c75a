//! The unary queue reads: receive, peek, and emptying a queue.

use std::sync::Arc;

use flotilla_broker::{BrokerError, Receive};
use flotilla_model::command::{Selection, Settlement};
use flotilla_model::name::Name;
use tonic::{Response, Status};
use tracing::warn;

use super::context::Context;
use super::convert::{id_or_new, queue_out};
use super::error::RequestError;
use super::protocol::{
    AckAllQueueMessagesRequest, AckAllQueueMessagesResponse, QueueMessage,
    ReceiveQueueMessagesRequest, ReceiveQueueMessagesResponse,
};
use super::validate;
use crate::access::Action;
use crate::transport::gate::Written;

/// Takes messages, or copies of them, waiting for them if need be.
pub async fn receive(
    context: Arc<Context>,
    mut request: ReceiveQueueMessagesRequest,
) -> Result<Response<ReceiveQueueMessagesResponse>, Status> {
    context.bind_client(&mut request.client_id);
    let queue = validate::receive(&request, &context.config.limits)
        .and_then(|queue| context.allowed(&request.client_id, Action::Read, queue));
    let taken = match queue {
        Ok(queue) if request.is_peak => peek(&context, queue, &request).await,
        Ok(queue) => take(&context, queue, &request).await,
        Err(refused) => Err(refused),
    };
    let answer = ReceiveQueueMessagesResponse {
        request_id: id_or_new(request.request_id),
        is_peak: request.is_peak,
        ..ReceiveQueueMessagesResponse::default()
    };
    match taken {
        Ok(taken) => {
            let mut response = Response::new(ReceiveQueueMessagesResponse {
                messages_received: i32::try_from(taken.messages.len()).unwrap_or(i32::MAX),
                messages_expired: i32::try_from(taken.expired).unwrap_or(i32::MAX),
                messages: taken.messages,
                ..answer
            });
            if let Some(written) = taken.written {
                response.extensions_mut().insert(written);
            }
            Ok(response)
        }
        Err(failure) if failure.fails_call() => Err(failure.status()),
        Err(failure) => Ok(Response::new(ReceiveQueueMessagesResponse {
            is_error: true,
            error: failure.to_string(),
            ..answer
        })),
    }
}

struct Taken {
    messages: Vec<QueueMessage>,
    expired: u64,
    /// Removes the messages from their queue.
    written: Option<Written>,
}

/// Leases messages for the length of the call, and removes them once the answer was written.
async fn take(
    context: &Arc<Context>,
    queue: Name,
    request: &ReceiveQueueMessagesRequest,
) -> Result<Taken, RequestError> {
    let (messages_max, bytes_max) = context.response_bounds(queue.text(), wanted(request));
    // A session of its own: whatever becomes of the call, its end gives the messages back.
    let session = context.broker.open_session();
    let received = context
        .until_ending(session.receive(Receive {
            queue: queue.clone(),
            messages_max,
            bytes_max,
            wait: context.config.limits.wait(request.wait_time_seconds),
            fill: context.fill(),
            visibility: None,
            // A client that gives up ends the call, and with it what was leased for it.
            answer_within: None,
        }))
        .await??;
    let lease = received.lease;
    let written = (!received.messages.is_empty()).then(|| {
        let (context, queue) = (Arc::clone(context), queue.clone());
        Written::then(move || {
            let lifecycle = Arc::clone(&context.lifecycle);
            lifecycle.spawn(async move {
                let settled = session
                    .settle(&queue, lease, Selection::All, Settlement::Ack)
                    .await;
                if let Err(error) = settled {
                    warn!(%queue, %lease, %error, "received messages could not be removed and may come again");
                }
                session.end().await;
            });
        })
    });
    Ok(Taken {
        messages: queue_out(
            &queue,
            received.messages,
            context.config.limits.receive_count_max,
        )
        .await,
        expired: received.expired,
        written,
    })
}

async fn peek(
    context: &Context,
    queue: Name,
    request: &ReceiveQueueMessagesRequest,
) -> Result<Taken, RequestError> {
    let (messages_max, bytes_max) = context.response_bounds(queue.text(), wanted(request));
    let peeking = context.broker.peek(
        queue.clone(),
        messages_max,
        bytes_max,
        context.config.limits.wait(request.wait_time_seconds),
    );
    let peeked = match context.until_ending(peeking).await? {
        // A queue that nobody has used yet has no messages; that is no error.
        Err(BrokerError::NotFound { .. }) => Vec::new(),
        peeked => peeked?,
    };
    Ok(Taken {
        messages: queue_out(&queue, peeked, context.config.limits.receive_count_max).await,
        expired: 0,
        written: None,
    })
}

fn wanted(request: &ReceiveQueueMessagesRequest) -> u32 {
    u32::try_from(request.max_number_of_messages).unwrap_or(1)
}

/// Removes all available messages of a queue, at once: there is nothing to wait for.
pub async fn ack_all(
    context: &Context,
    mut request: AckAllQueueMessagesRequest,
) -> Result<AckAllQueueMessagesResponse, Status> {
    context.bind_client(&mut request.client_id);
    let queue = validate::ack_all(&request, &context.config.limits)
        .and_then(|queue| context.allowed(&request.client_id, Action::Read, queue));
    let purged = match queue {
        Ok(queue) => match context.broker.purge(queue).await {
            Err(BrokerError::NotFound { .. }) => Ok(0),
            purged => purged.map_err(RequestError::from),
        },
        Err(refused) => Err(refused),
    };
    let answer = AckAllQueueMessagesResponse {
        request_id: id_or_new(request.request_id),
        ..AckAllQueueMessagesResponse::default()
    };
    match purged {
        Ok(affected_messages) => Ok(AckAllQueueMessagesResponse {
            affected_messages,
            ..answer
        }),
        Err(failure) if failure.fails_call() => Err(failure.status()),
        Err(failure) => Ok(AckAllQueueMessagesResponse {
            is_error: true,
            error: failure.to_string(),
            ..answer
        }),
    }
}
