//! How an actor of one name learns that its name changed: without a message, and without losing any.
//!
//! The apply task must not block and must not depend on room in a mailbox. So it leaves the news in
//! a small shared cell and rings a bell that stays rung until it is heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flotilla_model::ids::{ObjectId, Offset};
use futures::{Stream, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Something about the actor's name may have changed.
pub(crate) struct Woken;

/// What is known of a topic without asking its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicNews {
    /// The topic's present incarnation, once a message of it was seen.
    pub object: Option<ObjectId>,
    /// The offset after the last message seen.
    pub next: Offset,
    /// How often the name was deleted since the actor started.
    pub deletions: u64,
}

/// The bell and the news of one live name.
#[derive(Default)]
pub(crate) struct Wake {
    bell: Notify,
    news: Mutex<TopicNews>,
    /// Subscriptions or waiting receivers, for display.
    subscribers: AtomicU64,
}

impl Wake {
    /// Rings; several rings before the actor looks are one.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits until it is rung; the rings since the last time are one.
    pub async fn heard(&self) {
        self.bell.notified().await;
    }

    /// A topic got messages up to before `next`.
    pub fn appended(&self, object: ObjectId, next: Offset) {
        {
            let mut news = self.news.lock();
            news.object = Some(object);
            news.next = next;
        }
        self.ring();
    }

    /// The name was deleted with all it held.
    pub fn deleted(&self) {
        {
            let mut news = self.news.lock();
            *news = TopicNews {
                object: None,
                next: Offset::FIRST,
                deletions: news.deletions + 1,
            };
        }
        self.ring();
    }

    pub fn news(&self) -> TopicNews {
        *self.news.lock()
    }

    pub fn set_subscribers(&self, count: usize) {
        self.subscribers.store(count as u64, Ordering::Relaxed);
    }

    pub fn subscribers(&self) -> u64 {
        self.subscribers.load(Ordering::Relaxed)
    }

    /// One item per time the bell was found rung; never ends.
    pub fn stream(self: Arc<Self>) -> impl Stream<Item = Woken> {
        stream::unfold(self, |wake| async move {
            wake.heard().await;
            Some((Woken, wake))
        })
    }
}
