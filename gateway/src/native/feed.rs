//! Feeds: the first frame of a client opens one, then it goes on, frame by frame.
//!
//! ```text
//!   client -> inbound -> open, then said -+
//!                                         +-> arrived -> frame -> client
//!                              next ------+
//! ```
//!
//! More is taken from the broker only when what arrived before is with the transport: a client that does
//! not read leaves the rest where others can have it.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;
use std::future::Future;
use std::sync::Arc;

use flotilla_broker::BrokerError;
use futures::Stream;
use tonic::Status;

use super::context::{Context, ServerEnd};
use super::error::RequestError;
use super::frame::take_frame;
use crate::transport::inbound::{BatchBounds, Ended, Inbound};

/// The frame that opens.
const FIRST: BatchBounds = BatchBounds {
    count_max: 1,
    bytes_max: usize::MAX,
};

/// Something that a client follows.
pub trait Feed: Sized + Send {
    /// A frame of the client.
    type Request: prost::Message;
    /// A frame for the client.
    type Response;
    /// One thing for the client.
    type Arrived: Send;

    /// Whether it ends when the client has ended its side; else it goes on until the call is cancelled.
    const ENDS_WITH_CLIENT: bool;

    /// Serves the first frame.
    fn open(
        context: Arc<Context>,
        first: Self::Request,
    ) -> impl Future<Output = Result<Self, RequestError>> + Send;

    /// What the client is told when it is live.
    fn opened() -> Self::Response;

    /// Takes in later frames, and gives what the client is to hear of them. An error ends the stream.
    fn said(&mut self, requests: Vec<Self::Request>) -> Result<Vec<Self::Arrived>, RequestError>;

    /// What comes next; waits for it. Nothing, if all that came is not for the client. Dropping the call loses none.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Self::Arrived>, BrokerError>> + Send;

    /// What one thing weighs in a frame, about.
    fn bytes(arrived: &Self::Arrived) -> usize;

    /// A frame of at least one thing.
    fn frame(arrived: Drain<'_, Self::Arrived>) -> Self::Response;
}

/// Serves one feed.
pub fn stream<F, S>(
    context: Arc<Context>,
    requests: S,
) -> impl Stream<Item = Result<F::Response, Status>> + Send
where
    F: Feed,
    S: Stream<Item = Result<F::Request, Status>> + Send + Unpin,
{
    let feeding: Feeding<F, S> = Feeding {
        server_end: context.server_end(),
        context,
        inbound: Inbound::new(requests),
        feed: None,
        arrived: VecDeque::new(),
    };
    futures::stream::try_unfold(feeding, |mut feeding| async move {
        Ok(feeding.next().await?.map(|response| (response, feeding)))
    })
}

struct Feeding<F: Feed, S> {
    context: Arc<Context>,
    server_end: ServerEnd,
    inbound: Inbound<S>,
    /// Once the first frame was served.
    feed: Option<F>,
    /// Not given out.
    arrived: VecDeque<F::Arrived>,
}

impl<F, S> Feeding<F, S>
where
    F: Feed,
    S: Stream<Item = Result<F::Request, Status>> + Send + Unpin,
{
    /// `None` if the client's side has ended, and the feed with it.
    async fn next(&mut self) -> Result<Option<F::Response>, Status> {
        loop {
            if !self.arrived.is_empty() {
                let frame = take_frame(&mut self.arrived, F::bytes);
                return Ok(Some(F::frame(frame)));
            }
            match self.inbound.ended() {
                Some(Ended::Failed(status)) => return Err(status.clone()),
                Some(Ended::HalfClosed) if F::ENDS_WITH_CLIENT || self.feed.is_none() => {
                    return Ok(None);
                }
                _ => {}
            }
            let Some(feed) = &mut self.feed else {
                match self.open().await.map_err(|error| error.status())? {
                    Some(feed) => self.feed = Some(feed),
                    None => continue,
                }
                return Ok(Some(F::opened()));
            };
            let together = self.context.bounds.together;
            tokio::select! {
                biased;
                error = &mut self.server_end => return Err(error.status()),
                // Before more is taken: it makes room.
                requests = self.inbound.next_batch(together), if self.inbound.ended().is_none() => {
                    let heard = feed.said(requests).map_err(|error| error.status())?;
                    self.arrived.extend(heard);
                }
                arrived = feed.next() => {
                    let arrived = arrived.map_err(|error| RequestError::from(error).status())?;
                    self.arrived = arrived.into();
                }
            }
        }
    }

    /// Serves the first frame; `None` if there is none.
    async fn open(&mut self) -> Result<Option<F>, RequestError> {
        let context = Arc::clone(&self.context);
        let opening = async {
            match self.inbound.next_batch(FIRST).await.pop() {
                Some(first) => F::open(context, first).await.map(Some),
                None => Ok(None),
            }
        };
        tokio::select! {
            error = &mut self.server_end => Err(error),
            opened = opening => opened,
        }
    }
}
