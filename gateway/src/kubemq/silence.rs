//! Streams that clients open while the server begins to serve, and on which they then say nothing.
//!
//! SDKs (3.6.0, 4.1.5) whose connection broke make a new one, ask it for a ping, wait, and open their stream. Where
//! the server comes back between ping and stream, they believe for ever that they are not connected: they refuse
//! what the application sends, while their stream is well and says nothing. A stream that is ended makes them begin
//! again, and then they ping a server that is there.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::channel::oneshot;
use futures::stream::{BoxStream, poll_fn};
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::timeout;
use tonic::Status;

use super::context::Context;
use super::error::RequestError;

/// Clients that failed to ping open their stream this long after the server is there, at most: what they wait for is
/// a second, where nobody says otherwise.
const OPENED_WITHIN: Duration = Duration::from_millis(2_500);

/// Answers a stream's requests; if it was opened when the server had just begun to serve, it ends unless something is
/// said on it soon.
pub fn answered_unless_silent<Q, A, S>(
    context: Arc<Context>,
    requests: impl Stream<Item = Q> + Send + Unpin + 'static,
    answer: impl FnOnce(Arc<Context>, BoxStream<'static, Q>) -> S,
) -> BoxStream<'static, Result<A, Status>>
where
    Q: 'static,
    A: 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
{
    let silence_max = context.config.silence_after_start_max;
    let Some(silence_max) =
        silence_max.filter(|_| context.lifecycle.since().elapsed() < OPENED_WITHIN)
    else {
        return answer(context, requests.boxed()).boxed();
    };
    let (say, said) = oneshot::channel();
    let mut say = Some(say);
    let requests = requests.inspect(move |_| {
        if let Some(say) = say.take() {
            // Nobody waits for it after the time is over.
            let _ = say.send(());
        }
    });
    let silence = async move {
        // It is over too when the client has closed its side.
        if timeout(silence_max, said).await.is_ok() {
            pending().await
        }
    };
    ended_by(silence.boxed(), answer(context, requests.boxed()).boxed())
}

/// The answers, until the other ends them.
fn ended_by<A: 'static>(
    mut end: Pin<Box<dyn Future<Output = ()> + Send>>,
    answers: BoxStream<'static, Result<A, Status>>,
) -> BoxStream<'static, Result<A, Status>> {
    let mut answers = Some(answers);
    poll_fn(move |context| {
        let Some(running) = &mut answers else {
            return Poll::Ready(None);
        };
        if end.poll_unpin(context).is_ready() {
            // What it holds is given back.
            answers = None;
            return Poll::Ready(Some(Err(RequestError::SilentSinceStart.into())));
        }
        running.poll_next_unpin(context)
    })
    .boxed()
}
