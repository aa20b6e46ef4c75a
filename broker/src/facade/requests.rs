//! Requests, and those who serve them.

use std::sync::Arc;

use crate::api::error::BrokerError;
use crate::api::request::{Reply, ReplyToken, Request, SubscribeRequests};
use crate::facade::Broker;
use crate::hub::request::asker::Requester;
use crate::hub::request::responder::RequestSubscription;

impl Broker {
    /// Asks for one reply. Whoever asks often opens a [`Requester`].
    pub async fn request(&self, request: Request) -> Result<Reply, BrokerError> {
        let requester = self.open_requester();
        requester.send(vec![(0, request)]).await;
        let answers = requester.next().await?;
        let answer = answers.into_iter().next();
        answer.ok_or(BrokerError::ShuttingDown)?.outcome
    }

    /// Opens a requester: for one client that asks in batches and takes answers as they come.
    pub fn open_requester(&self) -> Requester {
        Requester::new(Arc::clone(&self.inner.core))
    }

    /// Serves requests, of all nodes. Live when it returns, except where a node could not be told in a
    /// second.
    pub async fn serve_requests(
        &self,
        request: SubscribeRequests,
    ) -> Result<RequestSubscription, BrokerError> {
        let core = &self.inner.core;
        let (responder, version) = core.requests.serve(core, request)?;
        let subscription = RequestSubscription::new(Arc::clone(core), responder);
        core.requests.links.confirm(version).await;
        Ok(subscription)
    }

    /// Replies to requests by their tokens. One result per item, in order: it fails with
    /// [`BrokerError::Conflict`] if the request is over, or its node is not there; where another node gave it
    /// to its responder, that it is over is not told.
    pub fn reply(&self, batch: Vec<(ReplyToken, Reply)>) -> Vec<Result<(), BrokerError>> {
        let core = &self.inner.core;
        core.requests.reply_by_token(core, batch)
    }
}
