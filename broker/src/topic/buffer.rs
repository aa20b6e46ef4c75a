//! What lies between a topic's actor and one reader: messages on the way, and the reader's credit.
//!
//! The actor puts in, the subscription takes out and says what is done. Both sides work on whole
//! batches under one short lock.
//!
//! A buffer outlives its actor: when the shard gets another leader it is left, keeps what it holds,
//! and is attached to whatever feeds it next, an actor here or a conversation with another node.

use std::collections::VecDeque;
use std::sync::Arc;

use bincode::{Decode, Encode};
use flotilla_model::ids::{ObjectId, Offset};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::error::BrokerError;
use crate::api::topic::TopicDelivery;
use crate::fault::Fault;
use crate::topic::run::Item;
use crate::wake::Wake;

/// Ranges that are remembered as done lately, in case the shard's next leader has not heard of them.
const RECENT_RANGES_MAX: usize = 1_024;

/// The shared buffer of one subscription.
pub(crate) struct Buffer {
    state: Mutex<State>,
    readable: Notify,
    /// It was left, ended or closed: whoever sees to it looks what to do.
    turned: Notify,
    messages_max: usize,
    bytes_max: u64,
    /// Its progress becomes the position of a durable cursor.
    durable: bool,
}

#[derive(Default)]
struct State {
    ready: VecDeque<TopicDelivery>,
    /// Offset and bytes of what was delivered and is not done: first what the reader has taken,
    /// then what is ready, in the order of delivery.
    unfinished: VecDeque<(Offset, u32)>,
    unfinished_bytes: u64,
    /// Inclusive ranges that were done since the feeder looked last, and how many messages they are.
    finished: Vec<(Offset, Offset)>,
    finished_count: u64,
    /// The last of those that the feeder has seen, and of those that it has not.
    recent: VecDeque<(Offset, Offset)>,
    /// Who puts in; nobody while the shard's leader is looked for.
    feeder: Option<Arc<Wake>>,
    /// The feeder wants to hear of all progress.
    reports: bool,
    /// The incarnation of the topic that it was fed from.
    object: Option<ObjectId>,
    /// The offset after the last delivery, or where reading begins.
    next: Offset,
    /// Counts the resets.
    epoch: u64,
    /// The feeder had more than fitted, and wants to know of new room.
    starved: bool,
    /// The feeder knows that there is progress to record.
    progress_known: bool,
    /// What the reader took last belongs to a topic or position that is no more.
    stale: bool,
    closed: bool,
    ended: Option<BrokerError>,
}

/// What the feeder learns about a reader when it looks.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub finished: Vec<(Offset, Offset)>,
    /// How many messages those are.
    pub count: u64,
    /// Of which they are; see [`Taken::epoch`].
    pub epoch: u64,
    /// The subscription was dropped.
    pub closed: bool,
}

/// What a reader takes to the shard's next leader.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Resume {
    /// What it read; `None` if the topic did not exist.
    pub object: Option<ObjectId>,
    /// Where it goes on.
    pub next: Offset,
    /// What it has and is not done with, with its bytes, in the order of delivery.
    pub held: Vec<(Offset, u32)>,
    /// What it was done with lately.
    pub finished: Vec<(Offset, Offset)>,
}

/// Messages on their way to a reader on another node.
#[derive(Debug)]
pub(crate) struct Taken {
    pub deliveries: Vec<TopicDelivery>,
    pub object: Option<ObjectId>,
    /// Changes when all that was delivered before is to be forgotten.
    pub epoch: u64,
}

/// What the buffer waits for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A new feeder.
    Left,
    /// Nothing: the reader is gone, or was told that it ends.
    Over,
}

impl Buffer {
    pub fn new(messages_max: u32, bytes_max: u64, durable: bool) -> Self {
        Self {
            state: Mutex::new(State::default()),
            readable: Notify::new(),
            turned: Notify::new(),
            messages_max: messages_max.max(1) as usize,
            bytes_max,
            durable,
        }
    }

    /// From now on the owner of this bell puts in, beginning at `next` of that incarnation; it hears
    /// of progress if that is recorded, or if it asks for all.
    pub fn attach(
        &self,
        feeder: Arc<Wake>,
        object: Option<ObjectId>,
        next: Offset,
        reports_all: bool,
    ) {
        // What happened meanwhile was not heard by anybody.
        feeder.ring();
        let mut state = self.state.lock();
        state.feeder = Some(feeder);
        state.reports = self.durable || reports_all;
        state.progress_known = false;
        state.starved = false;
        state.object = object;
        state.next = next;
    }

