//! The functions of libc that a simulation answers itself.
//!
//! Definitions in a binary take precedence over libc's: the standard library, tokio and sled call these
//! and need not know. A thread outside of a simulation gets what libc would do.

use std::ffi::{CStr, c_int, c_long, c_uint, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{kernel, scheduler};

/// Where the monotonic clock begins: far enough that nobody falls off its start.
const MONOTONIC_BEGIN_NS: u64 = 1_000_000 * 1_000_000_000;
/// Where the wall clock begins: some day in 2027.
const WALL_BEGIN_NS: u64 = 1_800_000_000 * 1_000_000_000;
const FUTEX_COMMANDS: c_int = !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
/// `PTHREAD_DESTRUCTOR_ITERATIONS` of glibc.
const KEY_ROUNDS: usize = 4;

static LEAVING: AtomicU32 = AtomicU32::new(u32::MAX);

/// Prepares for threads. Before the first one is made.
pub fn prepare() {
    let mut key = 0;
    // SAFETY: the key is written by the call; the destructor has the type that it wants.
    if unsafe { libc::pthread_key_create(&mut key, Some(leaving)) } != 0 {
        kernel::die("no key for the ends of threads\n", 3);
    }
    LEAVING.store(key, Ordering::Release);
}

/// Called as libc's function of the same name.
///
/// # Safety
/// As for that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    first: usize,
    second: usize,
    third: usize,
    fourth: usize,
    fifth: usize,
    sixth: usize,
) -> c_long {
    if scheduler::is_inside() {
        if number == libc::SYS_futex {
            // SAFETY: the caller vouches for its futex.
            return unsafe { futex(first, second as c_int, third, fourth, sixth) };
        }
        if number == libc::SYS_getrandom {
            // SAFETY: the caller vouches for its buffer.
            return unsafe { getrandom(first as *mut c_void, second, third as c_uint) } as c_long;
        }
    }
    // SAFETY: the caller vouches for the arguments.
    kernel::answer(unsafe { kernel::call(number, [first, second, third, fourth, fifth, sixth]) })
}

unsafe fn futex(
    address: usize,
    operation: c_int,
    value: usize,
    timeout: usize,
    bits: usize,
) -> c_long {
    let command = operation & FUTEX_COMMANDS;
    let bits = match command {
        libc::FUTEX_WAIT_BITSET | libc::FUTEX_WAKE_BITSET => bits as u32,
        _ => u32::MAX,
    };
    match command {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => {
            // SAFETY: the caller's word, which is aligned and lives while it waits.
            let word = unsafe { &*(address as *const AtomicU32) };
            if word.load(Ordering::SeqCst) != value as u32 {
                return kernel::fail(libc::EAGAIN);
            }
            let until_ns = (timeout != 0).then(|| {
                // SAFETY: the caller's timeout.
                let timeout_ns = nanos(unsafe { &*(timeout as *const libc::timespec) });
                match command {
                    libc::FUTEX_WAIT => timeout_ns + scheduler::with(|now| now.now_ns()),
                    _ if operation & libc::FUTEX_CLOCK_REALTIME != 0 => {
                        timeout_ns.saturating_sub(WALL_BEGIN_NS)
                    }
                    _ => timeout_ns.saturating_sub(MONOTONIC_BEGIN_NS),
                }
            });
            match scheduler::wait_futex(address, bits, until_ns) {
                true => 0,
                false => kernel::fail(libc::ETIMEDOUT),
            }
        }
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => {
            let count = usize::try_from(value as c_int).unwrap_or_default();
            scheduler::wake_futex(address, bits, count) as c_long
        }
        _ => kernel::die("a futex operation that is not simulated\n", 3),
    }
}

fn nanos(time: &libc::timespec) -> u64 {
    (time.tv_sec as u64).saturating_mul(1_000_000_000) + time.tv_nsec as u64
}

/// Called as libc's function of the same name.
///
/// # Safety
/// As for that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    if !scheduler::is_inside() {
        return kernel::clock(clock, time);
    }
    let begin_ns = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => WALL_BEGIN_NS,
        libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID => 0,
        _ => MONOTONIC_BEGIN_NS,
    };
    let now_ns = begin_ns + scheduler::with(|scheduler| scheduler.read_clock());
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        (*time).tv_sec = (now_ns / 1_000_000_000) as libc::time_t;
        (*time).tv_nsec = (now_ns % 1_000_000_000) as _;
    }
    0
}

/// Called as libc's function of the same name.
///
/// # Safety
/// As for that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_nanosleep(
    clock: libc::clockid_t,
    flags: c_int,
    wanted: *const libc::timespec,
    left: *mut libc::timespec,
) -> c_int {
    if !scheduler::is_inside() {
        let arguments = [
            clock as usize,
            flags as usize,
            wanted as usize,
            left as usize,
            0,
            0,
        ];
        // SAFETY: the caller vouches for the arguments.
        let raw = unsafe { kernel::call(libc::SYS_clock_nanosleep, arguments) };
        return -raw as c_int;
    }
    // SAFETY: the caller vouches for the pointer.
    let wanted_ns = nanos(unsafe { &*wanted });
    let until_ns = match flags & libc::TIMER_ABSTIME {
        0 => scheduler::with(|scheduler| scheduler.now_ns()) + wanted_ns,
        _ => wanted_ns.saturating_sub(MONOTONIC_BEGIN_NS),
    };
    scheduler::sleep_until(until_ns);
    0
}

