//! A batch that was handed to its shards, until what became of all of it is known.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use flotilla_model::ids::ShardId;
use flotilla_model::name::{Kind, Name};
use flotilla_model::outcome::Outcome;

use crate::api::error::BrokerError;
use crate::core::Core;
use crate::ingress::{EntryReply, PendingReply, Work};

/// Its part of a command's outcome, for the message at a place of it.
type Stored<S> = fn(&Outcome, u32) -> Result<S, BrokerError>;

/// A batch on its way: resolves to one result per item, in their order.
///
/// It is stored whether or not this is waited for; dropping it only means that nobody hears of it.
#[must_use = "nobody hears what became of the batch"]
pub struct Submitted<S> {
    core: Arc<Core>,
    kind: Kind,
    stored: Stored<S>,
    pub(super) results: Vec<Result<S, BrokerError>>,
    pub(super) pending: VecDeque<(Chunk, PendingReply)>,
}

/// The part of a batch that is one submission to a shard, and whose messages are in it.
pub(super) struct Chunk {
    pub shard: ShardId,
    /// Empty once they are handed over.
    pub works: Vec<Work>,
    /// Of the works, one each.
    pub names: Vec<Name>,
    pub slots: usize,
    pub bytes: usize,
    /// In the order of the works.
    pub places: Vec<Place>,
}

/// Where a message of a batch is in a submission.
pub(super) struct Place {
    pub item: usize,
    pub work: usize,
    /// Among the messages of the work.
    pub within: u32,
    pub body_bytes: u64,
}

impl Chunk {
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            works: Vec::new(),
            names: Vec::new(),
            slots: 0,
            bytes: 0,
            places: Vec::new(),
        }
    }
}

impl<S> Submitted<S> {
    /// The items that are refused already, each with its place: nothing of them will be stored.
    pub fn refused(&self) -> Vec<(usize, BrokerError)> {
        let places = self.results.iter().enumerate();
        let refused = places.filter_map(|(place, result)| match result {
            // Its fate is not known yet.
            Ok(_) | Err(BrokerError::OutcomeUnknown) => None,
            Err(error) => Some((place, error.clone())),
        });
        refused.collect()
    }

    pub(super) fn new(core: &Arc<Core>, kind: Kind, stored: Stored<S>, items: usize) -> Self {
        Self {
            core: Arc::clone(core),
            kind,
            stored,
            // An item that is forgotten would be one whose fate nobody knows.
            results: (0..items)
                .map(|_| Err(BrokerError::OutcomeUnknown))
                .collect(),
            pending: VecDeque::new(),
        }
    }

    fn settle(&mut self, chunk: &Chunk, reply: &EntryReply) {
        let metrics = &self.core.metrics;
        let of_each_work = chunk.places.chunk_by(|one, next| one.work == next.work);
        for (places, name) in of_each_work.zip(&chunk.names) {
            let mut bytes = 0;
            let mut count = 0;
            for place in places {
                let result = reply
                    .outcome(place.work)
                    .and_then(|(outcome, first)| (self.stored)(outcome, first + place.within));
                match &result {
                    Ok(_) => {
                        count += 1;
                        bytes += place.body_bytes;
                    }
                    Err(error) => metrics.refused(self.kind, error),
                }
                self.results[place.item] = result;
            }
            if count > 0 {
                metrics.accepted(self.kind, name, count, bytes);
            }
        }
    }

    pub(super) fn fail(&mut self, chunk: &Chunk, error: &BrokerError) {
        for place in &chunk.places {
            self.core.metrics.refused(self.kind, error);
            self.results[place.item] = Err(error.clone());
        }
    }
}

impl<S: Unpin> Future for Submitted<S> {
    type Output = Vec<Result<S, BrokerError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        while let Some((_, reply)) = self.pending.front_mut() {
            let answer = ready!(Pin::new(reply).poll(context));
            let Some((chunk, _)) = self.pending.pop_front() else {
                break;
            };
            match answer {
                Ok(reply) => self.settle(&chunk, &reply),
                Err(error) => self.fail(&chunk, &error),
            }
        }
        Poll::Ready(std::mem::take(&mut self.results))
    }
}
