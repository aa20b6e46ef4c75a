//! The calls of the protocol, each handed to the module that serves it.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::context::Context;
use super::events_send::EventsExchange;
use super::protocol::kubemq_server::Kubemq;
use super::protocol::{
    AckAllQueueMessagesRequest, AckAllQueueMessagesResponse, Empty, Event, EventReceive,
    PingResult, QueueMessage, QueueMessagesBatchRequest, QueueMessagesBatchResponse,
    QueuesDownstreamRequest, QueuesDownstreamResponse, QueuesInfoRequest, QueuesInfoResponse,
    QueuesUpstreamRequest, QueuesUpstreamResponse, ReceiveQueueMessagesRequest,
    ReceiveQueueMessagesResponse, Request as CommandOrQuery, Response as CommandOrQueryResponse,
    Result as EventResult, SendQueueMessageResult, StreamQueueMessagesRequest,
    StreamQueueMessagesResponse, Subscribe,
};
use super::silence::{ended_by_silence, silence_max};
use super::upstream::UpstreamExchange;
use super::{
    downstream, events_send, events_subscribe, exchange, ping, queue_receive, queue_send,
    queues_info, requests, transaction,
};
use crate::access::Caller;
use crate::transport::gate::Written;

/// Serves every call of one listener.
pub struct Service {
    context: Arc<Context>,
}

impl Service {
    /// A service over a broker.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// For one call, by whom the gate found it to be made.
    fn context<T>(&self, request: &Request<T>) -> Arc<Context> {
        self.context.of_caller(request.extensions().get::<Caller>())
    }
}

/// An answer whose stream must know what of it was written.
fn paced<T>(stream: T) -> Response<T> {
    let mut response = Response::new(stream);
    response.extensions_mut().insert(Written::paced());
    response
}

#[tonic::async_trait]
impl Kubemq for Service {
    async fn ping(&self, _: Request<Empty>) -> Result<Response<PingResult>, Status> {
        Ok(Response::new(ping::answer(
            &self.context.config,
            &self.context.started,
        )))
    }

    async fn send_event(&self, request: Request<Event>) -> Result<Response<EventResult>, Status> {
        let context = self.context(&request);
        events_send::send(&context, request.into_inner())
            .await
            .map(Response::new)
    }

    type SendEventsStreamStream = BoxStream<'static, Result<EventResult, Status>>;

    async fn send_events_stream(
        &self,
        request: Request<Streaming<Event>>,
    ) -> Result<Response<Self::SendEventsStreamStream>, Status> {
        let context = self.context(&request);
        Ok(Response::new(Box::pin(exchange::answers::<
            EventsExchange,
            _,
        >(
            context, request.into_inner()
        ))))
    }

    type SubscribeToEventsStream = BoxStream<'static, Result<EventReceive, Status>>;

    async fn subscribe_to_events(
        &self,
        request: Request<Subscribe>,
    ) -> Result<Response<Self::SubscribeToEventsStream>, Status> {
        let context = self.context(&request);
        let events = events_subscribe::subscribe(context, request.into_inner()).await?;
        Ok(paced(events))
    }

    async fn send_queue_message(
        &self,
        request: Request<QueueMessage>,
    ) -> Result<Response<SendQueueMessageResult>, Status> {
        let context = self.context(&request);
        queue_send::send(&context, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn send_queue_messages_batch(
        &self,
        request: Request<QueueMessagesBatchRequest>,
    ) -> Result<Response<QueueMessagesBatchResponse>, Status> {
        let context = self.context(&request);
        queue_send::send_batch(&context, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn receive_queue_messages(
        &self,
        request: Request<ReceiveQueueMessagesRequest>,
    ) -> Result<Response<ReceiveQueueMessagesResponse>, Status> {
        let context = self.context(&request);
        queue_receive::receive(context, request.into_inner()).await
    }

    async fn ack_all_queue_messages(
        &self,
        request: Request<AckAllQueueMessagesRequest>,
    ) -> Result<Response<AckAllQueueMessagesResponse>, Status> {
        let context = self.context(&request);
        queue_receive::ack_all(&context, request.into_inner())
            .await
            .map(Response::new)
    }

    type QueuesUpstreamStream = BoxStream<'static, Result<QueuesUpstreamResponse, Status>>;

    async fn queues_upstream(
        &self,
        request: Request<Streaming<QueuesUpstreamRequest>>,
    ) -> Result<Response<Self::QueuesUpstreamStream>, Status> {
        let context = self.context(&request);
        let requests = request.into_inner();
        Ok(Response::new(match silence_max(&context) {
            None => exchange::answers::<UpstreamExchange, _>(context, requests).boxed(),
            Some(silence_max) => ended_by_silence(silence_max, requests, |requests| {
                exchange::answers::<UpstreamExchange, _>(context, requests)
            }),
        }))
    }

    type QueuesDownstreamStream = BoxStream<'static, Result<QueuesDownstreamResponse, Status>>;

    async fn queues_downstream(
        &self,
        request: Request<Streaming<QueuesDownstreamRequest>>,
    ) -> Result<Response<Self::QueuesDownstreamStream>, Status> {
        let context = self.context(&request);
        let requests = request.into_inner();
        Ok(paced(match silence_max(&context) {
            None => downstream::stream(context, requests).boxed(),
            Some(silence_max) => ended_by_silence(silence_max, requests, |requests| {
                downstream::stream(context, requests)
            }),
        }))
    }

    type StreamQueueMessageStream = BoxStream<'static, Result<StreamQueueMessagesResponse, Status>>;

    async fn stream_queue_message(
        &self,
        request: Request<Streaming<StreamQueueMessagesRequest>>,
    ) -> Result<Response<Self::StreamQueueMessageStream>, Status> {
        let context = self.context(&request);
        Ok(Response::new(Box::pin(transaction::stream(
            context,
            request.into_inner(),
        ))))
    }

    type SubscribeToRequestsStream = BoxStream<'static, Result<CommandOrQuery, Status>>;

    async fn subscribe_to_requests(
        &self,
        request: Request<Subscribe>,
    ) -> Result<Response<Self::SubscribeToRequestsStream>, Status> {
        let context = self.context(&request);
        requests::subscribe(context, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn send_request(
        &self,
        request: Request<CommandOrQuery>,
    ) -> Result<Response<CommandOrQueryResponse>, Status> {
        let context = self.context(&request);
        requests::send(&context, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn send_response(
        &self,
        request: Request<CommandOrQueryResponse>,
    ) -> Result<Response<Empty>, Status> {
        let context = self.context(&request);
        requests::answer(&context, request.into_inner()).map(Response::new)
    }

    async fn queues_info(
        &self,
        request: Request<QueuesInfoRequest>,
    ) -> Result<Response<QueuesInfoResponse>, Status> {
        let context = self.context(&request);
        queues_info::answer(&context, request.into_inner())
            .await
            .map(Response::new)
    }
}
