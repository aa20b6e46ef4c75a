//! A bounded buffer: many fill it, one empties it in batches.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::error::BrokerError;
use crate::config::BrokerConfig;

/// Items that one call takes.
const TAKE_MAX: usize = 1_024;

/// What a buffer holds is weighed.
pub(crate) trait Weighed {
    fn bytes(&self) -> u64;
}

/// The bounds of a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Whoever fills it waits while there are more.
    pub messages_soft: usize,
    pub messages_max: usize,
    pub bytes_max: u64,
}

impl Bounds {
    /// Of a listener to signals.
    pub fn of(config: &BrokerConfig) -> Self {
        Self {
            messages_soft: config.signal_buffer_messages.max(1),
            messages_max: config
                .signal_messages_max
                .max(config.signal_buffer_messages),
            bytes_max: config.signal_bytes_max,
        }
    }

    /// Where nobody waits: what does not fit comes back at once.
    pub fn hard(messages_max: usize, bytes_max: u64) -> Self {
        Self {
            messages_soft: messages_max,
            messages_max,
            bytes_max,
        }
    }
}

/// The buffer.
pub(crate) struct Buffer<T> {
    state: Mutex<State<T>>,
    readable: Notify,
    drained: Notify,
    bounds: Bounds,
}

struct State<T> {
    ready: VecDeque<T>,
    bytes: u64,
    /// It did not keep up: nobody waits for it until it has caught up.
    stalled: bool,
    closed: bool,
    ended: Option<BrokerError>,
}

impl<T> State<T> {
    fn over(&self, bounds: &Bounds) -> bool {
        !self.stalled && !self.closed && self.ready.len() > bounds.messages_soft
    }
}

/// What became of a push.
#[derive(Debug)]
pub(crate) struct Pushed<T> {
    pub taken: u64,
    /// What did not fit.
    pub dropped: Vec<T>,
    /// Whoever pushed should wait for room.
    pub over: bool,
}

