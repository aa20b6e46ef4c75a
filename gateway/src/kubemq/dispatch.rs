//! Messages on their way to the broker, in order, and what became of those that each request brought.
//!
//! A request brings one message, for one target or several. All that go to one kind of target are handed
//! over together, so that they share one write to disk; the copies of a message for many targets are bounded.

use std::future::ready;
use std::sync::Arc;

use flotilla_broker::{BrokerError, Enqueue, Publish, Signal};
use flotilla_model::command::QueuePolicy;
use flotilla_model::ids::WallTime;
use flotilla_model::message::Message;
use flotilla_model::name::{Kind, Name};
use futures::FutureExt;

use super::context::Context;
use super::error::RequestError;
use super::slices::in_slices;

/// Copies for further targets that are in memory at a time, at most; one always is.
const COPIED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a copy takes beside the bytes that it is stored in, and each of its tags.
const COPY_BYTES: usize = 256;
const TAG_BYTES: usize = 64;

/// Where a message goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Targets {
    One(Name),
    Several(Vec<Name>),
}

impl Targets {
    pub fn names(&self) -> &[Name] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

/// What became of the message of one request.
#[derive(Debug, Default)]
pub struct Fate {
    /// Why not every target has it: what the first of those that have it not said, and its place.
    failure: Option<(usize, RequestError)>,
    /// It was wrong, and went nowhere.
    pub is_refused: bool,
    /// When the first queue among the targets took it.
    pub queued: Option<WallTime>,
    /// When the first topic among them did.
    pub stored: Option<WallTime>,
}

impl Fate {
    /// Why not every target has the message.
    pub fn into_failure(self) -> Option<RequestError> {
        self.failure.map(|(_, error)| error)
    }

    fn fail(&mut self, target: usize, error: BrokerError) {
        if self
            .failure
            .as_ref()
            .is_none_or(|(first, _)| target < *first)
        {
            self.failure = Some((target, error.into()));
        }
    }
}

/// Gathers messages for the broker.
pub struct Dispatch<'a> {
    context: &'a Context,
    fates: Vec<Fate>,
    signals: Lane<Signal>,
    publishes: Lane<Publish>,
    enqueues: Lane<Enqueue>,
    copied_bytes: usize,
}

/// What goes to one kind of target, and for which request and target of it.
struct Lane<I> {
    items: Vec<I>,
    places: Vec<(usize, usize)>,
}

impl<I> Default for Lane<I> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            places: Vec::new(),
        }
    }
}

impl<I> Lane<I> {
    fn push(&mut self, item: I, place: (usize, usize)) {
        self.items.push(item);
        self.places.push(place);
    }
}

impl<'a> Dispatch<'a> {
    /// For about so many requests.
    pub fn new(context: &'a Context, requests: usize) -> Self {
        Self {
            context,
            fates: Vec::with_capacity(requests),
            signals: Lane::default(),
            publishes: Lane::default(),
            enqueues: Lane::default(),
            copied_bytes: 0,
        }
    }

    /// The next request is wrong.
    pub fn refuse(&mut self, error: RequestError) {
        self.fates.push(Fate {
            failure: Some((0, error)),
            is_refused: true,
            ..Fate::default()
        });
    }

    /// The next request's message; the policy is for the queues among its targets.
    pub async fn send(&mut self, targets: Targets, message: Message, policy: QueuePolicy) {
        let request = self.fates.len();
        self.fates.push(Fate::default());
        let names = match targets {
            Targets::One(name) => return self.add((request, 0), name, message, policy),
            Targets::Several(names) => names,
        };
        let bytes = message.encoded_len() + message.tags.len() * TAG_BYTES + COPY_BYTES;
        for (target, name) in names.into_iter().enumerate() {
            if self.copied_bytes > 0 && self.copied_bytes + bytes > COPIED_BYTES_MAX {
                self.hand_over().await;
            }
            self.copied_bytes += bytes;
            self.add((request, target), name, message.clone(), policy.clone());
        }
    }

    /// What became of all requests, in order.
    pub async fn finish(mut self) -> Vec<Fate> {
        self.hand_over().await;
        self.fates
    }

    fn add(&mut self, place: (usize, usize), name: Name, message: Message, policy: QueuePolicy) {
        // Ids of this protocol are not unique: they tell no repeat from a new message.
        let dedup = None;
        match name.kind() {
            Kind::Topic => {
                let publish = Publish {
                    topic: name,
                    message,
                    dedup,
                };
                self.publishes.push(publish, place);
            }
            Kind::Queue => {
                let enqueue = Enqueue {
                    queue: name,
                    message,
                    policy,
                    dedup,
                };
                self.enqueues.push(enqueue, place);
            }
            Kind::Signal | Kind::Request | Kind::Command => {
                let message = Arc::new(message);
                self.signals.push(Signal { name, message }, place);
            }
        }
    }

    /// Sends what was gathered, and waits until it is known what became of it.
    async fn hand_over(&mut self) {
        self.copied_bytes = 0;
        let broker = &self.context.broker;
        let items_max = broker.batch_items_max();
        let signals = std::mem::take(&mut self.signals);
        let publishes = std::mem::take(&mut self.publishes);
        let enqueues = std::mem::take(&mut self.enqueues);
        let (signalled, published, enqueued) = tokio::join!(
            in_slices(signals.items, items_max, |slice| broker
                .signal(slice)
                .map(ready)),
            in_slices(publishes.items, items_max, |slice| broker
                .begin_publish(slice)),
            in_slices(enqueues.items, items_max, |slice| broker
                .begin_enqueue(slice)),
        );
        for ((request, target), outcome) in signals.places.into_iter().zip(signalled) {
            if let Err(error) = outcome {
                self.fates[request].fail(target, error);
            }
        }
        for ((request, target), outcome) in publishes.places.into_iter().zip(published) {
            let fate = &mut self.fates[request];
            match outcome {
                Ok(published) => fate.stored = fate.stored.or(Some(published.at)),
                Err(error) => fate.fail(target, error),
            }
        }
        for ((request, target), outcome) in enqueues.places.into_iter().zip(enqueued) {
            let fate = &mut self.fates[request];
            match outcome {
                Ok(enqueued) => fate.queued = fate.queued.or(Some(enqueued.at)),
                Err(error) => fate.fail(target, error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_target_that_failed_is_told_whichever_was_heard_of_first() {
        let failure = |what: &str| BrokerError::Busy {
            what: what.to_owned(),
        };
        let mut fate = Fate::default();
        fate.fail(2, failure("third"));
        fate.fail(0, failure("first"));
        fate.fail(1, failure("second"));
        let text = fate.into_failure().unwrap().to_string();
        assert_eq!(text, "too busy: first");
    }
}
