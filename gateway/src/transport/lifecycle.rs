//! Whether requests are taken now, and the work that goes on after its call was answered.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

/// Why nothing is served now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServing {
    /// The end has begun.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The broker takes no requests yet, or no more.
    #[error("the server is not ready to accept requests")]
    NotReady,
}

/// Readiness is asked for by every call but changes seldom; it is looked at this often at most.
const READY_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Shared by everything that serves one listener.
pub struct Lifecycle {
    is_ready: Box<dyn Fn() -> bool + Send + Sync>,
    checked: Mutex<Checked>,
    ending: watch::Receiver<bool>,
    background: Mutex<Option<mpsc::Sender<()>>>,
}

/// What was last found.
struct Checked {
    /// `None` before the first look.
    at: Option<Instant>,
    is_ready: bool,
    /// Since when that is so, as far as calls have seen it; at first, since the listener began.
    since: Instant,
}

/// The end of a [`Lifecycle`], for who serves the listener.
pub struct LifecycleEnd {
    ending: watch::Sender<bool>,
    background: mpsc::Receiver<()>,
}

impl Lifecycle {
    /// Of a listener that begins to serve what says whether it is ready.
    pub fn new(is_ready: impl Fn() -> bool + Send + Sync + 'static) -> (Self, LifecycleEnd) {
        let (begin_end, ending) = watch::channel(false);
        let (token, background) = mpsc::channel(1);
        let lifecycle = Self {
            is_ready: Box::new(is_ready),
            checked: Mutex::new(Checked {
                at: None,
                is_ready: true,
                since: Instant::now(),
            }),
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
    pub fn admit(&self) -> Result<(), NotServing> {
        if *self.ending.borrow() {
            return Err(NotServing::ShuttingDown);
        }
        let mut checked = self.last_found();
        let is_known = |at: Instant| at.elapsed() < READY_CHECK_INTERVAL;
        if !checked.at.is_some_and(is_known) {
            let (now, is_ready) = (Instant::now(), (self.is_ready)());
            if is_ready != checked.is_ready {
                checked.since = now;
            }
            (checked.at, checked.is_ready) = (Some(now), is_ready);
        }
        if checked.is_ready {
            Ok(())
        } else {
            Err(NotServing::NotReady)
        }
    }

    /// Since when calls are admitted, as far as calls have seen it; `None` while they are refused.
    pub fn serving_since(&self) -> Option<Instant> {
        let found = self.last_found();
        found.is_ready.then_some(found.since)
    }

    fn last_found(&self) -> MutexGuard<'_, Checked> {
        // A panic while it was held leaves it as it was: whole.
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the end has begun.
    pub async fn ending(&self) {
        // An error means that the sender is gone, and with it the server: the end all the same.
        let _ = self.ending.clone().wait_for(|has_begun| *has_begun).await;
    }

    /// Runs a call's work, but no longer than until the end begins.
    pub async fn until_ending<T>(&self, work: impl Future<Output = T>) -> Result<T, NotServing> {
        tokio::select! {
            // The end comes first: a stream that always has more must end too.
            biased;
            () = self.ending() => Err(NotServing::ShuttingDown),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_that_is_always_ready_ends_too() {
        let (lifecycle, end) = Lifecycle::new(|| true);
        assert_eq!(lifecycle.until_ending(async { 7 }).await, Ok(7));
        end.begin();
        for _ in 0..20 {
            let refused = lifecycle.until_ending(async { 7 }).await;
            assert_eq!(refused, Err(NotServing::ShuttingDown));
        }
    }

    #[test]
    fn calls_are_refused_before_the_broker_is_ready_and_after_the_end_began() {
        let (lifecycle, _end) = Lifecycle::new(|| false);
        assert_eq!(lifecycle.admit(), Err(NotServing::NotReady));
        let (lifecycle, end) = Lifecycle::new(|| true);
        assert_eq!(lifecycle.admit(), Ok(()));
        end.begin();
        assert_eq!(lifecycle.admit(), Err(NotServing::ShuttingDown));
    }

    #[test]
    fn it_is_known_since_when_calls_are_admitted() {
        let is_ready = Arc::new(AtomicBool::new(true));
        let told = Arc::clone(&is_ready);
        let (lifecycle, _end) = Lifecycle::new(move || told.load(Ordering::SeqCst));
        let began = lifecycle.serving_since().unwrap();
        lifecycle.admit().unwrap();
        assert_eq!(lifecycle.serving_since(), Some(began));
        for (ready, since_min) in [(false, None), (true, Some(began + READY_CHECK_INTERVAL))] {
            is_ready.store(ready, Ordering::SeqCst);
            while lifecycle.admit().is_ok() != ready {
                std::thread::sleep(Duration::from_millis(5));
            }
            let since = lifecycle.serving_since();
            assert_eq!(since.is_some(), ready);
            assert!(since >= since_min, "{since:?} is before {since_min:?}");
        }
    }

    #[test]
    fn many_calls_ask_for_readiness_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let (lifecycle, _end) = Lifecycle::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            true
        });
        let started = Instant::now();
        for _ in 0..1_000 {
            assert_eq!(lifecycle.admit(), Ok(()));
        }
        let intervals = started.elapsed().as_millis() / READY_CHECK_INTERVAL.as_millis();
        assert!(asked.load(Ordering::SeqCst) as u128 <= intervals + 1);
    }

    #[tokio::test]
    async fn the_end_waits_for_background_work() {
        let (lifecycle, mut end) = Lifecycle::new(|| true);
        let (finish, finished) = oneshot::channel::<()>();
        lifecycle.spawn(async {
            let _ = finished.await;
        });
        end.begin();
        {
            let waiting = end.background_done(&lifecycle);
            tokio::pin!(waiting);
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            drop(finish);
            waiting.await;
        }
    }
}