    /// Puts in what a reader on another node holds already.
    pub fn hold(&self, held: &[(Offset, u32)]) {
        let mut state = self.state.lock();
        for (offset, bytes) in held {
            state.unfinished.push_back((*offset, *bytes));
            state.unfinished_bytes += u64::from(*bytes);
        }
    }

    /// The feeder cannot go on: another takes over.
    pub fn leave(&self) {
        self.state.lock().feeder = None;
        self.readable.notify_one();
        self.turned.notify_one();
    }

    /// What the next feeder must know. All that was done until now is in it.
    pub fn resume(&self) -> Resume {
        let mut state = self.state.lock();
        state.finished.clear();
        state.finished_count = 0;
        Resume {
            object: state.object,
            next: state.next,
            held: state.unfinished.iter().copied().collect(),
            finished: state.recent.iter().copied().collect(),
        }
    }

    /// Waits until the buffer has lost its feeder, or needs none any more.
    pub async fn turn(&self) -> Turn {
        loop {
            {
                let state = self.state.lock();
                if state.closed || state.ended.is_some() {
                    return Turn::Over;
                }
                if state.feeder.is_none() {
                    return Turn::Left;
                }
            }
            self.turned.notified().await;
        }
    }

    /// Waits until it needs no feeder any more.
    pub async fn over(&self) {
        loop {
            {
                let state = self.state.lock();
                if state.closed || state.ended.is_some() {
                    return;
                }
            }
            self.turned.notified().await;
        }
    }

    /// How many of these fit now. Notes that there was more, if not all do.
    pub fn fits(&self, items: &[Item]) -> usize {
        let mut state = self.state.lock();
        if state.closed || state.ended.is_some() {
            return 0;
        }
        let room = self.messages_max.saturating_sub(state.unfinished.len());
        let mut bytes = state.unfinished_bytes;
        let count = items
            .iter()
            .take(room)
            .enumerate()
            .take_while(|(place, item)| {
                // One message always fits an empty buffer, or a large one would never be delivered.
                let first = *place == 0 && state.unfinished.is_empty();
                bytes += u64::from(item.bytes);
                first || bytes <= self.bytes_max
            })
            .count();
        if count < items.len() {
            state.starved = true;
        }
        count
    }

