//! The functions of libc by which files get durable: they do what they do, and it is noted.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::{files, kernel, scheduler};

/// Called as libc's function of the same name.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(descriptor: c_int) -> c_int {
    // SAFETY: any number will do.
    let raw = unsafe { kernel::call(libc::SYS_fsync, [descriptor as usize, 0, 0, 0, 0, 0]) };
    if raw == 0 && scheduler::is_inside() {
        files::synced(descriptor);
    }
    kernel::answer(raw) as c_int
}

/// Called as libc's function of the same name.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    fsync(descriptor)
}

/// Called as libc's function of the same name.
///
/// # Safety
/// As for that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(
    descriptor: c_int,
    bytes: *const c_void,
    count: usize,
    offset: libc::off64_t,
) -> isize {
    let arguments = [
        descriptor as usize,
        bytes as usize,
        count,
        offset as usize,
        0,
        0,
    ];
    // SAFETY: the caller vouches for the arguments.
    let raw = unsafe { kernel::call(libc::SYS_pwrite64, arguments) };
    if raw > 0 && scheduler::is_inside() {
        files::written(descriptor, offset as u64, raw as u64);
    }
    kernel::answer(raw) as isize
}

/// Called as libc's function of the same name.
///
/// # Safety
/// As for that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller vouches for the names.
    let (from, to) = unsafe { (CStr::from_ptr(from), CStr::from_ptr(to)) };
    let raw = kernel::rename(from, to);
    if raw == 0 && scheduler::is_inside() {
        files::renamed(from, to);
    }
    kernel::answer(raw) as c_int
}

/// Called as libc's function of the same name.
///
/// # Safety
/// As for that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(name: *const c_char) -> c_int {
    // SAFETY: the caller vouches for the name.
    let name = unsafe { CStr::from_ptr(name) };
    let raw = kernel::unlink(name);
    if raw == 0 && scheduler::is_inside() {
        files::unlinked(name);
    }
    kernel::answer(raw) as c_int
}
