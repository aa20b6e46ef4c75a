//! SubscribeToEvents: who wants what.

use std::sync::Arc;

use flotilla_broker::{BrokerError, SignalDelivery, SignalSubscription, SubscribeSignals};
use flotilla_model::name::{DEFAULT_NAMESPACE, Kind, Name};
use futures::stream::BoxStream;
use tonic::Status;

use super::context::Context;
use super::convert::signal_out;
use super::error::RequestError;
use super::protocol::{EventReceive, Subscribe};
use super::source::{self, Sight, Source};
use super::store_subscribe;
use super::validate::{self, Subscription};
use crate::access::Action;

/// Opens a subscription; it is live when this returns.
pub async fn subscribe(
    context: Arc<Context>,
    mut request: Subscribe,
) -> Result<BoxStream<'static, Result<EventReceive, Status>>, Status> {
    context.bind_client(&mut request.client_id);
    match validate::subscription(&request)? {
        Subscription::Events => {
            context.allowed_to_subscribe(&request.client_id, Kind::Signal, &request.channel)?;
            let sight = Sight::of(&context, &request);
            let opening = context.broker.subscribe_signals(SubscribeSignals {
                namespace: DEFAULT_NAMESPACE.to_owned(),
                pattern: request.channel,
                group: (!request.group.is_empty()).then_some(request.group),
            });
            let subscription = context
                .until_ending(opening)
                .await?
                .map_err(RequestError::from)?;
            Ok(Box::pin(source::stream(context, subscription, sight)))
        }
        Subscription::Store(topic, start) => {
            let topic = context.allowed(&request.client_id, Action::Read, topic)?;
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

    fn name(arrived: &SignalDelivery) -> &Name {
        &arrived.name
    }

    /// Nobody waits for it.
    fn hide(&self, _: Vec<SignalDelivery>) {}

    fn out(&self, arrived: &SignalDelivery) -> EventReceive {
        signal_out(arrived)
    }
}
