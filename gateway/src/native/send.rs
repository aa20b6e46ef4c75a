//! Send: batches of records for queues.

use flotilla_broker::{Broker, BrokerError, Enqueue, Enqueued, Submitted};
use flotilla_model::command::QueuePolicy;
use flotilla_model::name::Kind;

use super::answer::Answer;
use super::context::Context;
use super::convert::{RepeatIds, name};
use super::error::RequestError;
use super::pipeline::{Batches, Label};
use super::protocol::{SendRequest, SendResponse};
use crate::access::Action;

/// Batches for queues.
pub struct Sends;

impl Batches for Sends {
    type Request = SendRequest;
    type Response = SendResponse;
    type Item = Enqueue;
    type Stored = Enqueued;
    type Pending = Submitted<Enqueued>;

    const IS_STORED: bool = true;

    fn label(request: &SendRequest) -> Label {
        Label::of(request.batch, request.ack, &request.records)
    }

    fn take(
        context: &Context,
        request: SendRequest,
        items: &mut Vec<Enqueue>,
    ) -> Result<Vec<(u32, RequestError)>, RequestError> {
        let queue = name(&request.namespace, Kind::Queue, &request.queue)?;
        let queue = context.allowed(Action::Write, queue)?;
        let policy = policy(context, &request)?;
        let mut ids = RepeatIds::of_records();
        let mut refused = Vec::new();
        items.reserve(request.records.len());
        for (place, record) in (0..).zip(request.records) {
            match ids.of(&record, place) {
                Ok(dedup) => items.push(Enqueue {
                    queue: queue.clone(),
                    message: context.message(record),
                    policy: policy.clone(),
                    dedup,
                }),
                Err(error) => refused.push((place, error)),
            }
        }
        Ok(refused)
    }

    async fn begin(broker: Broker, items: Vec<Enqueue>) -> Self::Pending {
        broker.begin_enqueue(items).await
    }

    fn refused(pending: &Self::Pending) -> Vec<(usize, BrokerError)> {
        pending.refused()
    }

    fn stored(answer: &mut Answer, place: u32, stored: &Enqueued) {
        if stored.duplicate {
            answer.duplicates.push(place);
        }
    }

    fn response(answer: Answer) -> Option<SendResponse> {
        Some(SendResponse {
            batch: answer.batch,
            ack: answer.ack,
            duplicates: answer.duplicates,
            errors: answer.errors,
            error: answer.error,
        })
    }
}

/// What a batch asks for all its records. Who has them moved elsewhere must be allowed to send there.
fn policy(context: &Context, request: &SendRequest) -> Result<QueuePolicy, RequestError> {
    let dead_letter = &request.dead_letter_queue;
    Ok(QueuePolicy {
        delay_ms: request.delay_ms,
        ttl_ms: (request.expires_after_ms > 0).then_some(request.expires_after_ms),
        receive_count_max: request.receives_max,
        dead_letter: if dead_letter.is_empty() {
            None
        } else {
            let queue = name(&request.namespace, Kind::Queue, dead_letter)?;
            Some(context.allowed(Action::Write, queue)?)
        },
    })
}
