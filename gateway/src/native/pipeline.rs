//! Streams of batches: several under way at a time, answered in their order.
//!
//! ```text
//!   client -> inbound -> inbox -> beginning -> under way -> answers -> client
//!              what came together          |   in order        ^
//!              becomes one group,          +-> ACK_NONE: told at once
//!              one after the other
//! ```
//!
//! A group is handed to the broker before the next one is, so that batches are stored in the order in
//! which they came, and not waited for. The stream is polled by its connection's task: nothing is spawned,
//! and only the oldest group is asked whether it is done.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use flotilla_broker::{Broker, BrokerError};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use tonic::Status;

use super::answer::{Answer, Fates};
use super::context::{Context, ServerEnd};
use super::error::RequestError;
use super::protocol::{Ack, Record};
use super::publish::bytes_of;
use crate::transport::inbound::{Ended, Inbound};

/// What is done with the batches of a stream.
pub trait Batches: Send + 'static {
    /// A batch.
    type Request: prost::Message + Unpin;
    /// What its client is told.
    type Response: Send + Unpin;
    /// A record as the broker wants it.
    type Item: Send;
    /// What the broker says of one that went well.
    type Stored;
    /// What the broker says of all, once it knows.
    type Pending: Future<Output = Vec<Result<Self::Stored, BrokerError>>> + Send + Unpin;

    /// Whether an answer says that records are stored: then one that is not wanted comes at once.
    const IS_STORED: bool;

    fn label(request: &Self::Request) -> Label;

    /// Adds the records to the items, if the client may send them there; gives those, by their place, that
    /// cannot be one.
    fn take(
        context: &Context,
        request: Self::Request,
        items: &mut Vec<Self::Item>,
    ) -> Result<Vec<(u32, RequestError)>, RequestError>;

    /// Hands items to the broker.
    fn begin(
        broker: Broker,
        items: Vec<Self::Item>,
    ) -> impl Future<Output = Self::Pending> + Send + 'static;

    /// The items that are refused by now, by their place.
    fn refused(pending: &Self::Pending) -> Vec<(usize, BrokerError)>;

    /// Notes what became of a record that went well. Places ascend.
    fn stored(answer: &mut Answer, place: u32, stored: &Self::Stored);

    /// The answer in the protocol's words, if there is to be one.
    fn response(answer: Answer) -> Option<Self::Response>;
}

/// What can be said of a batch before it is looked into.
#[derive(Clone, Copy)]
pub struct Label {
    pub batch: u64,
    pub ack: i32,
    pub records: usize,
    /// About, and never 0.
    pub bytes: usize,
}

impl Label {
    pub fn of(batch: u64, ack: i32, records: &[Record]) -> Self {
        Self {
            batch,
            ack,
            records: records.len(),
            bytes: bytes_of(records),
        }
    }
}

/// A batch whose records were handed to the broker, but those that were refused.
struct Batch {
    label: Label,
    refused: Result<Vec<(u32, RequestError)>, RequestError>,
}

/// Batches that are under way together.
struct Group<P> {
    batches: Vec<Batch>,
    load: Load,
    is_told_early: bool,
    /// `None` if all records were refused.
    pending: Option<P>,
}

/// What counts against the bounds of a stream.
#[derive(Clone, Copy, Default)]
struct Load {
    batches: usize,
    bytes: usize,
}

