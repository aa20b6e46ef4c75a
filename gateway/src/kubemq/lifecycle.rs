//! Whether requests are taken now, and the work that goes on after its call was answered.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use flotilla_broker::Broker;
use tokio::sync::{mpsc, watch};

use super::error::RequestError;

/// Readiness is asked for by every call but changes seldom; it is looked at this often at most.
const READY_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Shared by everything that serves one listener.
pub struct Lifecycle {
    broker: Broker,
    is_ready: Mutex<Option<(Instant, bool)>>,
    ending: watch::Receiver<bool>,
    background: Mutex<Option<mpsc::Sender<()>>>,
}

/// The end of a [`Lifecycle`], for who serves the listener.
pub struct LifecycleEnd {
    ending: watch::Sender<bool>,
    background: mpsc::Receiver<()>,
}

impl Lifecycle {
    /// Of a listener that begins to serve.
    pub fn new(broker: Broker) -> (Self, LifecycleEnd) {
        let (begin_end, ending) = watch::channel(false);
        let (token, background) = mpsc::channel(1);
        let lifecycle = Self {
            broker,
            is_ready: Mutex::new(None),
            ending,
            background: Mutex::new(Some(token)),
        };
        let end = LifecycleEnd {
            ending: begin_end,
            background,
        };
        (lifecycle, end)
    }

    /// Refuses a call that comes before the broker is ready or after the end has begun.
    pub fn admit(&self) -> Result<(), RequestError> {
        if *self.ending.borrow() {
            return Err(RequestError::ShuttingDown);
        }
        // A panic while it was held leaves the pair as it was: whole.
        let mut checked = self.is_ready.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ready = match *checked {
            Some((at, is_ready)) if at.elapsed() < READY_CHECK_INTERVAL => is_ready,
            _ => {
                let is_ready = self.broker.health().ready;
                *checked = Some((Instant::now(), is_ready));
                is_ready
            }
        };
        if is_ready {
            Ok(())
        } else {
            Err(RequestError::NotReady)
        }
    }

    /// Resolves when the end has begun.
    pub async fn ending(&self) {
        // An error means that the sender is gone, and with it the server: the end all the same.
        let _ = self.ending.clone().wait_for(|has_begun| *has_begun).await;
    }

    /// Runs a call's work, but no longer than until the end begins.
    pub async fn until_ending<T>(&self, work: impl Future<Output = T>) -> Result<T, RequestError> {
        tokio::select! {
            // The end comes first: a stream that always has more must end too.
            biased;
            () = self.ending() => Err(RequestError::ShuttingDown),
            result = work => Ok(result),
        }
    }

    /// Runs work on its own, which the end of the server waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let token = self
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        tokio::spawn(async move {
            work.await;
            drop(token);
        });
    }
}

impl LifecycleEnd {
    /// Begins the end: streams and long polls are ended, new calls refused.
    pub fn begin(&self) {
        self.ending.send_replace(true);
    }

    /// Resolves when all background work is done.
    pub async fn background_done(&mut self, lifecycle: &Lifecycle) {
        lifecycle
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Nothing is ever sent: this ends when the last sender is gone.
        while self.background.recv().await.is_some() {}
    }
}
