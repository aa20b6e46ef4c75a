//! Which thread runs: one at a time, until it waits.
//!
//! ```text
//!   runs --(futex, epoll, sleep, join)--> waits --(woken, timed out)--> runnable from a moment on
//!     ^                                                                        |
//!     '---------------- the earliest moment of all threads is next ------------'
//! ```
//!
//! Who runs has the baton, and with it everything below; it gives the baton on where it would wait. Time
//! goes on to the moment of the thread that is next, and by a little whenever a clock is read.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};

use super::kernel;
use super::random::Random;

/// Threads that ever were.
const THREADS_MAX: usize = 1 << 15;
/// Of a thread that is none of the simulation's.
const OUTSIDE: u32 = u32::MAX;
/// Reading a clock takes time, so that who waits for a moment by looking at it sees it come.
const CLOCK_READ_NS: u64 = 400;
/// How long a woken thread waits for a processor: usually, and when others had it.
const WAKE_NS_MAX: u64 = 20_000;
const STALL_NS_MAX: u64 = 30_000_000;
/// One wake of so many is a stall.
const STALL_ODDS: u64 = 500;
/// Threads of no host are never frozen.
pub const NO_HOST: u32 = 0;

/// What a thread waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Nothing,
    Futex { address: usize, bits: u32 },
    Epoll { descriptor: c_int },
    Time,
    End { of: u32 },
    Finished,
}

struct Thread {
    wait: Wait,
    /// When it runs at the latest: runnable from then on, or timed out.
    at_ns: u64,
    /// Whether its last wait was ended by another thread.
    is_woken: bool,
    handle: libc::pthread_t,
    is_joined: bool,
    host: u32,
}

pub struct Scheduler {
    now_ns: u64,
    limit_ns: u64,
    random: Random,
    threads: Vec<Thread>,
    /// Those that have not finished.
    live: Vec<u32>,
    current: u32,
    /// Until when the threads of a host do not run.
    frozen: Vec<(u32, u64)>,
    switches: u64,
    digest: u64,
    poll: Vec<libc::pollfd>,
    polled: Vec<u32>,
}

struct Baton(UnsafeCell<Option<Scheduler>>);

// SAFETY: only the thread that holds the baton looks inside; it is handed on by a release of the next
// thread's word, which that thread acquires.
unsafe impl Sync for Baton {}

static BATON: Baton = Baton(UnsafeCell::new(None));
/// One when the thread may run.
static GO: [AtomicU32; THREADS_MAX] = [const { AtomicU32::new(0) }; THREADS_MAX];

thread_local! {
    // Without a destructor, so that it is there until the thread has gone.
    static NUMBER: Cell<u32> = const { Cell::new(OUTSIDE) };
}

/// Whether this thread is one of the simulation's.
pub fn is_inside() -> bool {
    NUMBER.get() != OUTSIDE
}

/// Makes this thread the first of a simulation.
pub fn begin(seed: u64, limit_ns: u64) {
    let scheduler = Scheduler {
        now_ns: 0,
        limit_ns,
        random: Random::new(seed),
        threads: Vec::new(),
        live: Vec::new(),
        current: 0,
        frozen: Vec::new(),
        switches: 0,
        digest: 0xcbf2_9ce4_8422_2325,
        poll: Vec::new(),
        polled: Vec::new(),
    };
    // SAFETY: nobody else is inside yet.
    unsafe { *BATON.0.get() = Some(scheduler) };
    NUMBER.set(0);
    with(|scheduler| scheduler.add());
}

/// For who holds the baton.
pub fn with<T>(look: impl FnOnce(&mut Scheduler) -> T) -> T {
    // SAFETY: this thread is inside and runs, so it holds the baton; `look` does not wait.
    match unsafe { &mut *BATON.0.get() } {
        Some(scheduler) => look(scheduler),
        None => kernel::die("no simulation has begun\n", 3),
    }
}

/// Gives the baton to who is next and waits for it to come back.
fn switch() {
    let me = NUMBER.get();
    let next = with(Scheduler::choose);
    if next == me {
        return;
    }
    pass_to(next);
    wait_for_baton(me);
}

