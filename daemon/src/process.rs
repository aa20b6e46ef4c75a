//! What the process asks of the system: open files, few allocator pools, the host's name, and a loud
//! end for panics.

use std::panic;

use tracing::{error, warn};

/// Below this many open files a busy node is likely to run out: each client is one.
const OPEN_FILES_LOW: u64 = 4_096;

/// Raises the limit of open files to what the system allows, and says so if that is little.
pub fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live rlimit, which the call fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        let error = std::io::Error::last_os_error();
        warn!(%error, "cannot read the limit of open files");
        return;
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live rlimit, which the call only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        let error = std::io::Error::last_os_error();
        warn!(%error, limit = before, "cannot raise the limit of open files");
        limit.rlim_cur = before;
    }
    if limit.rlim_cur < OPEN_FILES_LOW {
        warn!(
            limit = limit.rlim_cur,
            wanted = OPEN_FILES_LOW,
            "the limit of open files is low: every client connection needs one"
        );
    }
}

/// Keeps the allocator's pools few, before any thread has one of its own.
///
/// State records live long and are made and dropped by whichever thread has work: with a pool for
/// each thread, memory that is free in one pool is no use to the others. Writing 12 million index
/// records ended at 310 MB resident with one pool, and at 530 MB and growing with eight.
#[cfg(target_env = "gnu")]
pub fn bound_malloc_arenas() {
    const ARENAS_MAX: libc::c_int = 2;
    // SAFETY: mallopt takes plain numbers; it is called before other threads exist.
    if unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) } != 1 {
        warn!("cannot bound the number of allocator pools");
    }
}

/// Other allocators have no such pools.
#[cfg(not(target_env = "gnu"))]
pub fn bound_malloc_arenas() {}

/// The host's name, or a fixed one where the system will not say.
pub fn host_name() -> String {
    let mut buffer = [0u8; 256];
    // SAFETY: the buffer is live and its length is given; one byte is kept back, so that the text
    // is ended even when the system cut it.
    let result = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) };
    let length = buffer.iter().position(|byte| *byte == 0).unwrap_or(0);
    let name = String::from_utf8_lossy(&buffer[..length]);
    if result != 0 || name.is_empty() {
        return "flotilla".to_owned();
    }
    name.into_owned()
}

/// Writes every panic to the log, with its thread and place, before the thread unwinds.
pub fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let what = info
            .payload_as_str()
            .unwrap_or("a panic whose payload is no text");
        let place = info.location().map(ToString::to_string);
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        error!(
            thread = thread.name().unwrap_or("unnamed"),
            place = place.as_deref().unwrap_or("unknown"),
            %backtrace,
            "panic: {what}"
        );
    }));
}
