//! Putting messages into queues: the work that the unary sends and the upstream share.

use flotilla_broker::Enqueue;
use flotilla_model::command::QueuePolicy;
use flotilla_model::name::Name;
use tonic::Status;

use super::context::Context;
use super::convert::{id_or_new, nanoseconds, policy_in, queue_content, sent_times};
use super::error::RequestError;
use super::protocol::{
    QueueMessage, QueueMessagePolicy, QueueMessagesBatchRequest, QueueMessagesBatchResponse,
    SendQueueMessageResult,
};
use super::slices::in_slices;
use super::validate;
use crate::access::Action;

/// What became of one message.
pub struct Sent {
    pub result: SendQueueMessageResult,
    /// Why the result says that it failed.
    pub failure: Option<RequestError>,
}

/// Sends one message. A failure that calls for another try fails the call, for the client to notice.
pub async fn send(
    context: &Context,
    message: QueueMessage,
) -> Result<SendQueueMessageResult, Status> {
    let mut sent = send_all(context, vec![message]).await;
    match sent.pop() {
        Some(Sent {
            failure: Some(failure),
            ..
        }) if failure.is_unavailable() => Err(failure.status()),
        Some(sent) => Ok(sent.result),
        None => Err(Status::internal("the message has no result")),
    }
}

/// Sends a batch: each message succeeds or fails alone.
pub async fn send_batch(
    context: &Context,
    request: QueueMessagesBatchRequest,
) -> Result<QueueMessagesBatchResponse, Status> {
    if request.messages.is_empty() {
        return Err(RequestError::BatchEmpty.status());
    }
    validate::id("batch id", &request.batch_id)?;
    batch_length(context, request.messages.len())?;
    let sent = send_all(context, request.messages).await;
    if let Some(failure) = unavailable_for_all(&sent) {
        return Err(failure.status());
    }
    Ok(QueueMessagesBatchResponse {
        batch_id: id_or_new(request.batch_id),
        have_errors: sent.iter().any(|one| one.failure.is_some()),
        results: sent.into_iter().map(|one| one.result).collect(),
    })
}

/// Refuses a batch with too many messages.
pub fn batch_length(context: &Context, messages: usize) -> Result<(), RequestError> {
    let allowed = context.config.batch_messages_max;
    if messages > allowed {
        return Err(RequestError::BatchTooLong { messages, allowed });
    }
    Ok(())
}

/// The failure of a whole batch that nothing in it caused, if it was one.
fn unavailable_for_all(sent: &[Sent]) -> Option<&RequestError> {
    let failure = sent.first()?.failure.as_ref()?;
    let is_for_all = sent.iter().all(|one| {
        one.failure
            .as_ref()
            .is_some_and(RequestError::is_unavailable)
    });
    is_for_all.then_some(failure)
}

/// Where a message goes, and how it is kept there. Who has it moved elsewhere must be allowed to send there.
fn prepare(context: &Context, message: &QueueMessage) -> Result<(Name, QueuePolicy), RequestError> {
    let queue = validate::queue_message(message, &context.config.limits)?;
    let client = &message.client_id;
    let queue = context.allowed(client, Action::Write, queue)?;
    let policy = policy_in(message.policy.as_ref())?;
    if let Some(dead_letter) = &policy.dead_letter {
        context.allowed(client, Action::Write, dead_letter.clone())?;
    }
    Ok((queue, policy))
}

/// Sends messages, to any queues, in order.
pub async fn send_all(context: &Context, messages: Vec<QueueMessage>) -> Vec<Sent> {
    let mut sent = Vec::with_capacity(messages.len());
    let mut enqueues = Vec::with_capacity(messages.len());
    let mut places: Vec<(usize, Option<QueueMessagePolicy>)> = Vec::with_capacity(messages.len());
    for (place, mut message) in messages.into_iter().enumerate() {
        message.message_id = id_or_new(message.message_id);
        let message_id = message.message_id.clone();
        let prepared = prepare(context, &message);
        let failure = match prepared {
            Ok((queue, policy)) => {
                places.push((place, message.policy.take()));
                enqueues.push(Enqueue {
                    queue,
                    message: queue_content(message),
                    policy,
                    // Ids of this protocol are not unique: they tell no repeat from a new message.
                    dedup: None,
                });
                None
            }
            Err(refused) => Some(refused),
        };
        sent.push(Sent {
            result: SendQueueMessageResult {
                message_id,
                ..SendQueueMessageResult::default()
            },
            failure,
        });
    }
    if !enqueues.is_empty() {
        let begin = |slice| context.broker.begin_enqueue(slice);
        let outcomes = in_slices(enqueues, context.broker.batch_items_max(), begin).await;
        for ((place, policy), outcome) in places.into_iter().zip(outcomes) {
            let Sent { result, failure } = &mut sent[place];
            match outcome {
                Ok(enqueued) => {
                    result.sent_at = nanoseconds(enqueued.at);
                    (result.delayed_to, result.expiration_at) =
                        sent_times(enqueued.at, policy.as_ref());
                }
                Err(error) => *failure = Some(error.into()),
            }
        }
    }
    for Sent { result, failure } in &mut sent {
        if let Some(failure) = failure {
            result.is_error = true;
            result.error = failure.to_string();
        }
    }
    sent
}

#[cfg(test)]
mod tests {
    use flotilla_broker::BrokerError;

    use super::*;

    fn sent(failure: Option<RequestError>) -> Sent {
        Sent {
            result: SendQueueMessageResult::default(),
            failure,
        }
    }

    #[test]
    fn a_batch_fails_as_a_whole_only_if_all_of_it_was_unavailable() {
        let lost = || sent(Some(RequestError::from(BrokerError::OutcomeUnknown)));
        assert!(unavailable_for_all(&[lost(), lost()]).is_some());
        assert!(unavailable_for_all(&[lost(), sent(None)]).is_none());
        assert!(unavailable_for_all(&[lost(), sent(Some(RequestError::QueueName))]).is_none());
        assert!(unavailable_for_all(&[]).is_none());
    }
}
