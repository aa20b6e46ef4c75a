//! A requester: sends requests, and takes the answers as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::api::error::BrokerError;
use crate::api::request::{Answer, Reply, Request};
use crate::core::Core;
use crate::hub::buffer::{Bounds, Buffer, Weighed};
use crate::hub::request::room::Room;

/// An answer that waits to be taken, and what it weighs.
pub(super) struct Waiting {
    pub answer: Answer,
    bytes: u64,
}

impl Weighed for Waiting {
    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Where the answers of one requester wait for it.
pub(crate) struct Inbox {
    id: u64,
    answers: Buffer<Waiting>,
    /// Requests whose answers were not taken yet: each has its place in the buffer.
    open: AtomicUsize,
    freed: Notify,
    open_max: usize,
    ended: AtomicBool,
    /// Of its requests that are under way.
    pub(super) asked: Arc<Room>,
    /// Of the replies that wait for it.
    replies: Room,
    /// Of the replies that wait for any requester.
    all_replies: Arc<Room>,
}

impl Inbox {
    /// For at most so many requests, so many bytes of them, and as many of replies.
    pub fn new(id: u64, open_max: usize, bytes_max: u64, all_replies: &Arc<Room>) -> Self {
        Self {
            id,
            // Bytes are counted before anything comes this far.
            answers: Buffer::new(Bounds::hard(open_max, u64::MAX)),
            open: AtomicUsize::new(0),
            freed: Notify::new(),
            open_max,
            ended: AtomicBool::new(false),
            asked: Arc::new(Room::new(bytes_max)),
            replies: Room::new(bytes_max),
            all_replies: Arc::clone(all_replies),
        }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    /// Takes room for answers. Replies that are too much become errors: whoever is asked again must know
    /// that the request may have been carried out.
    pub(super) fn admit(&self, answers: Vec<Answer>) -> Vec<Waiting> {
        let admitting = answers.into_iter().map(|mut answer| {
            let mut bytes = answer.outcome.as_ref().map_or(0, Reply::bytes);
            if !self.take_room(bytes) {
                answer.outcome = Err(BrokerError::OutcomeUnknown);
                bytes = 0;
            }
            Waiting { answer, bytes }
        });
        admitting.collect()
    }

    fn take_room(&self, bytes: u64) -> bool {
        if !self.replies.take(bytes) {
            return false;
        }
        let is_room = self.all_replies.take(bytes);
        if !is_room {
            self.replies.give_back(bytes);
        }
        is_room
    }

    fn give_back(&self, answers: &[Waiting]) {
        let bytes = answers.iter().map(Weighed::bytes).sum();
        self.replies.give_back(bytes);
        self.all_replies.give_back(bytes);
    }

    /// Adds answers that were admitted: there is a place for each, unless nobody takes any more.
    pub(super) fn push(&self, answers: Vec<Waiting>) {
        if self.ended.load(Ordering::Acquire) {
            self.give_back(&answers);
            return;
        }
        let left = self.answers.push(answers).dropped;
        self.give_back(&left);
    }

    pub fn end(&self, error: BrokerError) {
        self.answers.end(error);
        self.ended.store(true, Ordering::Release);
        self.freed.notify_waiters();
    }

    /// Takes places for as many of `wanted` as there are; waits until there is one. An inbox that has
    /// ended has room for all: what is still put into it vanishes.
    async fn places(&self, wanted: usize) -> usize {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
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
            freed.await;
        }
    }

    async fn take(&self) -> Result<Vec<Answer>, BrokerError> {
        let answers = self.answers.take().await?;
        self.give_back(&answers);
        self.open.fetch_sub(answers.len(), Ordering::AcqRel);
        self.freed.notify_waiters();
        Ok(answers.into_iter().map(|waiting| waiting.answer).collect())
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.all_replies.give_back(self.replies.used());
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
        self.core.requests.close_inbox(&self.core, &self.inbox);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(open_max: usize) -> (Inbox, Arc<Room>) {
        let all_replies = Arc::new(Room::new(2_000));
        (Inbox::new(1, open_max, 1_000, &all_replies), all_replies)
    }

    fn reply(tag: u64, bytes: usize) -> Answer {
        let reply = Reply::of(flotilla_model::message::Message {
            body: bytes::Bytes::from(vec![0; bytes]),
            ..Default::default()
        });
        Answer {
            tag,
            outcome: Ok(reply),
        }
    }

    fn put(inbox: &Inbox, bytes: &[usize]) {
        let answers = bytes.iter().enumerate();
        let answers = answers.map(|(tag, bytes)| reply(tag as u64, *bytes));
        inbox.push(inbox.admit(answers.collect()));
    }

    /// Which of the answers that are taken are replies; the others say that the outcome is unknown.
    async fn take(inbox: &Inbox) -> Vec<bool> {
        let taken = inbox.take().await.expect("not ended");
        let is_reply = |answer: Answer| match answer.outcome {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error, BrokerError::OutcomeUnknown);
                false
            }
        };
        taken.into_iter().map(is_reply).collect()
    }

    #[tokio::test]
    async fn replies_that_nobody_takes_become_errors_beyond_a_bound() {
        let (inbox, all_replies) = inbox(10);
        assert_eq!(inbox.places(10).await, 10);
        put(&inbox, &[200; 10]);
        let taken = take(&inbox).await;
        let replies = taken.iter().filter(|is_reply| **is_reply).count();
        assert_eq!((taken.len(), replies), (10, 4));
        assert_eq!(all_replies.used(), 0);
    }

    #[tokio::test]
    async fn every_request_is_answered_even_beside_a_reply_that_is_larger_than_the_bound() {
        let (inbox, _) = inbox(10);
        put(&inbox, &[5_000, 10, 0, 10]);
        assert_eq!(take(&inbox).await, [true, false, false, false]);
        put(&inbox, &[10]);
        assert_eq!(take(&inbox).await, [true], "there is room again");
    }

    #[tokio::test]
    async fn the_replies_that_wait_for_all_requesters_are_bounded() {
        let (one, all_replies) = inbox(10);
        let others = [(); 2].map(|()| Inbox::new(2, 10, 1_000, &all_replies));
        for inbox in [&one, &others[0], &others[1]] {
            put(inbox, &[900]);
        }
        assert_eq!(take(&others[1]).await, [false]);
        assert_eq!(take(&one).await, [true]);
        put(&others[1], &[900]);
        assert_eq!(take(&others[1]).await, [true]);
        drop(others);
        assert_eq!(all_replies.used(), 0, "what nobody took counts no more");
    }

    #[tokio::test]
    async fn what_comes_after_the_end_vanishes() {
        let (inbox, all_replies) = inbox(10);
        inbox.end(BrokerError::ShuttingDown);
        assert_eq!(inbox.places(1_000).await, 1_000);
        put(&inbox, &[100; 20]);
        assert_eq!(all_replies.used(), 0);
        assert_eq!(inbox.take().await.err(), Some(BrokerError::ShuttingDown));
    }

    #[tokio::test]
    async fn a_place_is_free_when_the_answer_was_taken() {
        let inbox = Arc::new(inbox(4).0);
        assert_eq!(inbox.places(9).await, 4);
        let waiting = {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move { inbox.places(9).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        put(&inbox, &[0; 3]);
        inbox.take().await.expect("not ended");
        assert_eq!(waiting.await.expect("no panic"), 3);
    }
}