    /// Whether at least one message might fit. Notes that there was one, if not.
    pub fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.ended.is_some() {
            return false;
        }
        let room = state.unfinished.is_empty()
            || (state.unfinished.len() < self.messages_max
                && state.unfinished_bytes < self.bytes_max);
        if !room {
            state.starved = true;
        }
        room
    }

    /// Puts in what [`Self::fits`] said would fit.
    pub fn push(&self, object: ObjectId, items: &[Item]) {
        if items.is_empty() {
            return;
        }
        {
            let mut state = self.state.lock();
            state.object = Some(object);
            for item in items {
                state.next = state.next.max(Offset(item.delivery.offset.0 + 1));
                state
                    .unfinished
                    .push_back((item.delivery.offset, item.bytes));
                state.unfinished_bytes += u64::from(item.bytes);
                state.ready.push_back(item.delivery.clone());
            }
        }
        self.readable.notify_one();
    }

    /// The feeder's look: what was done since, and whether the reader is still there.
    pub fn progress(&self) -> Progress {
        let mut state = self.state.lock();
        state.progress_known = false;
        Progress {
            finished: std::mem::take(&mut state.finished),
            count: std::mem::take(&mut state.finished_count),
            epoch: state.epoch,
            closed: state.closed,
        }
    }

    /// The topic or the position is no more: what was delivered of it is forgotten.
    pub fn reset(&self, next: Offset) {
        let mut state = self.state.lock();
        state.epoch += 1;
        state.object = None;
        state.next = next;
        state.recent.clear();
        state.finished_count = 0;
        state.ready.clear();
        state.unfinished.clear();
        state.unfinished_bytes = 0;
        state.finished.clear();
        state.stale = true;
    }

    /// How often it was reset.
    pub fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// Ends the subscription: its next call gets this error.
    pub fn end(&self, error: BrokerError) {
        self.state.lock().ended.get_or_insert(error);
        self.readable.notify_one();
        self.turned.notify_one();
    }

    /// Messages that are delivered and not done.
    pub fn unfinished(&self) -> usize {
        self.state.lock().unfinished.len()
    }

    /// The reader's side: everything that is ready, as soon as there is something.
    pub async fn take(&self) -> Result<Vec<TopicDelivery>, BrokerError> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(error) = &state.ended {
                    return Err(error.clone());
                }
                if !state.ready.is_empty() {
                    state.stale = false;
                    return Ok(state.ready.drain(..).collect());
                }
            }
            // A ring between the look and this wait is kept by the bell.
            self.readable.notified().await;
        }
    }

    /// The same for a reader on another node, which must know more, and hears when it is left.
    pub async fn take_away(&self) -> Result<Taken, Fault> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(error) = &state.ended {
                    return Err(Fault::Failed(error.clone()));
                }
                if state.feeder.is_none() {
                    return Err(Fault::Moved);
                }
                if !state.ready.is_empty() {
                    state.stale = false;
                    return Ok(Taken {
                        deliveries: state.ready.drain(..).collect(),
                        object: state.object,
                        epoch: state.epoch,
                    });
                }
            }
            self.readable.notified().await;
        }
    }

    /// The reader on another node is done with so many messages more, in the order of delivery.
    pub fn finish(&self, epoch: u64, count: u64) {
        let mut state = self.state.lock();
        if state.epoch != epoch || state.stale {
            return;
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let ring = self.take_off(&mut state, count);
        drop(state);
        self.ring_if(ring);
    }

    /// The reader's side: all it took up to this offset, in the order of delivery, is done.
    pub fn done(&self, upto: Offset) {
        let mut state = self.state.lock();
        let taken = state.unfinished.len() - state.ready.len();
        let count = done_count(&state.unfinished, taken, upto);
        if state.stale {
            return;
        }
        let ring = self.take_off(&mut state, count);
        drop(state);
        self.ring_if(ring);
    }

    /// Takes so many off what was taken first; returns whose bell is to be rung.
    fn take_off(&self, state: &mut State, count: usize) -> Option<Arc<Wake>> {
        let taken = state.unfinished.len() - state.ready.len();
        let count = count.min(taken);
        if count == 0 {
            return None;
        }
        for _ in 0..count {
            let Some((offset, bytes)) = state.unfinished.pop_front() else {
                break;
            };
            state.unfinished_bytes -= u64::from(bytes);
            state.finished_count += 1;
            match state.finished.last_mut() {
                Some((_, last)) if last.0 + 1 == offset.0 => *last = offset,
                _ => state.finished.push((offset, offset)),
            }
            if self.durable {
                match state.recent.back_mut() {
                    Some((_, last)) if last.0 + 1 == offset.0 => *last = offset,
                    _ => state.recent.push_back((offset, offset)),
                }
            }
        }
        while state.recent.len() > RECENT_RANGES_MAX {
            state.recent.pop_front();
        }
        let progress = state.reports && !state.progress_known;
        state.progress_known |= progress;
        let ring = progress || state.starved;
        state.starved = false;
        if ring { state.feeder.clone() } else { None }
    }

    fn ring_if(&self, feeder: Option<Arc<Wake>>) {
        if let Some(feeder) = feeder {
            feeder.ring();
        }
    }

    /// The reader's side: it is gone.
    pub fn close(&self) {
        let feeder = {
            let mut state = self.state.lock();
            state.closed = true;
            state.ready.clear();
            state.feeder.clone()
        };
        self.ring_if(feeder);
        self.turned.notify_one();
    }
}

/// How many of the first `taken` deliveries are done when the one at `upto` is.
///
/// Usually offsets ascend. After a member of a group was lost its messages come late, below others:
/// then only the order of delivery tells what was written before what.
fn done_count(unfinished: &VecDeque<(Offset, u32)>, taken: usize, upto: Offset) -> usize {
    let deliveries = unfinished.iter().take(taken);
    match deliveries.clone().position(|(offset, _)| *offset >= upto) {
        None => taken,
        Some(place) if unfinished[place].0 == upto => place + 1,
        Some(place) => match deliveries.clone().position(|(offset, _)| *offset == upto) {
            Some(exact) => exact + 1,
            None => place,
        },
    }
}
