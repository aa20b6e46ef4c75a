//! SubscribeToRequests: commands or queries for whoever answers them.

use std::sync::Arc;

use flotilla_broker::{BrokerError, RequestDelivery, RequestSubscription, SubscribeRequests};
use flotilla_model::name::{DEFAULT_NAMESPACE, Name};
use futures::stream::BoxStream;
use tonic::Status;

use super::convert::request_out;
use super::validate;
use crate::kubemq::context::Context;
use crate::kubemq::error::RequestError;
use crate::kubemq::protocol::{Request, Subscribe};
use crate::kubemq::source::{self, Sight, Source};

/// Opens a subscription; it is live when this returns.
pub async fn subscribe(
    context: Arc<Context>,
    mut request: Subscribe,
) -> Result<BoxStream<'static, Result<Request, Status>>, Status> {
    context.bind_client(&mut request.client_id);
    let kind = validate::subscription(&request)?;
    context.allowed_to_subscribe(&request.client_id, kind, &request.channel)?;
    let sight = Sight::of(&context, &request);
    let opening = context.broker.serve_requests(SubscribeRequests {
        kind,
        namespace: DEFAULT_NAMESPACE.to_owned(),
        pattern: request.channel,
        group: (!request.group.is_empty()).then_some(request.group),
        // This protocol has no word for how many: as many as the broker lets one client have.
        calls_max: u32::MAX,
    });
    let subscription = context
        .until_ending(opening)
        .await?
        .map_err(RequestError::from)?;
    Ok(Box::pin(source::stream(context, subscription, sight)))
}

impl Source for RequestSubscription {
    type Arrived = RequestDelivery;
    type Out = Request;

    async fn next(&mut self) -> Result<Vec<RequestDelivery>, BrokerError> {
        Self::next(self).await
    }

    fn name(arrived: &RequestDelivery) -> &Name {
        &arrived.name
    }

    fn hide(&self, arrived: Vec<RequestDelivery>) {
        self.decline(arrived.into_iter().map(|one| one.call).collect());
    }

    fn out(&self, arrived: &RequestDelivery) -> Request {
        request_out(arrived, self.token(arrived.call))
    }
}
