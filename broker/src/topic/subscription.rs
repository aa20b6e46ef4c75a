//! A reader's handle to its subscription.

use std::sync::Arc;

use flotilla_model::ids::Offset;
use flotilla_model::name::{Kind, Name};

use crate::api::error::BrokerError;
use crate::api::topic::TopicDelivery;
use crate::core::Core;
use crate::topic::buffer::Buffer;

/// A live subscription to a topic. Dropping it ends it: what was not done stays undone.
pub struct TopicSubscription {
    core: Arc<Core>,
    topic: Name,
    buffer: Arc<Buffer>,
}

impl TopicSubscription {
    pub(crate) fn new(core: Arc<Core>, topic: Name, buffer: Arc<Buffer>) -> Self {
        Self {
            core,
            topic,
            buffer,
        }
    }

    /// The messages that are ready, at least one; waits for it. May be dropped without losing any.
    pub async fn next(&mut self) -> Result<Vec<TopicDelivery>, BrokerError> {
        let deliveries = self.buffer.take().await?;
        let bytes = deliveries
            .iter()
            .map(|delivery| delivery.message.body.len() as u64)
            .sum();
        let count = deliveries.len() as u64;
        self.core
            .metrics
            .delivered(Kind::Topic, &self.topic, count, bytes);
        Ok(deliveries)
    }

    /// Everything delivered up to this offset was handed on: it makes room for more, and a durable
    /// cursor will not deliver it again.
    pub fn done(&mut self, upto: Offset) {
        self.buffer.done(upto);
    }
}

impl Drop for TopicSubscription {
    fn drop(&mut self) {
        self.buffer.close();
    }
}
