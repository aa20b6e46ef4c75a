//! Streams on which a client sends and is answered in order: stored events and queue sends.
//!
//! What one read of the socket brought is worked on together. Such a stream ends well only when the
//! client has ended its side and has all answers; while the client is there, its end is an error, since
//! SDKs open a stream that ended well again at once, for ever.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use futures::Stream;
use tonic::Status;

use super::context::Context;
use super::error::RequestError;
use crate::transport::inbound::{Ended, Inbound};

/// What is done with the requests of a stream.
pub trait Exchange: Send + 'static {
    /// What the client sends.
    type Request: prost::Message + Send;
    /// What it is told.
    type Answer: Send;

    /// Works on requests that came together.
    fn work_on(
        context: &Context,
        requests: Vec<Self::Request>,
    ) -> impl Future<Output = Worked<Self::Answer>> + Send;
}

/// What became of requests.
pub struct Worked<A> {
    /// In the order of the requests.
    pub answers: Vec<A>,
    /// The server is ending: so does the stream, after the answers.
    pub ending: bool,
}

/// Answers the requests of a stream.
pub fn answers<E, S>(
    context: Arc<Context>,
    requests: S,
) -> impl Stream<Item = Result<E::Answer, Status>> + Send
where
    E: Exchange,
    S: Stream<Item = Result<E::Request, Status>> + Send + Unpin,
{
    let conversation = Conversation::<E, S> {
        context,
        inbound: Inbound::new(requests),
        answers: VecDeque::new(),
        ending: false,
    };
    futures::stream::try_unfold(conversation, |mut conversation| async move {
        Ok(conversation
            .next_answer()
            .await?
            .map(|answer| (answer, conversation)))
    })
}

struct Conversation<E: Exchange, S> {
    context: Arc<Context>,
    inbound: Inbound<S>,
    answers: VecDeque<E::Answer>,
    ending: bool,
}

impl<E, S> Conversation<E, S>
where
    E: Exchange,
    S: Stream<Item = Result<E::Request, Status>> + Send + Unpin,
{
    /// `None` when the client has no more requests and has all answers.
    async fn next_answer(&mut self) -> Result<Option<E::Answer>, Status> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(Some(answer));
            }
            if self.ending {
                return Err(RequestError::ShuttingDown.status());
            }
            match self.inbound.ended() {
                Some(Ended::HalfClosed) => return Ok(None),
                Some(Ended::Failed(status)) => return Err(status.clone()),
                None => {}
            }
            let bounds = self.context.batch_bounds();
            let requests = self
                .context
                .until_ending(self.inbound.next_batch(bounds))
                .await?;
            let worked = E::work_on(&self.context, requests).await;
            self.answers.extend(worked.answers);
            self.ending = worked.ending;
        }
    }
}
