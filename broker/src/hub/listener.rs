//! What waits for one listener, or for one other node, with its bounds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::error::BrokerError;
use crate::api::signal::SignalDelivery;
use crate::config::BrokerConfig;
use crate::hub::actor::HubBell;
use crate::hub::interest::Key;

/// Messages that one call of the listener takes.
const TAKE_MAX: usize = 1_024;

/// A signal on its way, and what it weighs.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub delivery: SignalDelivery,
    pub bytes: u64,
    /// Of one that goes to another node.
    pub away: Option<Box<Away>>,
}

/// Who of another node gets a signal.
#[derive(Clone, Debug)]
pub(crate) struct Away {
    /// All who listen alone.
    pub to_all: bool,
    /// One member of each.
    pub groups: Vec<Arc<Key>>,
}

/// The bounds of a listener's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Publishers wait while there are more.
    pub messages_soft: usize,
    pub messages_max: usize,
    pub bytes_max: u64,
}

impl Bounds {
    pub fn of(config: &BrokerConfig) -> Self {
        Self {
            messages_soft: config.signal_buffer_messages.max(1),
            messages_max: config
                .signal_messages_max
                .max(config.signal_buffer_messages),
            bytes_max: config.signal_bytes_max,
        }
    }
}

/// One listener's buffer.
pub(crate) struct Listener {
    pub id: u64,
    state: Mutex<State>,
    readable: Notify,
    drained: Notify,
    bounds: Bounds,
    bell: Arc<HubBell>,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Sent>,
    bytes: u64,
    /// It did not keep up: nobody waits for it until it has caught up.
    stalled: bool,
    closed: bool,
    ended: Option<BrokerError>,
}

impl State {
    fn over(&self, bounds: &Bounds) -> bool {
        !self.stalled && !self.closed && self.ready.len() > bounds.messages_soft
    }
}

/// What became of a push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub taken: u64,
    pub dropped: u64,
    /// The publisher should wait for the listener.
    pub over: bool,
}

impl Listener {
    pub fn new(id: u64, bounds: Bounds, bell: Arc<HubBell>) -> Self {
        Self {
            id,
            state: Mutex::new(State::default()),
            readable: Notify::new(),
            drained: Notify::new(),
            bounds,
            bell,
        }
    }

    /// Adds signals, as far as the bounds allow.
    pub fn push(&self, signals: Vec<Sent>) -> Pushed {
        let mut pushed = Pushed::default();
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
            for sent in signals {
                let fits = state.ready.is_empty()
                    || (state.ready.len() < messages_max
                        && state.bytes + sent.bytes <= self.bounds.bytes_max);
                if fits {
                    state.bytes += sent.bytes;
                    state.ready.push_back(sent);
                    pushed.taken += 1;
                } else {
                    pushed.dropped += 1;
                }
            }
            pushed.over = state.over(&self.bounds);
        }
        self.readable.notify_one();
        pushed
    }

    /// Whether it has room without anybody waiting.
    pub fn has_room(&self) -> bool {
        self.state.lock().ready.len() < self.bounds.messages_soft
    }

    /// Waits until the listener has caught up; after the deadline drops its surplus and returns how
    /// many that were.
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
        state.bytes -= surplus.iter().map(|sent| sent.bytes).sum::<u64>();
        surplus.len() as u64
    }

    /// The listener's side: what is ready, as soon as there is something.
    pub async fn take(&self) -> Result<Vec<SignalDelivery>, BrokerError> {
        let taken = self.take_sent().await?;
        Ok(taken.into_iter().map(|sent| sent.delivery).collect())
    }

    /// The same with what is known of each.
    pub async fn take_sent(&self) -> Result<Vec<Sent>, BrokerError> {
        loop {
            if let Some(taken) = self.take_now()? {
                return Ok(taken);
            }
            // A ring between the look and this wait is kept by the bell.
            self.readable.notified().await;
        }
    }

    fn take_now(&self) -> Result<Option<Vec<Sent>>, BrokerError> {
        let taken = {
            let mut state = self.state.lock();
            if let Some(error) = &state.ended {
                return Err(error.clone());
            }
            if state.ready.is_empty() {
                return Ok(None);
            }
            let count = state.ready.len().min(TAKE_MAX);
            let taken: Vec<Sent> = state.ready.drain(..count).collect();
            state.bytes -= taken.iter().map(|sent| sent.bytes).sum::<u64>();
            if state.ready.is_empty() {
                state.stalled = false;
            }
            taken
        };
        self.drained.notify_waiters();
        Ok(Some(taken))
    }

    /// Ends the subscription: its next call gets this error.
    pub fn end(&self, error: BrokerError) {
        self.state.lock().ended.get_or_insert(error);
        self.readable.notify_one();
        self.drained.notify_waiters();
    }

    /// The listener's side: it is gone.
    pub fn close(&self) {
        {
            let mut state = self.state.lock();
            state.closed = true;
            state.ready.clear();
            state.bytes = 0;
        }
        self.drained.notify_waiters();
        self.bell.gone(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flotilla_model::message::Message;
    use flotilla_model::name::Name;

    use super::*;

    fn sent(count: usize) -> Vec<Sent> {
        let name = Arc::new(Name::signal("a").expect("a name"));
        let message = Arc::new(Message::default());
        (0..count)
            .map(|_| Sent {
                delivery: SignalDelivery {
                    name: Arc::clone(&name),
                    message: Arc::clone(&message),
                },
                bytes: 10,
                away: None,
            })
            .collect()
    }

    fn listener() -> Arc<Listener> {
        let bounds = Bounds {
            messages_soft: 10,
            messages_max: 50,
            bytes_max: 10_000,
        };
        Arc::new(Listener::new(1, bounds, Arc::default()))
    }

    #[tokio::test]
    async fn a_publisher_waits_for_a_listener_that_catches_up() {
        let listener = listener();
        assert!(listener.push(sent(20)).over);
        let waiting = {
            let listener = Arc::clone(&listener);
            tokio::spawn(async move {
                let deadline = Instant::now() + Duration::from_secs(60);
                listener.wait_for_room(deadline).await
            })
        };
        assert_eq!(listener.take().await.expect("not ended").len(), 20);
        assert_eq!(waiting.await.expect("no panic"), 0, "nothing is dropped");
    }

    #[tokio::test]
    async fn a_stalled_listener_loses_its_surplus_and_holds_up_nobody() {
        let listener = listener();
        assert!(listener.push(sent(20)).over);
        let dropped = listener.wait_for_room(Instant::now()).await;
        assert_eq!(dropped, 10);
        let pushed = listener.push(sent(5));
        assert_eq!((pushed.dropped, pushed.over), (5, false));
        assert_eq!(listener.take().await.expect("not ended").len(), 10);
        let pushed = listener.push(sent(20));
        assert_eq!((pushed.dropped, pushed.over), (0, true), "it has caught up");
    }

    #[test]
    fn the_buffer_never_exceeds_its_bounds() {
        let listener = listener();
        assert_eq!(listener.push(sent(100)).dropped, 50);
        assert_eq!(listener.push(sent(1)).dropped, 1);
    }
}
