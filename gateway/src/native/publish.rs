//! Publish: batches of records for topics.

use flotilla_broker::{Broker, BrokerError, Publish, Published, Submitted};
use flotilla_model::name::Kind;

use super::answer::Answer;
use super::context::Context;
use super::convert::{RepeatIds, name};
use super::error::RequestError;
use super::pipeline::{Batches, Label};
use super::protocol::{Ack, PublishRequest, PublishResponse, Record, Tag};
use crate::access::Action;

/// What a record or a tag takes besides what it says, about.
const PART_BYTES: usize = 64;

/// The bytes that count against what a stream may have under way.
pub fn bytes_of(records: &[Record]) -> usize {
    let of_tag = |tag: &Tag| tag.key.len() + tag.value.len() + PART_BYTES;
    let of = |record: &Record| {
        let ids = record.id.len() + record.source.len() + record.dedup_id.len();
        let tags = record.tags.iter().map(of_tag).sum::<usize>();
        record.body.len() + record.metadata.len() + ids + tags + PART_BYTES
    };
    records.iter().map(of).sum::<usize>().max(1)
}

/// Batches for topics.
pub struct Publishes;

impl Batches for Publishes {
    type Request = PublishRequest;
    type Response = PublishResponse;
    type Item = Publish;
    type Stored = Published;
    type Pending = Submitted<Published>;

    const IS_STORED: bool = true;

    fn label(request: &PublishRequest) -> Label {
        Label::of(request.batch, request.ack, &request.records)
    }

    fn take(
        context: &Context,
        request: PublishRequest,
        items: &mut Vec<Publish>,
    ) -> Result<Vec<(u32, RequestError)>, RequestError> {
        let topic = name(&request.namespace, Kind::Topic, &request.topic)?;
        let topic = context.allowed(Action::Write, topic)?;
        let records = request.records.len();
        let mut ids = RepeatIds::of_producer(&request.producer, request.first_sequence, records)?;
        let mut refused = Vec::new();
        items.reserve(records);
        for (place, record) in (0..).zip(request.records) {
            match ids.of(&record, place) {
                Ok(dedup) => items.push(Publish {
                    topic: topic.clone(),
                    message: context.message(record),
                    dedup,
                }),
                Err(error) => refused.push((place, error)),
            }
        }
        Ok(refused)
    }

    async fn begin(broker: Broker, items: Vec<Publish>) -> Self::Pending {
        broker.begin_publish(items).await
    }

    fn refused(pending: &Self::Pending) -> Vec<(usize, BrokerError)> {
        pending.refused()
    }

    fn stored(answer: &mut Answer, place: u32, stored: &Published) {
        answer.offsets.resize(place as usize, 0);
        answer.offsets.push(stored.offset.0);
        if stored.duplicate {
            answer.duplicates.push(place);
        }
    }

    fn response(mut answer: Answer) -> Option<PublishResponse> {
        if answer.error.is_none() && answer.ack != i32::from(Ack::None) {
            answer.offsets.resize(answer.records, 0);
        }
        Some(PublishResponse {
            batch: answer.batch,
            ack: answer.ack,
            offsets: answer.offsets,
            duplicates: answer.duplicates,
            errors: answer.errors,
            error: answer.error,
        })
    }
}
