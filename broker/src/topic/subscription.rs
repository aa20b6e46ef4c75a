//! A reader's handle to its subscription, and what keeps it fed.
//!
//! The reader has one buffer for as long as it reads. A task of its own sees to it that somebody puts
//! in: the topic's actor if this node leads the shard, else a conversation with the node that does.
//! When the leader changes, the buffer is attached at the next one with what the reader holds and with
//! what it was done with, so that it goes on where it was and the reader does not notice.

use std::sync::Arc;
use std::time::Instant;

use flotilla_model::ids::{NodeId, Offset};
use flotilla_model::name::{Kind, Name};

use crate::api::error::BrokerError;
use crate::api::topic::{CursorMode, SubscribeTopic, TopicDelivery};
use crate::core::{Core, Keeping};
use crate::fault::Fault;
use crate::leader::{PAUSE, succeeded};
use crate::peers::subscribe::{RemoteFeed, attach_there};
use crate::topic::buffer::{Buffer, Resume, Turn};
use crate::topic::requests::{Attached, Subscribe};

/// A live subscription to a topic. Dropping it ends it: what was not done stays undone.
pub struct TopicSubscription {
    core: Arc<Core>,
    topic: Name,
    buffer: Arc<Buffer>,
}

impl TopicSubscription {
    /// Subscribes; live when it returns.
    pub(crate) async fn open(
        core: &Arc<Core>,
        request: SubscribeTopic,
    ) -> Result<Self, BrokerError> {
        // Dropped on the way, it ends what was begun.
        let subscription = Self {
            core: Arc::clone(core),
            topic: request.topic.clone(),
            buffer: Arc::new(new_buffer(core, &request)),
        };
        let mut keeper = Keeper {
            core: Arc::clone(core),
            request,
            buffer: Arc::clone(&subscription.buffer),
            _keeping: core.keeping(),
        };
        let until = Instant::now() + core.config.leader_wait_max;
        let feed = keeper.attach(false, until).await?;
        core.runtime.spawn(keeper.run(feed));
        Ok(subscription)
    }

    /// The messages that are ready, at least one; waits for it. May be dropped without losing any.
    pub async fn next(&mut self) -> Result<Vec<TopicDelivery>, BrokerError> {
        let deliveries = self.buffer.take().await?;
        let bytes = deliveries
            .iter()
            .map(|delivery| delivery.message.body.len() as u64)
            .sum();
        let count = deliveries.len() as u64;
        self.core
            .metrics
            .delivered(Kind::Topic, &self.topic, count, bytes);
        Ok(deliveries)
    }

    /// Everything delivered up to this offset was handed on: it makes room for more, and a durable
    /// cursor will not deliver it again.
    pub fn done(&mut self, upto: Offset) {
        self.buffer.done(upto);
    }
}

impl Drop for TopicSubscription {
    fn drop(&mut self) {
        self.buffer.close();
    }
}

/// A buffer with the credit of a request, within this node's bounds.
pub(crate) fn new_buffer(core: &Core, request: &SubscribeTopic) -> Buffer {
    let config = &core.config;
    Buffer::new(
        request.buffer_messages.min(config.subscriber_messages_max),
        request.buffer_bytes.min(config.subscriber_bytes_max),
        request.cursor != CursorMode::None,
    )
}

/// Attaches a buffer to the topic's actor on this node.
pub(crate) async fn attach_here(
    core: &Arc<Core>,
    request: &SubscribeTopic,
    buffer: &Arc<Buffer>,
    resume: Option<Resume>,
) -> Result<Attached, Fault> {
    core.check_open()?;
    let topic = &request.topic;
    if !core.serves(core.shard_for(topic).0) {
        return Err(Fault::Moved);
    }
    let start = |wake| core.start_topic(topic, wake);
    let subscribe = || Subscribe {
        request: request.clone(),
        buffer: Arc::clone(buffer),
        resume: resume.clone(),
    };
    core.topics.call(topic, start, subscribe).await?
}

/// Who puts into the buffer.
enum Feed {
    Here,
    There(NodeId, RemoteFeed),
}

/// Sees to it that a buffer is fed as long as its reader is there.
struct Keeper {
    core: Arc<Core>,
    request: SubscribeTopic,
    buffer: Arc<Buffer>,
    _keeping: Keeping,
}

impl Keeper {
    async fn attach(&mut self, resumes: bool, until: Instant) -> Result<Feed, BrokerError> {
        let Self {
            core,
            request,
            buffer,
            ..
        } = &*self;
        let (shard, _) = core.shard_for(&request.topic);
        let resume = || resumes.then(|| buffer.resume());
        let here = || async {
            let attached = attach_here(core, request, buffer, resume()).await?;
            Ok((Feed::Here, attached))
        };
        let there = |node| async move {
            let attaching = attach_there(core, node, request, buffer, resume());
            let (feed, attached) = attaching.await?;
            Ok((Feed::There(node, feed), attached))
        };
        let (feed, attached) = core.at_leader(shard, until, here, there).await?;
        if attached.is_apart {
            // The next leader must not take it for the one whose progress is recorded.
            self.request.cursor = CursorMode::None;
        }
        Ok(feed)
    }

    async fn run(mut self, mut feed: Feed) {
        loop {
            let turn = match feed {
                Feed::Here => self.buffer.turn().await,
                Feed::There(node, remote) => {
                    let (shard, _) = self.core.shard_for(&self.request.topic);
                    tokio::select! {
                        turn = remote.run(&self.core, &self.buffer) => turn,
                        () = succeeded(shard, node) => {
                            self.buffer.leave();
                            Turn::Left
                        }
                    }
                }
            };
            if turn == Turn::Over {
                return;
            }
            let buffer = Arc::clone(&self.buffer);
            let again = tokio::select! {
                again = self.attach_again() => again,
                () = buffer.over() => return,
            };
            feed = match again {
                Ok(feed) => feed,
                Err(error) => return buffer.end(error),
            };
        }
    }

    async fn attach_again(&mut self) -> Result<Feed, BrokerError> {
        let until = Instant::now() + self.core.config.subscription_patience;
        loop {
            match self.attach(true, until).await {
                // Such as the last position of an earlier reader that is still being stored.
                Err(BrokerError::Busy { .. } | BrokerError::OutcomeUnknown)
                    if Instant::now() < until =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                attached => return attached,
            }
        }
    }
}
