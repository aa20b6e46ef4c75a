//! What a conversation has under way with the broker.

use std::sync::Arc;

use flotilla_broker::Session;
use flotilla_model::ids::LeaseId;
use flotilla_model::name::Name;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::oneshot;

use super::Talk;
use super::auto_ack::ack_when_written;

/// The work of one stream.
pub struct Work<T: Talk> {
    /// Holds all leases of the stream; whatever happens, its end gives them back.
    session: Arc<Session>,
    pub(super) fetches: FuturesUnordered<BoxFuture<'static, T::Fetched>>,
    pub(super) settlements: FuturesUnordered<BoxFuture<'static, T::Settled>>,
    /// Of leases whose messages are on their way.
    pub(super) auto_acks: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<T: Talk> Work<T> {
    pub(super) fn new(session: Session) -> Self {
        Self {
            session: Arc::new(session),
            fetches: FuturesUnordered::new(),
            settlements: FuturesUnordered::new(),
            auto_acks: FuturesUnordered::new(),
        }
    }

    /// The session, for work that begins.
    pub fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session)
    }

    /// Begins to wait for messages.
    pub fn fetch(&mut self, fetch: BoxFuture<'static, T::Fetched>) {
        self.fetches.push(fetch);
    }

    /// Begins a settlement: it is made whatever becomes of the client.
    pub fn settle(&mut self, settlement: BoxFuture<'static, T::Settled>) {
        self.settlements.push(settlement);
    }

    /// Settles a lease once it is known that its messages were written, which is to be told to the answer,
    /// or gives it back.
    pub fn settle_when_written(&mut self, queue: Name, lease: LeaseId) -> oneshot::Sender<()> {
        let (tell, told) = oneshot::channel();
        self.auto_acks
            .push(ack_when_written(self.session(), queue, lease, told).boxed());
        tell
    }

    /// Receives that wait, and those whose messages are on their way and settle themselves.
    pub fn fetches(&self) -> usize {
        self.fetches.len() + self.auto_acks.len()
    }

    /// Settlements under way.
    pub fn settlements(&self) -> usize {
        self.settlements.len()
    }

    /// Whether no answer can come of it any more.
    pub(super) fn is_idle(&self) -> bool {
        self.fetches.is_empty() && self.settlements.is_empty()
    }

    /// Ends what waits for messages.
    pub(super) fn give_up(mut self) -> Settling<T> {
        self.fetches.clear();
        Settling(self)
    }
}

/// Work that goes on without its client.
pub struct Settling<T: Talk>(Work<T>);

impl<T: Talk> Settling<T> {
    /// Sees settlements to their end, and gives back what is still held.
    pub async fn end(self) {
        let mut work = self.0;
        while let Some(settled) = work.settlements.next().await {
            T::settled_at_end(settled);
        }
        while work.auto_acks.next().await.is_some() {}
        if let Some(session) = Arc::into_inner(work.session) {
            session.end().await;
        }
    }
}
