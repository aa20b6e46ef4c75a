//! A requester: sends requests, and takes the answers as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::api::error::BrokerError;
use crate::api::request::{Answer, Reply, Request};
use crate::core::Core;
use crate::hub::buffer::{Bounds, Buffer, Weighed};

impl Weighed for Answer {
    fn bytes(&self) -> u64 {
        self.outcome.as_ref().map_or(0, Reply::bytes)
    }
}

/// Where the answers of one requester wait for it.
pub(crate) struct Inbox {
    id: u64,
    answers: Buffer<Answer>,
    /// Requests whose answers were not taken yet: each has its place in the buffer.
    open: AtomicUsize,
    room: Notify,
    open_max: usize,
    ended: AtomicBool,
}

impl Inbox {
    pub fn new(id: u64, open_max: usize, bytes_max: u64) -> Self {
        Self {
            id,
            answers: Buffer::new(Bounds::hard(open_max, bytes_max)),
            open: AtomicUsize::new(0),
            room: Notify::new(),
            open_max,
            ended: AtomicBool::new(false),
        }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    /// Adds answers. Replies that are too much for it become errors: they had the time they needed.
    pub fn push(&self, answers: Vec<Answer>) {
        let too_much = self.answers.push(answers).dropped;
        if too_much.is_empty() {
            return;
        }
        let refused = too_much.into_iter().map(|answer| Answer {
            tag: answer.tag,
            outcome: Err(BrokerError::Busy {
                what: "replies are not taken as fast as they come".to_owned(),
            }),
        });
        // Errors weigh nothing, and there is a place for each.
        self.answers.push(refused.collect());
    }

    pub fn end(&self, error: BrokerError) {
        self.answers.end(error);
        self.ended.store(true, Ordering::Release);
        self.room.notify_waiters();
    }

    /// Takes places for as many of `wanted` as there are; waits until there is one. An inbox that has
    /// ended has room for all: nothing is put into it any more.
    async fn places(&self, wanted: usize) -> usize {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.ended.load(Ordering::Acquire) {
                return wanted;
            }
            let free = |open: usize| wanted.min(self.open_max.saturating_sub(open));
            let take = |open| (free(open) > 0).then(|| open + free(open));
            let taking = self
                .open
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
            if let Ok(before) = taking {
                return free(before);
            }
            room.await;
        }
    }

    async fn take(&self) -> Result<Vec<Answer>, BrokerError> {
        let answers = self.answers.take().await?;
        self.open.fetch_sub(answers.len(), Ordering::AcqRel);
        self.room.notify_waiters();
        Ok(answers)
    }
}

/// Sends requests and takes their answers. Dropping it gives up what is not answered.
pub struct Requester {
    core: Arc<Core>,
    inbox: Arc<Inbox>,
}

impl Requester {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let inbox = core.requests.open_inbox(&core.config);
        Self { core, inbox }
    }

    /// Sends requests, each with a tag that its answer will bear. Every one is answered exactly once,
    /// in any order, whatever goes wrong.
    ///
    /// Waits while more than [`crate::BrokerConfig::request_calls_per_client_max`] are not answered, or
    /// their answers not taken: take them meanwhile. Dropping the call may leave requests unsent.
    pub async fn send(&self, batch: Vec<(u64, Request)>) {
        self.core.requests.links.all_known().await;
        let mut batch = batch;
        while !batch.is_empty() {
            let places = self.inbox.places(batch.len()).await;
            let rest = batch.split_off(places);
            self.core.requests.ask(&self.core, &self.inbox, batch);
            batch = rest;
        }
    }

    /// The answers that are there, at least one; waits for it. To be called by one task at a time; may
    /// be dropped without losing any.
    pub async fn next(&self) -> Result<Vec<Answer>, BrokerError> {
        self.inbox.take().await
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        self.core.requests.close_inbox(&self.inbox);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(count: u64, body: &'static [u8]) -> Vec<Answer> {
        let reply = Reply::of(flotilla_model::message::Message {
            body: bytes::Bytes::from_static(body),
            ..Default::default()
        });
        (0..count)
            .map(|tag| Answer {
                tag,
                outcome: Ok(reply.clone()),
            })
            .collect()
    }

    #[tokio::test]
    async fn replies_that_nobody_takes_become_errors_beyond_a_bound() {
        let inbox = Inbox::new(1, 10, 1_000);
        assert_eq!(inbox.places(10).await, 10);
        inbox.push(answers(10, &[0; 200]));
        let taken = inbox.take().await.expect("not ended");
        let replies = taken.iter().filter(|answer| answer.outcome.is_ok()).count();
        assert_eq!((taken.len(), replies), (10, 4));
    }

    #[tokio::test]
    async fn a_place_is_free_when_the_answer_was_taken() {
        let inbox = Arc::new(Inbox::new(1, 4, 1_000));
        assert_eq!(inbox.places(9).await, 4);
        let waiting = {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move { inbox.places(9).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        inbox.push(answers(3, b""));
        inbox.take().await.expect("not ended");
        assert_eq!(waiting.await.expect("no panic"), 3);
    }
}