/// Called as libc's function of the same name.
///
/// # Safety
/// As for that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, bytes: usize, flags: c_uint) -> isize {
    if !scheduler::is_inside() {
        let arguments = [buffer as usize, bytes, flags as usize, 0, 0, 0];
        // SAFETY: the caller vouches for the buffer.
        return kernel::answer(unsafe { kernel::call(libc::SYS_getrandom, arguments) }) as isize;
    }
    // SAFETY: the caller vouches for the buffer.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), bytes) };
    scheduler::with(|scheduler| scheduler.fill_random(buffer));
    bytes as isize
}

/// Called as libc's function of the same name.
#[unsafe(no_mangle)]
pub extern "C" fn sched_yield() -> c_int {
    if scheduler::is_inside() {
        scheduler::give_way();
        return 0;
    }
    // SAFETY: it takes nothing.
    kernel::answer(unsafe { kernel::call(libc::SYS_sched_yield, [0; 6]) }) as c_int
}

/// Called as libc's function of the same name.
///
/// # Safety
/// As for that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    descriptor: c_int,
    events: *mut libc::epoll_event,
    count: c_int,
    timeout_ms: c_int,
) -> c_int {
    let look = |timeout_ms: c_int| {
        let arguments = [
            descriptor as usize,
            events as usize,
            count as usize,
            timeout_ms as usize,
            0,
            8,
        ];
        // SAFETY: the caller vouches for the buffer.
        kernel::answer(unsafe { kernel::call(libc::SYS_epoll_pwait, arguments) }) as c_int
    };
    if !scheduler::is_inside() {
        return look(timeout_ms);
    }
    let found = look(0);
    if found != 0 {
        return found;
    }
    if timeout_ms == 0 {
        // A busy runtime looks in between; others may run too.
        scheduler::give_way();
    } else {
        let until_ns = u64::try_from(timeout_ms).ok().map(|timeout_ms| {
            scheduler::with(|scheduler| scheduler.now_ns()) + timeout_ms * 1_000_000
        });
        scheduler::wait_epoll(descriptor, until_ns);
    }
    look(0)
}

type Start = extern "C" fn(*mut c_void) -> *mut c_void;

struct Beginning {
    number: u32,
    start: Start,
    argument: *mut c_void,
}

/// Called as libc's function of the same name.
///
/// # Safety
/// As for that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_create(
    handle: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    type Create = unsafe extern "C" fn(
        *mut libc::pthread_t,
        *const libc::pthread_attr_t,
        Start,
        *mut c_void,
    ) -> c_int;
    let real = next_symbol(c"pthread_create");
    // SAFETY: libc's own function, which has this type.
    let create = unsafe { std::mem::transmute::<*mut c_void, Create>(real) };
    if !scheduler::is_inside() {
        // SAFETY: the caller vouches for the arguments.
        return unsafe { create(handle, attributes, start, argument) };
    }
    let number = scheduler::expect_thread();
    let beginning = Box::into_raw(Box::new(Beginning {
        number,
        start,
        argument,
    }));
    // SAFETY: the caller vouches for the rest, and `run` takes what it is given.
    let failure = unsafe { create(handle, attributes, run, beginning.cast()) };
    if failure != 0 {
        scheduler::forget_thread(number);
        // SAFETY: no thread has taken it.
        drop(unsafe { Box::from_raw(beginning) });
        return failure;
    }
    // SAFETY: a thread that was made has its handle there.
    scheduler::name_thread(number, unsafe { *handle });
    0
}

extern "C" fn run(beginning: *mut c_void) -> *mut c_void {
    // SAFETY: made for this thread by `pthread_create`.
    let beginning = unsafe { Box::from_raw(beginning.cast::<Beginning>()) };
    scheduler::enter(beginning.number);
    let key = LEAVING.load(Ordering::Acquire);
    // SAFETY: the key is there since before the first thread.
    unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(1)) };
    let Beginning {
        start, argument, ..
    } = *beginning;
    start(argument)
}

/// Called for a thread that ends, once in each round of destructors: leaves in the last one, when all
/// others have run.
unsafe extern "C" fn leaving(round: *mut c_void) {
    let round = round.addr();
    if round < KEY_ROUNDS {
        let key = LEAVING.load(Ordering::Acquire);
        // SAFETY: the key is there since before the first thread.
        unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(round + 1)) };
        return;
    }
    scheduler::leave();
}

/// Called as libc's function of the same name.
///
/// # Safety
/// As for that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_join(handle: libc::pthread_t, result: *mut *mut c_void) -> c_int {
    type Join = unsafe extern "C" fn(libc::pthread_t, *mut *mut c_void) -> c_int;
    if scheduler::is_inside() {
        scheduler::wait_for_end(handle);
    }
    let real = next_symbol(c"pthread_join");
    // SAFETY: libc's own function, which has this type.
    let join = unsafe { std::mem::transmute::<*mut c_void, Join>(real) };
    // SAFETY: the caller vouches for the arguments.
    unsafe { join(handle, result) }
}

fn next_symbol(name: &CStr) -> *mut c_void {
    // SAFETY: the name ends in NUL.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if found.is_null() {
        kernel::die("libc lacks a function\n", 3);
    }
    found
}
