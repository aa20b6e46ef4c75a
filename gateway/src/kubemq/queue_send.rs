//! Putting messages into queues: the work that the unary sends and the upstream share.

use flotilla_model::command::QueuePolicy;
use flotilla_model::name::Kind;
use tonic::Status;

use super::context::Context;
use super::convert::{id_or_new, nanoseconds, now_ns, policy_in, queue_content, sent_times};
use super::dispatch::{Dispatch, Fate, Targets};
use super::error::RequestError;
use super::protocol::{
    QueueMessage, QueueMessagePolicy, QueueMessagesBatchRequest, QueueMessagesBatchResponse,
    SendQueueMessageResult,
};
use super::{routing, validate};
use crate::access::Action;

/// What became of one message.
pub struct Sent {
    pub result: SendQueueMessageResult,
    /// The message was wrong, and went nowhere.
    pub is_refused: bool,
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

/// Sends messages, to any queues, in order.
pub async fn send_all(context: &Context, messages: Vec<QueueMessage>) -> Vec<Sent> {
    let mut dispatch = Dispatch::new(context, messages.len());
    let mut asked: Vec<(String, Option<QueueMessagePolicy>)> = Vec::with_capacity(messages.len());
    for mut message in messages {
        context.bind_client(&mut message.client_id);
        message.message_id = id_or_new(message.message_id);
        let prepared = prepare(context, &message);
        asked.push((message.message_id.clone(), message.policy.take()));
        match prepared {
            Ok((targets, policy)) => {
                dispatch.send(targets, queue_content(message), policy).await;
            }
            Err(refused) => dispatch.refuse(refused),
        }
    }
    let fates = dispatch.finish().await;
    let sent = asked.into_iter().zip(fates);
    sent.map(|((message_id, policy), fate)| told(message_id, policy.as_ref(), fate))
        .collect()
}

/// Where a message goes and under which policy, if it may. Who has it moved elsewhere must be allowed to send
/// there.
fn prepare(
    context: &Context,
    message: &QueueMessage,
) -> Result<(Targets, QueuePolicy), RequestError> {
    let limits = &context.config.limits;
    let targets = if routing::is_list(&message.channel) {
        validate::client_id(&message.client_id)?;
        let targets = context.targets(&message.channel, Kind::Queue)?;
        validate::queue_content(message, limits)?;
        Targets::Several(targets)
    } else {
        Targets::One(validate::queue_message(message, limits)?)
    };
    let client = &message.client_id;
    let targets = context.allowed_targets(client, targets)?;
    let policy = policy_in(message.policy.as_ref())?;
    if let Some(dead_letter) = &policy.dead_letter {
        context.allowed(client, Action::Write, dead_letter.clone())?;
    }
    Ok((targets, policy))
}

/// What a client is told of its message.
fn told(message_id: String, policy: Option<&QueueMessagePolicy>, fate: Fate) -> Sent {
    let mut result = SendQueueMessageResult {
        message_id,
        ..SendQueueMessageResult::default()
    };
    let (queued, stored, is_refused) = (fate.queued, fate.stored, fate.is_refused);
    let failure = fate.into_failure();
    if let Some(failure) = &failure {
        result.is_error = true;
        result.error = failure.to_string();
    } else if let Some(at) = queued {
        result.sent_at = nanoseconds(at);
        (result.delayed_to, result.expiration_at) = sent_times(at, policy);
    } else {
        // No queue is among its targets, or nothing at all that stores it.
        result.sent_at = stored.map_or_else(now_ns, nanoseconds);
    }
    Sent {
        result,
        is_refused,
        failure,
    }
}

#[cfg(test)]
mod tests {
    use flotilla_broker::BrokerError;

    use super::*;

    fn sent(failure: Option<RequestError>) -> Sent {
        Sent {
            result: SendQueueMessageResult::default(),
            is_refused: false,
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
