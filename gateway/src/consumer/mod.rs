//! Streams on which a client takes messages out of queues and settles them: what all of them share.
//!
//! ```text
//!   client -> inbound -> Talk::take, begin -+-> fetches (waiting) -+-> Talk::next_answer -> client
//!                                           +-> settlements -------+
//! ```
//!
//! A task of its own drives the conversation, for settlements must be made even when the client does not
//! read, and what it still holds must go back when it is gone. What is said, and in which order things
//! begin, is the affair of each protocol: its [`Talk`].

mod auto_ack;
pub mod fetching;
mod work;

use std::future::{Future, pending};
use std::sync::Arc;

use flotilla_broker::{BrokerError, Session};
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

pub use self::work::Work;
use crate::transport::inbound::{BatchBounds, Ended, Inbound};
use crate::transport::lifecycle::{Lifecycle, NotServing};
use crate::transport::outgoing::{Ending, Outgoing, responses};

/// Responses between the conversation and the transport. More would only hold memory.
const OUTGOING_MAX: usize = 4;

/// One side of a conversation: what a protocol makes of its client's requests.
pub trait Talk: Send + Sized + 'static {
    /// What the client sends.
    type Request: prost::Message + Send;
    /// What it is told.
    type Response: Send + 'static;
    /// What waiting for messages came to.
    type Fetched: Send;
    /// What a settlement came to.
    type Settled: Send;
    /// How a stream fails.
    type Error: From<NotServing> + From<BrokerError> + Into<Status>;

    /// How many more requests may be read now; `None`: not any.
    fn room(&self, work: &Work<Self>) -> Option<BatchBounds>;

    /// How many may be read of what the client sent before it went.
    fn room_at_end(&self) -> BatchBounds;

    /// Keeps requests until they begin.
    fn take(&mut self, requests: Vec<Self::Request>);

    /// Begins what can begin now.
    fn begin(&mut self, work: &mut Work<Self>);

    /// Begins the settlements among the requests that were taken, and nothing else: nobody hears more.
    fn settle_rest(&mut self, work: &mut Work<Self>);

    /// Messages came, or none did.
    fn fetched(&mut self, work: &mut Work<Self>, fetched: Self::Fetched);

    /// A settlement was made, or not.
    fn settled(&mut self, work: &mut Work<Self>, settled: Self::Settled);

    /// The same after the stream has ended, when only others may want to know.
    fn settled_at_end(_: Self::Settled) {}

    /// Whether there is something to tell the client.
    fn has_answer(&self) -> bool;

    /// The next of it.
    fn next_answer(&mut self, work: &mut Work<Self>) -> Option<Outgoing<Self::Response>>;

    /// Whether nothing waits to begin.
    fn is_idle(&self) -> bool;

    /// Whether the stream ends once all is told, though the client might go on.
    fn is_over(&self) -> bool {
        false
    }

    /// When [`Talk::time_is_up`] is to be called.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The moment has come.
    fn time_is_up(&mut self, _: &mut Work<Self>) {}

    /// Waits for what other streams want of this one, which then begins with all else. Loses nothing when it
    /// is dropped while waiting.
    fn hear(&mut self) -> impl Future<Output = ()> + Send {
        pending()
    }
}

/// Serves one client.
pub fn stream<T, S>(
    talk: T,
    session: Session,
    lifecycle: Arc<Lifecycle>,
    requests: S,
) -> impl Stream<Item = Result<T::Response, Status>> + Send
where
    T: Talk,
    S: Stream<Item = Result<T::Request, Status>> + Send + Unpin + 'static,
{
    let (outgoing, taken_by_transport) = mpsc::channel(OUTGOING_MAX);
    let ending = Ending::default();
    let conversation = Conversation {
        talk,
        work: Work::new(session),
        lifecycle: Arc::clone(&lifecycle),
    };
    lifecycle.spawn(conversation.run(Inbound::new(requests), outgoing, ending.clone()));
    responses(taken_by_transport, ending)
}

