//! Makes sled's flush reach the disk.
//!
//! sled 0.34 ends each buffer write with `sync_file_range`, which starts write-back but asks the
//! device for nothing: after a power cut the records may be gone, older ones too, since sled reuses
//! space once it believes the successors safe. The symbol below takes precedence over libc's in the
//! final binary, so that every such call becomes an `fdatasync`.

use std::sync::atomic::{AtomicU64, Ordering};

static SYNC_CALLS: AtomicU64 = AtomicU64::new(0);

/// Keeps the definition in every binary that links this crate, even if nothing here names it.
#[used]
static KEEP: unsafe extern "C" fn(
    libc::c_int,
    libc::off64_t,
    libc::off64_t,
    libc::c_uint,
) -> libc::c_int = sync_file_range;

/// # Safety
/// Called as libc's function of the same name; the arguments other than the descriptor are not used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sync_file_range(
    descriptor: libc::c_int,
    _offset: libc::off64_t,
    _bytes: libc::off64_t,
    _flags: libc::c_uint,
) -> libc::c_int {
    SYNC_CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: fdatasync takes any integer and answers EBADF for one that is no open descriptor.
    unsafe { libc::fdatasync(descriptor) }
}

/// How often sled asked for its data to be durable.
pub fn sync_calls() -> u64 {
    SYNC_CALLS.load(Ordering::Relaxed)
}