/// A group, and its way to the broker.
type Beginning<P> = (Group<P>, BoxFuture<'static, P>);

/// Answers the batches of a stream.
pub struct Pipeline<B: Batches, S> {
    context: Arc<Context>,
    inbound: Inbound<S>,
    /// Read, and not begun.
    inbox: VecDeque<B::Request>,
    /// Waits for room in the broker.
    beginning: Option<Beginning<B::Pending>>,
    under_way: VecDeque<Group<B::Pending>>,
    /// Answered before they were stored.
    told: VecDeque<Group<B::Pending>>,
    /// Of all groups that are not over.
    load: Load,
    answers: VecDeque<B::Response>,
    server_end: ServerEnd,
    ending: Option<RequestError>,
}

impl<B, S> Pipeline<B, S>
where
    B: Batches,
    S: Stream<Item = Result<B::Request, Status>> + Unpin,
{
    pub fn new(context: Arc<Context>, requests: S) -> Self {
        Self {
            inbound: Inbound::new(requests),
            inbox: VecDeque::new(),
            beginning: None,
            under_way: VecDeque::new(),
            told: VecDeque::new(),
            load: Load::default(),
            answers: VecDeque::new(),
            server_end: context.server_end(),
            ending: None,
            context,
        }
    }

    fn has_room(&self) -> bool {
        let bounds = &self.context.bounds;
        self.load.batches < bounds.in_flight_max && self.load.bytes < bounds.in_flight_bytes_max
    }

    /// A group counts no longer.
    fn unload(&mut self, load: Load) {
        self.load.batches -= load.batches;
        self.load.bytes -= load.bytes;
    }

    fn poll_inbound(&mut self, context: &mut TaskContext<'_>) -> bool {
        if self.ending.is_some() || self.inbound.ended().is_some() || !self.inbox.is_empty() {
            return false;
        }
        match self
            .inbound
            .poll_batch(context, self.context.bounds.together)
        {
            Poll::Ready(requests) => {
                self.inbox.extend(requests);
                true
            }
            Poll::Pending => false,
        }
    }

    /// Hands what was read to the broker, as far as there is room.
    fn poll_beginning(&mut self, context: &mut TaskContext<'_>) -> bool {
        let mut moved = false;
        loop {
            if let Some((mut group, mut begun)) = self.beginning.take() {
                match begun.poll_unpin(context) {
                    Poll::Ready(pending) => group.pending = Some(pending),
                    Poll::Pending => {
                        self.beginning = Some((group, begun));
                        return moved;
                    }
                }
                self.under_way.push_back(group);
            } else if self.inbox.is_empty() || !self.has_room() {
                return moved;
            } else {
                self.begin_group();
            }
            moved = true;
        }
    }

    fn begin_group(&mut self) {
        let (group, items) = self.next_group();
        self.load.batches += group.load.batches;
        self.load.bytes += group.load.bytes;
        if items.is_empty() {
            self.under_way.push_back(group);
        } else {
            let begun = B::begin(self.context.broker.clone(), items).boxed();
            self.beginning = Some((group, begun));
        }
    }

    /// As many batches from the front of the inbox as can be one call to the broker, at least one.
    fn next_group(&mut self) -> (Group<B::Pending>, Vec<B::Item>) {
        let bounds = &self.context.bounds;
        let mut items = Vec::new();
        let mut group = Group {
            batches: Vec::new(),
            load: Load::default(),
            is_told_early: false,
            pending: None,
        };
        while let Some(request) = self.inbox.front() {
            let label = B::label(request);
            let is_told_early = B::IS_STORED && label.ack == i32::from(Ack::None);
            let fits = is_told_early == group.is_told_early
                && items.len() + label.records <= bounds.items_max;
            if !fits && !group.batches.is_empty() {
                break;
            }
            let Some(request) = self.inbox.pop_front() else {
                break;
            };
            group.is_told_early = is_told_early;
            group.load.batches += 1;
            group.load.bytes += label.bytes;
            let taken = items.len();
            let refused = check(&label, bounds.batch_records_max)
                .and_then(|()| B::take(&self.context, request, &mut items));
            if refused.is_err() {
                items.truncate(taken);
            }
            group.batches.push(Batch { label, refused });
        }
        (group, items)
    }

    /// Answers the oldest groups.
    fn poll_under_way(&mut self, context: &mut TaskContext<'_>) -> bool {
        let mut moved = false;
        while let Some(group) = self.under_way.front_mut() {
            let mut fates = match &mut group.pending {
                None => Fates::all(Vec::new()),
                Some(pending) if group.is_told_early => Fates::early(B::refused(pending)),
                Some(pending) => match pending.poll_unpin(context) {
                    Poll::Ready(results) => Fates::all(results),
                    Poll::Pending => return moved,
                },
            };
            let Some(mut group) = self.under_way.pop_front() else {
                return moved;
            };
            let echo = self.echo();
            for batch in group.batches.drain(..) {
                let answer = answer::<B>(batch, &mut fates, echo);
                self.answers.extend(B::response(answer));
            }
            if group.is_told_early && group.pending.is_some() {
                self.told.push_back(group);
            } else {
                self.unload(group.load);
            }
            moved = true;
        }
        moved
    }

    /// Sees to the end of what was answered early: it counts as under way until then.
    fn poll_told(&mut self, context: &mut TaskContext<'_>) {
        while let Some(group) = self.told.front_mut() {
            if let Some(pending) = &mut group.pending
                && pending.poll_unpin(context).is_pending()
            {
                return;
            }
            let load = group.load;
            self.told.pop_front();
            self.unload(load);
        }
    }

    /// What ACK_SYNCED is answered with.
    fn echo(&self) -> Ack {
        if !B::IS_STORED || self.context.broker.is_synced() {
            Ack::Synced
        } else {
            Ack::Buffered
        }
    }

    /// How the stream ends, if nothing is left to be done.
    fn end(&self) -> Option<Result<(), Status>> {
        let is_idle = self.inbox.is_empty()
            && self.beginning.is_none()
            && self.under_way.is_empty()
            && self.told.is_empty();
        if !is_idle {
            return None;
        }
        if let Some(error) = &self.ending {
            return Some(Err(error.status()));
        }
        match self.inbound.ended()? {
            Ended::HalfClosed => Some(Ok(())),
            Ended::Failed(status) => Some(Err(status.clone())),
        }
    }
}

impl<B, S> Stream for Pipeline<B, S>
where
    B: Batches,
    S: Stream<Item = Result<B::Request, Status>> + Unpin,
{
    type Item = Result<B::Response, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(answer) = this.answers.pop_front() {
                return Poll::Ready(Some(Ok(answer)));
            }
            if this.ending.is_none()
                && let Poll::Ready(error) = this.server_end.poll_unpin(context)
            {
                // What was not begun is not stored, and its client hears no answer to it.
                this.inbox.clear();
                this.ending = Some(error);
            }
            this.poll_told(context);
            let mut moved = this.poll_inbound(context);
            moved |= this.poll_beginning(context);
            moved |= this.poll_under_way(context);
            if moved {
                continue;
            }
            return match this.end() {
                Some(Ok(())) => Poll::Ready(None),
                Some(Err(status)) => Poll::Ready(Some(Err(status))),
                None => Poll::Pending,
            };
        }
    }
}