fn pass_to(next: u32) {
    let word = &GO[next as usize];
    word.store(1, Ordering::Release);
    kernel::wake(word);
}

fn wait_for_baton(me: u32) {
    let word = &GO[me as usize];
    while word.swap(0, Ordering::Acquire) == 0 {
        kernel::wait(word, 0);
    }
}

/// Waits until the word is woken, or until a moment; false if it was the moment.
pub fn wait_futex(address: usize, bits: u32, until_ns: Option<u64>) -> bool {
    with(|scheduler| scheduler.wait(Wait::Futex { address, bits }, until_ns));
    switch();
    with(|scheduler| scheduler.me().is_woken)
}

/// Lets threads go on that wait for the word, the longest waiting first; returns how many.
pub fn wake_futex(address: usize, bits: u32, count: usize) -> usize {
    with(|scheduler| {
        let mut woken = 0;
        for place in 0..scheduler.live.len() {
            if woken == count {
                break;
            }
            let number = scheduler.live[place];
            let wait = scheduler.threads[number as usize].wait;
            if matches!(wait, Wait::Futex { address: at, bits: wanted }
                if at == address && wanted & bits != 0)
            {
                scheduler.make_runnable(number);
                woken += 1;
            }
        }
        woken
    })
}

/// Waits until the descriptor can be read, or until a moment.
pub fn wait_epoll(descriptor: c_int, until_ns: Option<u64>) {
    with(|scheduler| scheduler.wait(Wait::Epoll { descriptor }, until_ns));
    switch();
}

pub fn sleep_until(until_ns: u64) {
    with(|scheduler| scheduler.wait(Wait::Time, Some(until_ns)));
    switch();
}

/// Lets others run.
pub fn give_way() {
    let now_ns = with(|scheduler| scheduler.now_ns);
    sleep_until(now_ns + 1_000);
}

/// A thread that is about to be made.
pub fn expect_thread() -> u32 {
    with(Scheduler::add)
}

/// It could not be made.
pub fn forget_thread(number: u32) {
    with(|scheduler| scheduler.finish(number));
}

pub fn name_thread(number: u32, handle: libc::pthread_t) {
    with(|scheduler| scheduler.threads[number as usize].handle = handle);
}

/// The first thing that a new thread does.
pub fn enter(number: u32) {
    NUMBER.set(number);
    wait_for_baton(number);
}

/// The last thing that a thread does.
pub fn leave() {
    let me = NUMBER.get();
    let next = with(|scheduler| {
        scheduler.finish(me);
        scheduler.choose()
    });
    NUMBER.set(OUTSIDE);
    pass_to(next);
}

/// Waits for the end of a thread.
pub fn wait_for_end(handle: libc::pthread_t) {
    let number = with(|scheduler| {
        // Handles are used again once their thread was joined.
        let mut threads = scheduler.threads.iter().enumerate().rev();
        let found = threads.find(|(_, thread)| thread.handle == handle && !thread.is_joined);
        found.map(|(number, _)| number)
    });
    let Some(number) = number else {
        return;
    };
    while with(|scheduler| scheduler.threads[number].wait != Wait::Finished) {
        let of = number as u32;
        with(|scheduler| scheduler.wait(Wait::End { of }, None));
        switch();
    }
    with(|scheduler| scheduler.threads[number].is_joined = true);
}

impl Scheduler {
    /// The present moment, a little later each time.
    pub fn read_clock(&mut self) -> u64 {
        self.now_ns += CLOCK_READ_NS;
        self.now_ns
    }

    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    pub fn fill_random(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let word = self.random.next().to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }

    /// Mixes something that happened into the digest of the run.
    pub fn note(&mut self, what: u64) {
        self.digest = (self.digest ^ what).wrapping_mul(0x0000_0100_0000_01b3);
        self.digest ^= self.digest >> 29;
    }

