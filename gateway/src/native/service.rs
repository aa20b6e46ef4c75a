//! The calls of the protocol, each handed to the module that serves it.

use std::sync::Arc;

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::context::Context;
use super::listen::Listener;
use super::pipeline::Pipeline;
use super::protocol::broker_server::Broker;
use super::protocol::{
    ConsumeRequest, ConsumeResponse, ListenRequest, ListenResponse, PublishRequest, ReplyBatch,
    RequestBatch, SendRequest, ServeRequest, ServeResponse, SignalRequest, SubscribeRequest,
    SubscribeResponse,
};
use super::publish::Publishes;
use super::send::Sends;
use super::serve::Responder;
use super::signal::Signals;
use super::subscribe::Reader;
use super::{consume, feed, request};
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

    /// For one stream, by whom the gate found it to be opened.
    fn context<T>(&self, request: &Request<T>) -> Arc<Context> {
        self.context.of_caller(request.extensions().get::<Caller>())
    }
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Broker for Service {
    type PublishStream = Pipeline<Publishes, Streaming<PublishRequest>>;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let context = self.context(&request);
        Ok(Response::new(Pipeline::new(context, request.into_inner())))
    }

    type SubscribeStream = Answers<SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let context = self.context(&request);
        let deliveries = feed::stream::<Reader, _>(context, request.into_inner());
        Ok(Response::new(Box::pin(deliveries)))
    }

    type SendStream = Pipeline<Sends, Streaming<SendRequest>>;

    async fn send(
        &self,
        request: Request<Streaming<SendRequest>>,
    ) -> Result<Response<Self::SendStream>, Status> {
        let context = self.context(&request);
        Ok(Response::new(Pipeline::new(context, request.into_inner())))
    }

    type ConsumeStream = Answers<ConsumeResponse>;

    async fn consume(
        &self,
        request: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let context = self.context(&request);
        let answers: Self::ConsumeStream = Box::pin(consume::stream(context, request.into_inner()));
        let mut response = Response::new(answers);
        // Messages that settle themselves do so when they were written.
        response.extensions_mut().insert(Written::paced());
        Ok(response)
    }

    type SignalStream = Pipeline<Signals, Streaming<SignalRequest>>;

    async fn signal(
        &self,
        request: Request<Streaming<SignalRequest>>,
    ) -> Result<Response<Self::SignalStream>, Status> {
        let context = self.context(&request);
        Ok(Response::new(Pipeline::new(context, request.into_inner())))
    }

    type ListenStream = Answers<ListenResponse>;

    async fn listen(
        &self,
        request: Request<Streaming<ListenRequest>>,
    ) -> Result<Response<Self::ListenStream>, Status> {
        let context = self.context(&request);
        let signals = feed::stream::<Listener, _>(context, request.into_inner());
        Ok(Response::new(Box::pin(signals)))
    }

    type RequestStream = Answers<ReplyBatch>;

    async fn request(
        &self,
        request: Request<Streaming<RequestBatch>>,
    ) -> Result<Response<Self::RequestStream>, Status> {
        let context = self.context(&request);
        let replies = request::stream(context, request.into_inner());
        Ok(Response::new(Box::pin(replies)))
    }

    type ServeStream = Answers<ServeResponse>;

    async fn serve(
        &self,
        request: Request<Streaming<ServeRequest>>,
    ) -> Result<Response<Self::ServeStream>, Status> {
        let context = self.context(&request);
        let calls = feed::stream::<Responder, _>(context, request.into_inner());
        Ok(Response::new(Box::pin(calls)))
    }
}
