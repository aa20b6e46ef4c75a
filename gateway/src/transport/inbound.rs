//! Requests of a client's stream, taken in batches: all that one read of the socket brought.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tonic::Status;

/// How a client's side of a stream ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// The client has no more requests; it may still read.
    HalfClosed,
    /// It could not be read any further.
    Failed(Status),
}

/// A client's side of a stream.
pub struct Inbound<S> {
    requests: S,
    ended: Option<Ended>,
}

/// What is taken together at most; one request always is.
#[derive(Clone, Copy, Debug)]
pub struct BatchBounds {
    /// Requests.
    pub count_max: usize,
    /// Bytes of them.
    pub bytes_max: usize,
}

impl<S, T> Inbound<S>
where
    S: Stream<Item = Result<T, Status>> + Unpin,
    T: prost::Message,
{
    /// A stream of which nothing was read.
    pub fn new(requests: S) -> Self {
        Self {
            requests,
            ended: None,
        }
    }

    /// How the client's side ended, once everything before that was taken.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Waits for the first request, and takes with it those that are there already.
    ///
    /// Empty once the client's side has ended. Takes nothing when it is dropped while waiting.
    pub async fn next_batch(&mut self, bounds: BatchBounds) -> Vec<T> {
        poll_fn(|context| self.poll_batch(context, bounds)).await
    }

    /// The same for those who are polled themselves.
    pub fn poll_batch(&mut self, context: &mut Context<'_>, bounds: BatchBounds) -> Poll<Vec<T>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while self.ended.is_none() && batch.len() < bounds.count_max && bytes < bounds.bytes_max {
            match Pin::new(&mut self.requests).poll_next(context) {
                Poll::Ready(Some(Ok(request))) => {
                    bytes += request.encoded_len();
                    batch.push(request);
                }
                Poll::Ready(Some(Err(status))) => self.ended = Some(Ended::Failed(status)),
                Poll::Ready(None) => self.ended = Some(Ended::HalfClosed),
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(batch)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::kubemq::protocol::Event;

    const BOUNDS: BatchBounds = BatchBounds {
        count_max: 3,
        bytes_max: 100,
    };

    fn an_event(channel: &str) -> Result<Event, Status> {
        Ok(Event {
            channel: channel.to_owned(),
            ..Event::default()
        })
    }

    #[tokio::test]
    async fn what_is_there_is_taken_together_up_to_the_bounds() {
        let events = ["a", "b", "c", "d"].map(an_event);
        let mut inbound = Inbound::new(stream::iter(events));
        let channels = |batch: Vec<Event>| -> Vec<String> {
            batch.into_iter().map(|event| event.channel).collect()
        };
        assert_eq!(channels(inbound.next_batch(BOUNDS).await), ["a", "b", "c"]);
        assert!(inbound.ended().is_none());
        assert_eq!(channels(inbound.next_batch(BOUNDS).await), ["d"]);
        assert!(matches!(inbound.ended(), Some(Ended::HalfClosed)));
        assert!(inbound.next_batch(BOUNDS).await.is_empty());
    }

    #[tokio::test]
    async fn one_request_above_the_bytes_is_taken_alone() {
        let long = "x".repeat(1_000);
        let mut inbound = Inbound::new(stream::iter([an_event(&long), an_event("b")]));
        assert_eq!(inbound.next_batch(BOUNDS).await.len(), 1);
        assert_eq!(inbound.next_batch(BOUNDS).await[0].channel, "b");
    }

    #[tokio::test]
    async fn requests_before_a_failure_are_taken() {
        let events = [an_event("a"), Err(Status::internal("torn"))];
        let mut inbound = Inbound::new(stream::iter(events));
        assert_eq!(inbound.next_batch(BOUNDS).await.len(), 1);
        assert!(
            matches!(inbound.ended(), Some(Ended::Failed(status)) if status.message() == "torn")
        );
    }

    #[tokio::test]
    async fn waiting_ends_with_the_first_request_not_with_a_full_batch() {
        let events = stream::iter([an_event("a")]).chain_pending();
        let mut inbound = Inbound::new(events);
        assert_eq!(inbound.next_batch(BOUNDS).await.len(), 1);
    }

    trait ChainPending: Stream + Sized {
        fn chain_pending(self) -> stream::Chain<Self, stream::Pending<Self::Item>> {
            futures::StreamExt::chain(self, stream::pending())
        }
    }
    impl<S: Stream> ChainPending for S {}
}
