//! How much a stream on which a client takes messages out of queues may have fetched: what its waiting
//! fetches may bring, and what they brought and the client has not taken.

/// Whatever else waits, a fetch may bring this much.
const FETCH_BYTES_MIN: u64 = 64 * 1024;

/// The bytes of one stream.
#[derive(Debug)]
pub struct Fetching {
    bytes_max: u64,
    /// Granted to fetches that wait.
    granted: u64,
    /// Answers that wait for the client.
    untaken: u64,
}

impl Fetching {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            granted: 0,
            untaken: 0,
        }
    }

    /// The client leaves so much untaken that nothing more should be fetched for it.
    pub fn is_full(&self) -> bool {
        self.untaken >= self.bytes_max
    }

    /// A fetch begins: the answer is how much it may bring of the bytes wanted, to be given to
    /// [`Self::end`]. Half of what is left at most, so that the next one has a share as well.
    pub fn begin(&mut self, wanted: u64) -> u64 {
        let used = self.granted.saturating_add(self.untaken);
        let share = self.bytes_max.saturating_sub(used) / 2;
        let granted = wanted.min(share.max(FETCH_BYTES_MIN));
        self.granted += granted;
        granted
    }

    /// A fetch is over, whatever it brought.
    pub fn end(&mut self, granted: u64) {
        self.granted = self.granted.saturating_sub(granted);
    }

    /// An answer waits for the client.
    pub fn wait(&mut self, bytes: usize) {
        self.untaken += bytes as u64;
    }

    /// The client takes an answer.
    pub fn take(&mut self, bytes: usize) {
        self.untaken = self.untaken.saturating_sub(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: u64 = 32 << 20;

    #[test]
    fn all_that_wait_stay_within_the_bound_but_for_the_least_that_each_may_bring() {
        let mut fetching = Fetching::new(BYTES_MAX);
        let granted: Vec<u64> = (0..1_000).map(|_| fetching.begin(u64::MAX)).collect();
        assert_eq!(granted[..3], [16 << 20, 8 << 20, 4 << 20]);
        assert_eq!(granted[999], FETCH_BYTES_MIN);
        assert!(granted.iter().sum::<u64>() <= BYTES_MAX + 1_000 * FETCH_BYTES_MIN);
        for one in granted {
            fetching.end(one);
        }
        assert_eq!(fetching.begin(u64::MAX), BYTES_MAX / 2);
    }

    #[test]
    fn what_the_client_does_not_take_leaves_less_for_the_next() {
        let mut fetching = Fetching::new(BYTES_MAX);
        assert_eq!(fetching.begin(1_000), 1_000);
        fetching.end(1_000);
        fetching.wait(BYTES_MAX as usize - 1);
        assert!(!fetching.is_full());
        assert_eq!(fetching.begin(u64::MAX), FETCH_BYTES_MIN);
        fetching.wait(1);
        assert!(fetching.is_full());
        fetching.take(BYTES_MAX as usize);
        assert!(!fetching.is_full());
        fetching.end(FETCH_BYTES_MIN);
        assert_eq!(fetching.begin(u64::MAX), BYTES_MAX / 2);
    }
}
