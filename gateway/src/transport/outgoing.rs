//! The responses of a stream that a task of its own gives out, and word of which were written.

use std::sync::{Arc, OnceLock};

use futures::Stream;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// Responses given to the transport before it is asked whether it took them.
const UNCONFIRMED_MAX: usize = 64;

/// One response on its way. Its stream must be [`Written::paced`](super::gate::Written::paced) if
/// anybody waits for it to be written.
pub struct Outgoing<R> {
    pub response: R,
    /// Told when the response was written; dropped if it never will be.
    pub written: Option<oneshot::Sender<()>>,
}

impl<R> Outgoing<R> {
    /// A response for which nobody waits.
    pub fn plain(response: R) -> Self {
        Self {
            response,
            written: None,
        }
    }
}

/// How a stream ends once all its responses are out. Until it is set, only a failure of the
/// server itself can end the stream, and clients must not take that for a proper end.
#[derive(Clone, Default)]
pub struct Ending(Arc<OnceLock<Result<(), Status>>>);

impl Ending {
    /// The first one counts.
    pub fn set(&self, ending: Result<(), Status>) {
        // Whoever was first knows the cause.
        let _ = self.0.set(ending);
    }

    fn get(&self) -> Result<(), Status> {
        self.0
            .get()
            .cloned()
            .unwrap_or_else(|| Err(Status::internal("the stream failed in the server")))
    }
}

/// The responses as the transport takes them.
pub fn responses<R: Send>(
    outgoing: mpsc::Receiver<Outgoing<R>>,
    ending: Ending,
) -> impl Stream<Item = Result<R, Status>> + Send {
    let replies = Replies {
        outgoing,
        ending,
        unconfirmed: Vec::new(),
    };
    futures::stream::try_unfold(replies, |mut replies| async move {
        Ok(replies.next().await?.map(|response| (response, replies)))
    })
}

struct Replies<R> {
    outgoing: mpsc::Receiver<Outgoing<R>>,
    ending: Ending,
    unconfirmed: Vec<oneshot::Sender<()>>,
}

impl<R> Replies<R> {
    async fn next(&mut self) -> Result<Option<R>, Status> {
        let next = match self.outgoing.try_recv() {
            Ok(next) if self.unconfirmed.len() < UNCONFIRMED_MAX => Some(next),
            taken => {
                self.confirm().await;
                match taken {
                    Ok(next) => Some(next),
                    Err(_) => self.outgoing.recv().await,
                }
            }
        };
        let Some(Outgoing { response, written }) = next else {
            self.ending.get()?;
            return Ok(None);
        };
        self.unconfirmed.extend(written);
        Ok(Some(response))
    }

    /// Says of all responses given out before that they were written.
    async fn confirm(&mut self) {
        if self.unconfirmed.is_empty() {
            return;
        }
        // Being pending once makes the encoder hand over what it has gathered, and the gate lets
        // the transport come back here only when the client had room for it.
        tokio::task::yield_now().await;
        for written in self.unconfirmed.drain(..) {
            // Who no longer waits for it has ended, and does not need it.
            let _ = written.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_response_counts_as_written_once_the_transport_comes_back_for_more() {
        let (sender, receiver) = mpsc::channel(4);
        let mut stream = Box::pin(responses(receiver, Ending::default()));
        let (written, mut is_written) = oneshot::channel();
        let outgoing = Outgoing {
            response: 7,
            written: Some(written),
        };
        assert!(sender.send(outgoing).await.is_ok());
        assert!(stream.next().await.unwrap().is_ok());
        assert!(is_written.try_recv().is_err());
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(
            stream.poll_next_unpin(&mut context),
            Poll::Pending
        ));
        assert!(
            is_written.try_recv().is_err(),
            "told before the encoder was flushed"
        );
        assert!(matches!(
            stream.poll_next_unpin(&mut context),
            Poll::Pending
        ));
        assert_eq!(is_written.try_recv(), Ok(()));
    }

    #[tokio::test]
    async fn a_response_that_is_dropped_is_never_written() {
        let (sender, receiver) = mpsc::channel(4);
        let mut stream = Box::pin(responses(receiver, Ending::default()));
        let (written, is_written) = oneshot::channel();
        let outgoing = Outgoing {
            response: 7,
            written: Some(written),
        };
        assert!(sender.send(outgoing).await.is_ok());
        assert!(stream.next().await.is_some());
        drop(stream);
        assert!(is_written.await.is_err());
    }

    #[tokio::test]
    async fn only_a_set_ending_ends_the_stream_well() {
        let (sender, receiver) = mpsc::channel::<Outgoing<()>>(1);
        let ending = Ending::default();
        let mut stream = Box::pin(responses(receiver, ending.clone()));
        ending.set(Ok(()));
        drop(sender);
        assert!(stream.next().await.is_none());

        let (sender, receiver) = mpsc::channel::<Outgoing<()>>(1);
        let mut stream = Box::pin(responses(receiver, Ending::default()));
        drop(sender);
        assert_eq!(
            stream.next().await.unwrap().unwrap_err().code(),
            tonic::Code::Internal
        );
    }
}