    /// What happened so far, in one number: which threads ran, in which order and when.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn switches(&self) -> u64 {
        self.switches
    }

    /// Threads that the present one starts from now on, and theirs, are of this host.
    pub fn settle_on(&mut self, host: u32) {
        self.me().host = host;
    }

    /// Stops the threads of a host for a while.
    pub fn freeze(&mut self, host: u32, until_ns: u64) {
        self.frozen.retain(|(other, _)| *other != host);
        self.frozen.push((host, until_ns));
    }

    fn me(&mut self) -> &mut Thread {
        &mut self.threads[self.current as usize]
    }

    fn add(&mut self) -> u32 {
        if self.threads.len() == THREADS_MAX {
            kernel::die("too many threads\n", 3);
        }
        let number = self.threads.len() as u32;
        let current = self.threads.get(self.current as usize);
        let host = current.map_or(NO_HOST, |thread| thread.host);
        self.threads.push(Thread {
            wait: Wait::Nothing,
            at_ns: 0,
            is_woken: false,
            handle: 0,
            is_joined: false,
            host,
        });
        self.live.push(number);
        self.make_runnable(number);
        number
    }

    fn finish(&mut self, number: u32) {
        self.threads[number as usize].wait = Wait::Finished;
        self.live.retain(|live| *live != number);
        for place in 0..self.live.len() {
            let waiting = self.live[place];
            if self.threads[waiting as usize].wait == (Wait::End { of: number }) {
                self.make_runnable(waiting);
            }
        }
    }

    fn wait(&mut self, wait: Wait, until_ns: Option<u64>) {
        let thread = self.me();
        thread.wait = wait;
        thread.is_woken = false;
        thread.at_ns = until_ns.unwrap_or(u64::MAX);
        // Who came to wait last is woken last.
        let current = self.current;
        self.live.retain(|live| *live != current);
        self.live.push(current);
    }

    fn make_runnable(&mut self, number: u32) {
        let latency_ns = match self.random.below(STALL_ODDS) {
            0 => self.random.below(STALL_NS_MAX),
            _ => self.random.below(WAKE_NS_MAX),
        };
        let thread = &mut self.threads[number as usize];
        thread.wait = Wait::Nothing;
        thread.is_woken = true;
        thread.at_ns = self.now_ns + latency_ns;
    }

    /// The thread that runs next, with the time moved on to it.
    fn choose(&mut self) -> u32 {
        self.wake_readable();
        let mut next = (u64::MAX, 0);
        for number in &self.live {
            let thread = &self.threads[*number as usize];
            let mut at_ns = thread.at_ns;
            if thread.host != NO_HOST
                && let Some((_, until_ns)) =
                    self.frozen.iter().find(|(host, _)| *host == thread.host)
            {
                at_ns = at_ns.max(*until_ns);
            }
            if at_ns < next.0 {
                next = (at_ns, *number);
            }
        }
        let (at_ns, number) = next;
        if at_ns == u64::MAX {
            kernel::die("every thread waits for another one\n", 4);
        }
        self.now_ns = self.now_ns.max(at_ns);
        if self.now_ns > self.limit_ns {
            kernel::die("the simulation takes too long\n", 5);
        }
        self.threads[number as usize].wait = Wait::Nothing;
        self.current = number;
        self.switches += 1;
        self.note((u64::from(number) << 48) ^ self.now_ns);
        number
    }

    /// Threads whose epoll has something for them are runnable.
    fn wake_readable(&mut self) {
        self.poll.clear();
        self.polled.clear();
        for number in &self.live {
            if let Wait::Epoll { descriptor } = self.threads[*number as usize].wait {
                self.polled.push(*number);
                self.poll.push(libc::pollfd {
                    fd: descriptor,
                    events: libc::POLLIN,
                    revents: 0,
                });
            }
        }
        if self.poll.is_empty() {
            return;
        }
        kernel::poll(&mut self.poll);
        for place in 0..self.poll.len() {
            if self.poll[place].revents != 0 {
                let number = self.polled[place];
                self.make_runnable(number);
            }
        }
    }
}