struct Conversation<T: Talk> {
    talk: T,
    work: Work<T>,
    lifecycle: Arc<Lifecycle>,
}

impl<T: Talk> Conversation<T> {
    async fn run<S>(
        mut self,
        mut inbound: Inbound<S>,
        outgoing: mpsc::Sender<Outgoing<T::Response>>,
        ending: Ending,
    ) where
        S: Stream<Item = Result<T::Request, Status>> + Send + Unpin,
    {
        let ended = self.converse(&mut inbound, &outgoing).await;
        self.settle_what_arrived(&mut inbound);
        let Self { talk, work, .. } = self;
        // The client's receives, and what nobody will read, end before the stream does: what they
        // held goes back.
        let settling = work.give_up();
        drop(talk);
        ending.set(ended);
        drop(outgoing);
        settling.end().await;
    }

    /// Until one side has ended; the answer is how to end the other.
    async fn converse<S>(
        &mut self,
        inbound: &mut Inbound<S>,
        outgoing: &mpsc::Sender<Outgoing<T::Response>>,
    ) -> Result<(), Status>
    where
        S: Stream<Item = Result<T::Request, Status>> + Send + Unpin,
    {
        let lifecycle = Arc::clone(&self.lifecycle);
        let server_end = lifecycle.ending();
        tokio::pin!(server_end);
        let session = self.work.session();
        let lost = session.lost();
        tokio::pin!(lost);
        let Self { talk, work, .. } = self;
        loop {
            talk.begin(work);
            if talk.is_over() && !talk.has_answer() {
                return Ok(());
            }
            match inbound.ended() {
                Some(Ended::Failed(status)) => return Err(status.clone()),
                Some(Ended::HalfClosed) if is_idle(talk, work) => return Ok(()),
                _ => {}
            }
            let room = match inbound.ended() {
                None => talk.room(work),
                Some(_) => None,
            };
            tokio::select! {
                // The client is gone.
                () = outgoing.closed() => return Ok(()),
                () = &mut server_end => {
                    return Err(T::Error::from(NotServing::ShuttingDown).into());
                }
                // Nothing that the client holds is its own any more.
                error = &mut lost => return Err(T::Error::from(error).into()),
                Some(settled) = work.settlements.next() => {
                    talk.settled(work, settled);
                    while let Some(Some(settled)) = work.settlements.next().now_or_never() {
                        talk.settled(work, settled);
                    }
                }
                Some(fetched) = work.fetches.next() => talk.fetched(work, fetched),
                Some(()) = work.auto_acks.next() => {}
                permit = outgoing.reserve(), if talk.has_answer() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(answer) = talk.next_answer(work) {
                        permit.send(answer);
                    }
                }
                requests = next_requests(inbound, room), if room.is_some() => talk.take(requests),
                () = reached(talk.deadline()) => talk.time_is_up(work),
                () = talk.hear() => {}
            }
        }
    }

    /// Begins the settlements that the client sent before it went: it may acknowledge and leave at
    /// once, and what it did must not come back.
    fn settle_what_arrived<S>(&mut self, inbound: &mut Inbound<S>)
    where
        S: Stream<Item = Result<T::Request, Status>> + Send + Unpin,
    {
        let Self { talk, work, .. } = self;
        if inbound.ended().is_none()
            && let Some(requests) = inbound.next_batch(talk.room_at_end()).now_or_never()
        {
            talk.take(requests);
        }
        talk.settle_rest(work);
    }
}

/// Nothing is under way for the client.
fn is_idle<T: Talk>(talk: &T, work: &Work<T>) -> bool {
    talk.is_idle() && !talk.has_answer() && work.is_idle()
}

async fn next_requests<S, R>(inbound: &mut Inbound<S>, room: Option<BatchBounds>) -> Vec<R>
where
    S: Stream<Item = Result<R, Status>> + Unpin,
    R: prost::Message,
{
    match room {
        Some(bounds) => inbound.next_batch(bounds).await,
        None => pending().await,
    }
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