impl<T: Weighed> Buffer<T> {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                bytes: 0,
                stalled: false,
                closed: false,
                ended: None,
            }),
            readable: Notify::new(),
            drained: Notify::new(),
            bounds,
        }
    }

    /// Adds items, as far as the bounds allow. A closed buffer lets them vanish.
    pub fn push(&self, items: Vec<T>) -> Pushed<T> {
        let mut pushed = Pushed {
            taken: 0,
            dropped: Vec::new(),
            over: false,
        };
        {
            let mut state = self.state.lock();
            if state.closed {
                return pushed;
            }
            let messages_max = if state.stalled {
                self.bounds.messages_soft
            } else {
                self.bounds.messages_max
            };
            for item in items {
                let bytes = item.bytes();
                // What is larger than the whole buffer goes into it alone, but for what weighs nothing.
                let fits = state.ready.is_empty()
                    || (state.ready.len() < messages_max
                        && (bytes == 0 || state.bytes + bytes <= self.bounds.bytes_max));
                if fits {
                    state.bytes += bytes;
                    state.ready.push_back(item);
                    pushed.taken += 1;
                } else {
                    pushed.dropped.push(item);
                }
            }
            pushed.over = state.over(&self.bounds);
        }
        self.readable.notify_one();
        pushed
    }

    /// Whether it has room without anybody waiting.
    pub fn has_room(&self) -> bool {
        let state = self.state.lock();
        state.ready.len() < self.bounds.messages_soft && state.bytes < self.bounds.bytes_max
    }

    /// Items and bytes that it takes before a part of it is full, one of so many.
    pub fn room_in_part(&self, parts: u64) -> (u64, u64) {
        let state = self.state.lock();
        let messages = (self.bounds.messages_max as u64 / parts).max(1);
        (
            messages.saturating_sub(state.ready.len() as u64),
            (self.bounds.bytes_max / parts).saturating_sub(state.bytes),
        )
    }

    /// Lets go of the items that are no longer of use.
    pub fn retain(&self, is_of_use: impl FnMut(&T) -> bool) {
        {
            let mut state = self.state.lock();
            state.ready.retain(is_of_use);
            state.bytes = state.ready.iter().map(Weighed::bytes).sum();
            if state.ready.is_empty() {
                state.stalled = false;
            }
        }
        self.drained.notify_waiters();
    }

    /// Waits until it was emptied; after the deadline drops the surplus and returns how much that was.
    pub async fn wait_for_room(&self, deadline: Instant) -> u64 {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if !self.state.lock().over(&self.bounds) {
                return 0;
            }
            if tokio::time::timeout_at(deadline.into(), drained)
                .await
                .is_err()
            {
                return self.drop_surplus();
            }
        }
    }

    fn drop_surplus(&self) -> u64 {
        let mut state = self.state.lock();
        if !state.over(&self.bounds) {
            return 0;
        }
        state.stalled = true;
        let surplus = state.ready.split_off(self.bounds.messages_soft);
        state.bytes -= surplus.iter().map(Weighed::bytes).sum::<u64>();
        surplus.len() as u64
    }

    /// What is ready, as soon as there is something. May be dropped without losing any.
    pub async fn take(&self) -> Result<Vec<T>, BrokerError> {
        loop {
            if let Some(taken) = self.take_now()? {
                return Ok(taken);
            }
            // A ring between the look and this wait is kept by the bell.
            self.readable.notified().await;
        }
    }

    fn take_now(&self) -> Result<Option<Vec<T>>, BrokerError> {
        let taken = {
            let mut state = self.state.lock();
            if let Some(error) = &state.ended {
                return Err(error.clone());
            }
            if state.ready.is_empty() {
                return Ok(None);
            }
            let count = state.ready.len().min(TAKE_MAX);
            let taken: Vec<T> = state.ready.drain(..count).collect();
            state.bytes -= taken.iter().map(Weighed::bytes).sum::<u64>();
            if state.ready.is_empty() {
                state.stalled = false;
            }
            taken
        };
        self.drained.notify_waiters();
        Ok(Some(taken))
    }

    /// Ends it: whoever takes gets this error.
    pub fn end(&self, error: BrokerError) {
        self.state.lock().ended.get_or_insert(error);
        self.readable.notify_one();
        self.drained.notify_waiters();
    }

    /// Whoever takes is gone; returns what was never taken.
    pub fn close(&self) -> VecDeque<T> {
        let left = {
            let mut state = self.state.lock();
            state.closed = true;
            state.bytes = 0;
            std::mem::take(&mut state.ready)
        };
        self.drained.notify_waiters();
        left
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    struct Item;

    impl Weighed for Item {
        fn bytes(&self) -> u64 {
            10
        }
    }

    struct Heavy(u64);

    impl Weighed for Heavy {
        fn bytes(&self) -> u64 {
            self.0
        }
    }

    fn items(count: usize) -> Vec<Item> {
        (0..count).map(|_| Item).collect()
    }

    fn buffer() -> Arc<Buffer<Item>> {
        Arc::new(Buffer::new(Bounds {
            messages_soft: 10,
            messages_max: 50,
            bytes_max: 10_000,
        }))
    }

    #[tokio::test]
    async fn a_publisher_waits_for_a_listener_that_catches_up() {
        let buffer = buffer();
        assert!(buffer.push(items(20)).over);
        let waiting = {
            let buffer = Arc::clone(&buffer);
            tokio::spawn(async move {
                let deadline = Instant::now() + Duration::from_secs(60);
                buffer.wait_for_room(deadline).await
            })
        };
        assert_eq!(buffer.take().await.expect("not ended").len(), 20);
        assert_eq!(waiting.await.expect("no panic"), 0, "nothing is dropped");
    }

    #[tokio::test]
    async fn a_stalled_listener_loses_its_surplus_and_holds_up_nobody() {
        let buffer = buffer();
        assert!(buffer.push(items(20)).over);
        let dropped = buffer.wait_for_room(Instant::now()).await;
        assert_eq!(dropped, 10);
        let pushed = buffer.push(items(5));
        assert_eq!((pushed.dropped.len(), pushed.over), (5, false));
        assert_eq!(buffer.take().await.expect("not ended").len(), 10);
        let pushed = buffer.push(items(20));
        assert_eq!(
            (pushed.dropped.len(), pushed.over),
            (0, true),
            "it has caught up"
        );
    }

    #[test]
    fn the_buffer_never_exceeds_its_bounds() {
        let buffer = buffer();
        assert_eq!(buffer.push(items(100)).dropped.len(), 50);
        assert_eq!(buffer.push(items(1)).dropped.len(), 1);
        assert_eq!(buffer.close().len(), 50);
    }

    #[test]
    fn what_weighs_nothing_fits_beside_what_is_larger_than_the_buffer() {
        let buffer = Buffer::new(Bounds::hard(3, 1_000));
        let pushed = buffer.push(vec![Heavy(5_000), Heavy(1), Heavy(0), Heavy(0), Heavy(0)]);
        let dropped: Vec<_> = pushed.dropped.iter().map(|item| item.0).collect();
        assert_eq!((pushed.taken, dropped), (3, vec![1, 0]));
        assert!(!buffer.has_room());
    }

    #[test]
    fn what_is_let_go_of_makes_room() {
        let buffer = Buffer::new(Bounds::hard(10, 100));
        buffer.push(vec![Heavy(60), Heavy(30), Heavy(10)]);
        assert!(!buffer.has_room());
        assert_eq!(buffer.room_in_part(2), (2, 0));
        buffer.retain(|item| item.0 < 50);
        assert!(buffer.has_room());
        assert_eq!(buffer.room_in_part(2), (3, 10));
        assert_eq!(buffer.push(vec![Heavy(61), Heavy(60)]).taken, 1);
    }
}
