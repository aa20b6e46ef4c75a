//! The machine that a simulation runs on: processors, clocks, randomness and files of real threads, all
//! decided by a seed.
//!
//! ```text
//!   node threads, log writers, blocking pools, sled's pool: real threads, real code
//!        |  futex   epoll   clocks   sleep   getrandom   pthread   fsync
//!        v
//!   symbols, file_symbols: libc's functions, defined anew in this binary
//!        |
//!        v
//!   scheduler: one thread at a time, virtual time          files: what was synced
//! ```
//!
//! A thread runs until it waits. Which one is next, and when, is decided by random latencies that come
//! from the seed, so a seed is one interleaving of all threads, and the same one every time. Nothing
//! waits for real: when all threads wait, time goes on to the next moment that one of them waits for.

mod file_symbols;
pub mod files;
mod heap;
mod kernel;
mod random;
mod scheduler;
mod symbols;

use std::time::Duration;

pub use heap::Heap;
pub use random::Random;

/// Makes the calling thread, which must be the only one, the first of a simulation. The process ends
/// when more than `limit` of virtual time has gone by.
pub fn begin(seed: u64, limit: Duration) {
    symbols::prepare();
    scheduler::begin(seed, nanos(limit));
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Virtual time since the beginning.
pub fn now() -> Duration {
    Duration::from_nanos(scheduler::with(|scheduler| scheduler.now_ns()))
}

/// Everything that happened so far, in one number: the same for the same seed.
pub fn digest() -> u64 {
    scheduler::with(|scheduler| scheduler.digest())
}

/// How often another thread's turn came.
pub fn switches() -> u64 {
    scheduler::with(|scheduler| scheduler.switches())
}

/// Mixes an event into the digest.
pub fn note(what: u64) {
    scheduler::with(|scheduler| scheduler.note(what));
}

/// Threads that this one starts from now on, and theirs, are of a host.
pub fn settle_on(host: u32) {
    scheduler::with(|scheduler| scheduler.settle_on(host));
}

/// Stops the threads of a host for a while, as SIGSTOP does.
pub fn freeze(host: u32, duration: Duration) {
    scheduler::with(|scheduler| {
        let until_ns = scheduler.now_ns() + nanos(duration);
        scheduler.freeze(host, until_ns);
    });
}
