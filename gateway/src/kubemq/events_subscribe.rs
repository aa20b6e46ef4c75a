//! SubscribeToEvents: who wants what, and the stream of plain events.

use std::sync::Arc;

use flotilla_broker::{SignalDelivery, SignalSubscription, SubscribeSignals};
use flotilla_model::name::DEFAULT_NAMESPACE;
use futures::Stream;
use futures::stream::BoxStream;
use tonic::Status;

use super::context::Context;
use super::convert::signal_out;
use super::error::RequestError;
use super::protocol::{EventReceive, Subscribe};
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
            Ok(Box::pin(events(Arc::clone(&context), subscription)))
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

/// Plain events as they come; the transport asks for the next when it has room.
fn events(
    context: Arc<Context>,
    subscription: SignalSubscription,
) -> impl Stream<Item = Result<EventReceive, Status>> + Send {
    let none: std::vec::IntoIter<SignalDelivery> = Vec::new().into_iter();
    futures::stream::try_unfold(
        (context, subscription, none),
        |(context, mut subscription, mut arrived)| async move {
            loop {
                if let Some(delivery) = arrived.next() {
                    let event = signal_out(&delivery);
                    return Ok(Some((event, (context, subscription, arrived))));
                }
                arrived = context
                    .until_ending(subscription.next())
                    .await?
                    .map_err(RequestError::from)?
                    .into_iter();
            }
        },
    )
}
