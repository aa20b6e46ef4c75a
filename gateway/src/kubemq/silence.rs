//! Streams of queues that clients open while the server begins to serve, and on which they then say nothing.
//!
//! SDKs (3.6.0, 4.1.5) whose connection broke make a new one, ask it for a ping, wait, and open their streams. Where
//! the server comes back between ping and stream, they believe for ever that they are not connected: they refuse
//! what the application asks, while their stream is well and says nothing. A stream that is ended makes them begin
//! again, and then they ping a server that is there.

use std::future::pending;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures::channel::oneshot;
use futures::stream::{BoxStream, poll_fn};
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::timeout;
use tonic::Status;

use super::context::Context;
use super::error::RequestError;

/// Clients that failed to ping open their stream this long after the server is there, at most: they wait for a
/// second between the two, where nobody says otherwise.
const OPENED_WITHIN: Duration = Duration::from_millis(2_500);

/// How long a stream that is opened now may say nothing; `None`: as long as its client likes.
pub fn silence_max(context: &Context) -> Option<Duration> {
    let since = context.lifecycle.serving_since()?;
    let silence_max = context.config.silence_after_start_max?;
    (since.elapsed() < OPENED_WITHIN).then_some(silence_max)
}

/// The answers to requests, which end unless a whole request is there in time.
pub fn ended_by_silence<Q, A, S>(
    silence_max: Duration,
    requests: impl Stream<Item = Q> + Send + Unpin + 'static,
    answer: impl FnOnce(BoxStream<'static, Q>) -> S,
) -> BoxStream<'static, Result<A, Status>>
where
    Q: 'static,
    A: 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
{
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
    until(silence.boxed(), answer(requests.boxed()).boxed())
}

/// The answers, until there is an end of it. What has come by then is worked on: it is no silence.
fn until<A: 'static>(
    mut end: Pin<Box<dyn Future<Output = ()> + Send>>,
    answers: BoxStream<'static, Result<A, Status>>,
) -> BoxStream<'static, Result<A, Status>> {
    let mut answers = Some(answers);
    poll_fn(move |context| {
        let Some(running) = &mut answers else {
            return Poll::Ready(None);
        };
        let answer = running.poll_next_unpin(context);
        if answer.is_pending() && end.poll_unpin(context).is_ready() {
            answers = None;
            return Poll::Ready(Some(Err(RequestError::SilentSinceStart.into())));
        }
        answer
    })
    .boxed()
}
