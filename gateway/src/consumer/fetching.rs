//! How much a stream on which a client takes messages out of queues may have fetched: what its waiting
//! fetches may bring, and what they brought and the client has not taken.
//!
//! A fetch may bring more than it was granted, for one message comes whole, however large. What was really
//! brought is counted, and while that is too much no fetch goes on: what is on its way goes back to its
//! queue. So no more than the bound waits for a client that does not read, and one fetch beyond it.

use std::sync::Arc;
use std::time::Instant;

use flotilla_broker::{BrokerError, Receive, Received, Session};
use flotilla_model::ids::LeaseId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout_at;

/// Whatever else waits, a fetch may bring this much.
const FETCH_BYTES_MIN: u64 = 64 * 1024;

/// The bytes of one stream.
#[derive(Clone, Debug)]
pub struct Fetching(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_max: u64,
    sums: Mutex<Sums>,
    /// Whether nothing more should come: told to the fetches that wait.
    is_full: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Sums {
    /// Granted to fetches that wait.
    granted: u64,
    /// Brought, and waiting for the client.
    untaken: u64,
}

impl Fetching {
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Shared {
            bytes_max,
            sums: Mutex::default(),
            is_full: watch::Sender::new(false),
        }))
    }

    /// The client leaves so much untaken that nothing more should be fetched for it.
    pub fn is_full(&self) -> bool {
        *self.0.is_full.borrow()
    }

    /// A fetch begins, and is granted of the bytes wanted half of what is left at most, so that the next
    /// one has a share as well.
    pub fn begin(&self, wanted: u64) -> Grant {
        let mut granted = 0;
        self.change(|bytes_max, sums| {
            let used = sums.granted.saturating_add(sums.untaken);
            let share = bytes_max.saturating_sub(used) / 2;
            granted = wanted.min(share.max(FETCH_BYTES_MIN));
            sums.granted += granted;
        });
        Grant {
            fetching: self.clone(),
            granted,
            brought: 0,
        }
    }

    /// An answer waits for the client.
    pub fn wait(&self, bytes: usize) {
        self.change(|_, sums| sums.untaken += bytes as u64);
    }

    /// The client takes an answer.
    pub fn take(&self, bytes: usize) {
        self.change(|_, sums| sums.untaken = sums.untaken.saturating_sub(bytes as u64));
    }

    fn change(&self, change: impl FnOnce(u64, &mut Sums)) {
        let shared = &*self.0;
        let mut sums = shared.sums.lock();
        change(shared.bytes_max, &mut sums);
        let full = sums.untaken >= shared.bytes_max;
        // Told before the sums can change again.
        shared
            .is_full
            .send_if_modified(|is_full| std::mem::replace(is_full, full) != full);
    }
}

/// What one fetch may bring, and then what it brought, until that is counted as an answer.
#[derive(Debug)]
pub struct Grant {
    fetching: Fetching,
    granted: u64,
    brought: u64,
}

impl Grant {
    /// How much the fetch may bring.
    pub fn bytes(&self) -> u64 {
        self.granted
    }

    /// Receives, except while too much waits for the client already: then the fetch begins again when there
    /// is room, with what is left of its time.
    pub async fn receive(
        &mut self,
        session: &Session,
        wanted: Receive,
    ) -> Result<Received, BrokerError> {
        let began = Instant::now();
        let limit = wanted.answer_within.map(|within| began + within);
        let mut full = self.fetching.0.is_full.subscribe();
        loop {
            if limit.is_some_and(|limit| Instant::now() >= limit) {
                return Ok(nothing());
            }
            let request = wanted.clone().after(began.elapsed());
            tokio::select! {
                // First, for what has come meanwhile would be too much.
                biased;
                () = becomes(&mut full, true) => {}
                received = session.receive(request) => {
                    let received = received?;
                    self.bring(&received);
                    return Ok(received);
                }
            }
            let room = becomes(&mut full, false);
            match limit {
                // Whether there was room in time is looked at above.
                Some(limit) => drop(timeout_at(limit.into(), room).await),
                None => room.await,
            }
        }
    }

