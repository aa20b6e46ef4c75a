//! SubscribeToEvents: who wants what.

use std::sync::Arc;

use flotilla_broker::{BrokerError, SignalDelivery, SignalSubscription, SubscribeSignals};
use flotilla_model::name::DEFAULT_NAMESPACE;
use futures::stream::BoxStream;
use tonic::Status;

use super::context::Context;
use super::convert::signal_out;
use super::error::RequestError;
use super::protocol::{EventReceive, Subscribe};
use super::source::{self, Source};
use super::store_subscribe;
use super::validate::{self, Subscription};

/// Opens a subscription; it is live when this returns.
pub async fn subscribe(
    context: Arc<Context>,
    request: Subscribe,
) -> Result<BoxStream<'static, Result<EventReceive, Status>>, Status> {
    match validate::subscription(&request)? {
        Subscription::Events => {
            let opening = context.broker.subscribe_signals(SubscribeSignals {
                namespace: DEFAULT_NAMESPACE.to_owned(),
                pattern: request.channel,
                group: (!request.group.is_empty()).then_some(request.group),
            });
            let subscription = context
                .until_ending(opening)
                .await?
                .map_err(RequestError::from)?;
            Ok(Box::pin(source::stream(Arc::clone(&context), subscription)))
        }
        Subscription::Store(topic, start) => {
            let who = store_subscribe::cursor(
                &request.client_id,
                &request.group,
                context.config.durable_resume,
            );
            let stream = store_subscribe::subscribe(context, topic, start, who).await?;
            Ok(Box::pin(stream))
        }
    }
}

impl Source for SignalSubscription {
    type Arrived = SignalDelivery;
    type Out = EventReceive;

    async fn next(&mut self) -> Result<Vec<SignalDelivery>, BrokerError> {
        Self::next(self).await
    }

    fn out(&self, arrived: &SignalDelivery) -> EventReceive {
        signal_out(arrived)
    }
}
