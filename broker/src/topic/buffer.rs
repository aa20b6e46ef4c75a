//! What lies between a topic's actor and one reader: messages on the way, and the reader's credit.
//!
//! The actor puts in, the subscription takes out and says what is done. Both sides work on whole
//! batches under one short lock.

use std::collections::VecDeque;
use std::sync::Arc;

use flotilla_model::ids::Offset;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::error::BrokerError;
use crate::api::topic::TopicDelivery;
use crate::topic::run::Item;
use crate::wake::Wake;

/// The shared buffer of one subscription.
pub(crate) struct Buffer {
    state: Mutex<State>,
    readable: Notify,
    /// The actor's.
    wake: Arc<Wake>,
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
    /// Inclusive ranges that were done since the actor looked last.
    finished: Vec<(Offset, Offset)>,
    /// The actor had more than fitted, and wants to know of new room.
    starved: bool,
    /// The actor knows that there is progress to record.
    progress_known: bool,
    /// What the reader took last belongs to a topic or position that is no more.
    stale: bool,
    closed: bool,
    ended: Option<BrokerError>,
}

/// What the actor learns about a reader when it looks.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub finished: Vec<(Offset, Offset)>,
    /// The subscription was dropped.
    pub closed: bool,
}

impl Buffer {
    pub fn new(wake: Arc<Wake>, messages_max: u32, bytes_max: u64, durable: bool) -> Self {
        Self {
            state: Mutex::new(State::default()),
            readable: Notify::new(),
            wake,
            messages_max: messages_max.max(1) as usize,
            bytes_max,
            durable,
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
    pub fn push(&self, items: &[Item]) {
        if items.is_empty() {
            return;
        }
        {
            let mut state = self.state.lock();
            for item in items {
                state
                    .unfinished
                    .push_back((item.delivery.offset, item.bytes));
                state.unfinished_bytes += u64::from(item.bytes);
                state.ready.push_back(item.delivery.clone());
            }
        }
        self.readable.notify_one();
    }

    /// The actor's look: what was done since, and whether the reader is still there.
    pub fn progress(&self) -> Progress {
        let mut state = self.state.lock();
        state.progress_known = false;
        Progress {
            finished: std::mem::take(&mut state.finished),
            closed: state.closed,
        }
    }

    /// The topic or the position is no more: what was delivered of it is forgotten.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.ready.clear();
        state.unfinished.clear();
        state.unfinished_bytes = 0;
        state.finished.clear();
        state.stale = true;
    }

    /// Ends the subscription: its next call gets this error.
    pub fn end(&self, error: BrokerError) {
        self.state.lock().ended.get_or_insert(error);
        self.readable.notify_one();
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

    /// The reader's side: all it took up to this offset, in the order of delivery, is done.
    pub fn done(&self, upto: Offset) {
        let ring = {
            let mut state = self.state.lock();
            let taken = state.unfinished.len() - state.ready.len();
            let count = done_count(&state.unfinished, taken, upto);
            if state.stale || count == 0 {
                return;
            }
            for _ in 0..count {
                let Some((offset, bytes)) = state.unfinished.pop_front() else {
                    break;
                };
                state.unfinished_bytes -= u64::from(bytes);
                match state.finished.last_mut() {
                    Some((_, last)) if last.0 + 1 == offset.0 => *last = offset,
                    _ => state.finished.push((offset, offset)),
                }
            }
            let progress = self.durable && !state.progress_known;
            state.progress_known |= progress;
            let ring = progress || state.starved;
            state.starved = false;
            ring
        };
        if ring {
            self.wake.ring();
        }
    }

    /// The reader's side: it is gone.
    pub fn close(&self) {
        {
            let mut state = self.state.lock();
            state.closed = true;
            state.ready.clear();
        }
        self.wake.ring();
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use flotilla_model::ids::WallTime;
    use flotilla_model::message::Message;

    use super::*;

    fn items(offsets: impl IntoIterator<Item = u64>, bytes: u32) -> Vec<Item> {
        offsets
            .into_iter()
            .map(|offset| Item {
                delivery: TopicDelivery {
                    offset: Offset(offset),
                    at: WallTime(0),
                    message: Message {
                        body: Bytes::from_static(b"x"),
                        ..Message::default()
                    },
                },
                bytes,
            })
            .collect()
    }

    fn buffer(messages_max: u32, bytes_max: u64) -> Buffer {
        Buffer::new(Arc::default(), messages_max, bytes_max, true)
    }

    async fn take(buffer: &Buffer) -> Vec<u64> {
        let taken = buffer.take().await.expect("not ended");
        taken
            .into_iter()
            .map(|delivery| delivery.offset.0)
            .collect()
    }

    #[tokio::test]
    async fn credit_bounds_what_is_not_done() {
        let buffer = buffer(3, 1_000);
        let more = items(1..=5, 10);
        assert_eq!(buffer.fits(&more), 3);
        buffer.push(&more[..3]);
        assert_eq!(take(&buffer).await, [1, 2, 3]);
        assert_eq!(buffer.fits(&more[3..]), 0, "taking is not yet being done");
        buffer.done(Offset(2));
        assert_eq!(buffer.fits(&more[3..]), 2);
        assert_eq!(buffer.progress().finished, [(Offset(1), Offset(2))]);
    }

    #[tokio::test]
    async fn a_message_larger_than_the_credit_goes_alone() {
        let buffer = buffer(10, 100);
        let large = items(1..=2, 1_000);
        assert_eq!(buffer.fits(&large), 1);
        buffer.push(&large[..1]);
        assert_eq!(buffer.fits(&large[1..]), 0);
        take(&buffer).await;
        buffer.done(Offset(1));
        assert_eq!(buffer.fits(&large[1..]), 1);
    }

    #[tokio::test]
    async fn what_is_still_in_the_buffer_cannot_be_done() {
        let buffer = buffer(10, 1_000);
        buffer.push(&items(1..=2, 1));
        take(&buffer).await;
        buffer.push(&items(3..=4, 1));
        buffer.done(Offset(4));
        assert_eq!(buffer.progress().finished, [(Offset(1), Offset(2))]);
        assert_eq!(take(&buffer).await, [3, 4]);
    }

    #[tokio::test]
    async fn messages_that_come_late_are_done_in_the_order_of_delivery() {
        let buffer = buffer(10, 1_000);
        buffer.push(&items([10, 11, 5, 6], 1));
        take(&buffer).await;
        buffer.done(Offset(11));
        assert_eq!(buffer.progress().finished, [(Offset(10), Offset(11))]);
        buffer.done(Offset(6));
        assert_eq!(buffer.progress().finished, [(Offset(5), Offset(6))]);

        buffer.push(&items([10, 11, 5, 6], 1));
        take(&buffer).await;
        buffer.done(Offset(5));
        let finished = buffer.progress().finished;
        assert_eq!(finished, [(Offset(10), Offset(11)), (Offset(5), Offset(5))]);
    }

    #[tokio::test]
    async fn done_for_a_deleted_topic_says_nothing_about_its_successor() {
        let buffer = buffer(10, 1_000);
        buffer.push(&items(1..=5, 1));
        take(&buffer).await;
        buffer.reset();
        buffer.push(&items(1..=2, 1));
        buffer.done(Offset(5));
        assert!(buffer.progress().finished.is_empty());
        assert_eq!(take(&buffer).await, [1, 2]);
        buffer.done(Offset(2));
        assert_eq!(buffer.progress().finished, [(Offset(1), Offset(2))]);
    }
}