    /// What was granted counts no more, what came does.
    fn bring(&mut self, received: &Received) {
        let lengths = received.messages.iter();
        let brought = lengths.map(|one| one.message.encoded_len() as u64).sum();
        self.count(brought);
    }

    fn count(&mut self, brought: u64) {
        self.fetching.change(|_, sums| {
            sums.granted = sums.granted.saturating_sub(self.granted);
            sums.untaken = (sums.untaken + brought).saturating_sub(self.brought);
        });
        (self.granted, self.brought) = (0, brought);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.count(0);
    }
}

async fn becomes(full: &mut watch::Receiver<bool>, wanted: bool) {
    // The sender lives as long as the grant.
    drop(full.wait_for(|is_full| *is_full == wanted).await);
}

/// A fetch that brought nothing.
fn nothing() -> Received {
    Received {
        lease: LeaseId(0),
        messages: Vec::new(),
        expired: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: u64 = 32 << 20;

    #[test]
    fn all_that_wait_stay_within_the_bound_but_for_the_least_that_each_may_bring() {
        let fetching = Fetching::new(BYTES_MAX);
        let grants: Vec<Grant> = (0..1_000).map(|_| fetching.begin(u64::MAX)).collect();
        let granted: Vec<u64> = grants.iter().map(Grant::bytes).collect();
        assert_eq!(granted[..3], [16 << 20, 8 << 20, 4 << 20]);
        assert_eq!(granted[999], FETCH_BYTES_MIN);
        assert!(granted.iter().sum::<u64>() <= BYTES_MAX + 1_000 * FETCH_BYTES_MIN);
        drop(grants);
        assert_eq!(fetching.begin(u64::MAX).bytes(), BYTES_MAX / 2);
    }

    #[test]
    fn what_the_client_does_not_take_leaves_less_for_the_next() {
        let fetching = Fetching::new(BYTES_MAX);
        assert_eq!(fetching.begin(1_000).bytes(), 1_000);
        fetching.wait(BYTES_MAX as usize - 1);
        assert!(!fetching.is_full());
        assert_eq!(fetching.begin(u64::MAX).bytes(), FETCH_BYTES_MIN);
        fetching.wait(1);
        assert!(fetching.is_full());
        fetching.take(BYTES_MAX as usize);
        assert!(!fetching.is_full());
        assert_eq!(fetching.begin(u64::MAX).bytes(), BYTES_MAX / 2);
    }

    #[test]
    fn what_a_fetch_really_brought_counts_until_its_answer_does() {
        let fetching = Fetching::new(BYTES_MAX);
        let mut first = fetching.begin(1_000);
        let second = fetching.begin(1_000);
        first.count(3 * BYTES_MAX);
        assert!(fetching.is_full(), "more than was granted");
        drop(second);
        drop(first);
        assert!(!fetching.is_full());
        fetching.wait(3 * BYTES_MAX as usize);
        assert!(fetching.is_full());
        fetching.take(3 * BYTES_MAX as usize);
        assert_eq!(fetching.begin(u64::MAX).bytes(), BYTES_MAX / 2);
    }

    #[tokio::test]
    async fn fetches_that_wait_hear_that_nothing_more_should_come_and_that_it_may_again() {
        let fetching = Fetching::new(BYTES_MAX);
        let mut full = fetching.0.is_full.subscribe();
        let heard = async {
            becomes(&mut full, true).await;
            fetching.take(1);
            becomes(&mut full, false).await;
        };
        let fills = async { fetching.wait(BYTES_MAX as usize) };
        tokio::time::timeout(std::time::Duration::from_secs(20), async {
            tokio::join!(heard, fills)
        })
        .await
        .expect("nobody was told");
    }
}
