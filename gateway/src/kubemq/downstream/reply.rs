//! What a downstream says to its client, and word of what of it was written.

use std::sync::{Arc, OnceLock};

use futures::Stream;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::kubemq::error::RequestError;
use crate::kubemq::protocol::{
    QueuesDownstreamRequest, QueuesDownstreamRequestType as Type, QueuesDownstreamResponse,
};

/// Responses given to the transport before it is asked whether it took them.
const UNCONFIRMED_MAX: usize = 64;

/// One response on its way.
pub struct Outgoing {
    pub response: QueuesDownstreamResponse,
    /// Told when the response was written; dropped if it never will be.
    pub written: Option<oneshot::Sender<()>>,
}

impl Outgoing {
    /// A response for which nobody waits.
    pub fn plain(response: QueuesDownstreamResponse) -> Self {
        Self {
            response,
            written: None,
        }
    }
}

/// What a reply says about the request it answers.
#[derive(Clone, Debug)]
pub struct Origin {
    request_id: String,
    kind: i32,
    transaction: String,
}

impl Origin {
    /// Of a request that may name a transaction.
    pub fn of(request: &QueuesDownstreamRequest) -> Self {
        Self {
            request_id: request.request_id.clone(),
            kind: request.request_type_data,
            transaction: request.ref_transaction_id.clone(),
        }
    }

    /// With the transaction that the answer is about.
    pub fn with_transaction(self, transaction: String) -> Self {
        Self {
            transaction,
            ..self
        }
    }

    /// A reply with nothing in it yet.
    pub fn reply(self) -> QueuesDownstreamResponse {
        QueuesDownstreamResponse {
            transaction_id: self.transaction,
            ref_request_id: self.request_id,
            request_type_data: self.kind,
            ..QueuesDownstreamResponse::default()
        }
    }

    /// The reply to a request that was refused or failed.
    pub fn error(self, error: &RequestError) -> Outgoing {
        let kind = if *error == RequestError::DownstreamType {
            Type::PollRequestTypeUnknown as i32
        } else {
            self.kind
        };
        Outgoing::plain(QueuesDownstreamResponse {
            is_error: true,
            error: error.to_string(),
            request_type_data: kind,
            ..self.reply()
        })
    }
}

/// How a downstream ends once all its responses are out. Until it is set, only a failure of the
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
pub fn responses(
    outgoing: mpsc::Receiver<Outgoing>,
    ending: Ending,
) -> impl Stream<Item = Result<QueuesDownstreamResponse, Status>> + Send {
    let replies = Replies {
        outgoing,
        ending,
        unconfirmed: Vec::new(),
    };
    futures::stream::try_unfold(replies, |mut replies| async move {
        Ok(replies.next().await?.map(|response| (response, replies)))
    })
}

struct Replies {
    outgoing: mpsc::Receiver<Outgoing>,
    ending: Ending,
    unconfirmed: Vec<oneshot::Sender<()>>,
}

impl Replies {
    async fn next(&mut self) -> Result<Option<QueuesDownstreamResponse>, Status> {
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
            response: QueuesDownstreamResponse::default(),
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
            response: QueuesDownstreamResponse::default(),
            written: Some(written),
        };
        assert!(sender.send(outgoing).await.is_ok());
        assert!(stream.next().await.is_some());
        drop(stream);
        assert!(is_written.await.is_err());
    }

    #[tokio::test]
    async fn only_a_set_ending_ends_the_stream_well() {
        let (sender, receiver) = mpsc::channel(1);
        let ending = Ending::default();
        let mut stream = Box::pin(responses(receiver, ending.clone()));
        ending.set(Ok(()));
        drop(sender);
        assert!(stream.next().await.is_none());

        let (sender, receiver) = mpsc::channel(1);
        let mut stream = Box::pin(responses(receiver, Ending::default()));
        drop(sender);
        assert_eq!(
            stream.next().await.unwrap().unwrap_err().code(),
            tonic::Code::Internal
        );
    }

    #[test]
    fn an_unknown_request_type_is_answered_with_type_zero() {
        let request = QueuesDownstreamRequest {
            request_id: "r".to_owned(),
            request_type_data: 77,
            ref_transaction_id: "t".to_owned(),
            ..QueuesDownstreamRequest::default()
        };
        let response = Origin::of(&request)
            .error(&RequestError::DownstreamType)
            .response;
        assert_eq!(response.request_type_data, 0);
        assert_eq!(response.error, "request unknown");
        assert_eq!(response.ref_request_id, "r");
        assert_eq!(response.transaction_id, "t");
        assert!(response.is_error);
    }
}