fn check(label: &Label, records_max: usize) -> Result<(), RequestError> {
    if label.ack != i32::from(Ack::Synced) && label.ack != i32::from(Ack::None) {
        return Err(RequestError::Ack { given: label.ack });
    }
    if !(1..=records_max).contains(&label.records) {
        return Err(RequestError::Records {
            records: label.records,
            allowed: records_max,
        });
    }
    Ok(())
}

/// The answer to a batch, which takes its part of what is known of its group.
fn answer<B: Batches>(batch: Batch, fates: &mut Fates<B::Stored>, echo: Ack) -> Answer {
    let Batch { label, refused } = batch;
    let mut answer = Answer {
        batch: label.batch,
        ack: if label.ack == i32::from(Ack::Synced) {
            echo.into()
        } else {
            label.ack
        },
        records: label.records,
        ..Answer::default()
    };
    let refused = match refused {
        Ok(refused) => refused,
        Err(whole) => {
            answer.error = Some(whole.wire());
            return answer;
        }
    };
    let mut refused = refused.into_iter().peekable();
    for place in 0..label.records as u32 {
        if let Some((_, error)) = refused.next_if(|(of, _)| *of == place) {
            answer.failed(place, &error);
        } else {
            match fates.next_fate() {
                Some(Ok(stored)) => B::stored(&mut answer, place, &stored),
                Some(Err(error)) => answer.failed(place, &error.into()),
                None => {}
            }
        }
    }
    answer.finish();
    answer
}
