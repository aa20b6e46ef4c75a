//! Receiving, with a prefetch.

use super::{Kind, Session};
use crate::BenchError;
use crate::competitors::peers::next_ready;
use crate::target::{Consumer, Source};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};

/// How many messages may be with a consumer: the documentation recommends 100 to 300 for queues.
const QUEUE_PREFETCH: u16 = 300;
/// For streams, which send chunks of many messages.
const STREAM_PREFETCH: u16 = 2_000;

pub struct Receiver {
    session: Session,
    deliveries: lapin::Consumer,
    /// The last message that was received.
    last_tag: Option<u64>,
}

impl Receiver {
    pub async fn new(session: Session, kind: Kind, source: Source<'_>) -> Result<Self, BenchError> {
        let (name, start) = match source {
            Source::Backlog { topic, .. } => (topic, "first"),
            Source::Live { topic } => (topic, "next"),
            Source::Queue { queue } => (queue, "first"),
            Source::Signals { .. } => return Err(BenchError::NotSupported("signals")),
        };
        let name = ShortString::from(name);
        let channel = &session.channel;
        let mut arguments = FieldTable::default();
        let prefetch = match kind {
            Kind::Quorum => QUEUE_PREFETCH,
            Kind::Stream => {
                let start = AMQPValue::LongString(start.into());
                arguments.insert("x-stream-offset".into(), start);
                STREAM_PREFETCH
            }
        };
        if kind == Kind::Quorum && matches!(source, Source::Live { .. }) {
            channel
                .queue_purge(name.clone(), QueuePurgeOptions::default())
                .await
                .map_err(BenchError::client("empty a queue"))?;
        }
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await
            .map_err(BenchError::client("set the prefetch"))?;
        let deliveries = channel
            .basic_consume(
                name,
                ShortString::default(),
                BasicConsumeOptions::default(),
                arguments,
            )
            .await
            .map_err(BenchError::client("consume"))?;
        Ok(Self {
            session,
            deliveries,
            last_tag: None,
        })
    }
}

#[async_trait]
impl Consumer for Receiver {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        let mut delivery: Option<lapin::Result<Delivery>> = self.deliveries.next().await;
        if delivery.is_none() {
            return Err(BenchError::Refused {
                doing: "consuming".to_owned(),
                text: "the consumer was cancelled".to_owned(),
            });
        }
        while let Some(one) = delivery {
            let one = one.map_err(BenchError::client("receive"))?;
            self.last_tag = Some(one.delivery_tag);
            bodies.push(one.data.into());
            delivery = next_ready(&mut self.deliveries);
        }
        Ok(())
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        let Some(tag) = self.last_tag.take() else {
            return Ok(());
        };
        self.session
            .channel
            .basic_ack(tag, BasicAckOptions { multiple: true })
            .await
            .map_err(BenchError::client("acknowledge"))
    }
}
