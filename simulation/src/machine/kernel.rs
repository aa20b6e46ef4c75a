//! System calls without libc, whose functions this binary replaces.

use std::arch::asm;
use std::ffi::{CStr, c_int, c_long};
use std::sync::atomic::AtomicU32;

/// Calls the kernel; a negative answer is an error number.
///
/// # Safety
/// The arguments must be what the call wants.
pub unsafe fn call(number: c_long, arguments: [usize; 6]) -> isize {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let answer: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: this is the kernel's calling convention; it changes the named registers only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") first, in("rsi") second, in("rdx") third,
            in("r10") fourth, in("r8") fifth, in("r9") sixth,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") first as isize => answer,
            in("x1") second, in("x2") third, in("x3") fourth, in("x4") fifth, in("x5") sixth,
            options(nostack)
        );
    }
    answer
}

/// An answer of the kernel as libc gives it: -1, and the error in `errno`.
pub fn answer(raw: isize) -> c_long {
    if raw >= 0 {
        return raw as c_long;
    }
    fail(-raw as c_int)
}

/// -1, and the error in `errno`.
pub fn fail(error: c_int) -> c_long {
    // SAFETY: the location is the calling thread's own.
    unsafe { *libc::__errno_location() = error };
    -1
}

pub fn clock(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    // SAFETY: the caller of `clock_gettime` vouches for the pointer.
    let raw = unsafe {
        call(
            libc::SYS_clock_gettime,
            [clock as usize, time as usize, 0, 0, 0, 0],
        )
    };
    answer(raw) as c_int
}

/// Sleeps, for real, while the word has a value.
pub fn wait(word: &AtomicU32, value: u32) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let address = std::ptr::from_ref(word) as usize;
    // SAFETY: the word lives across the call; an early return is the caller's to notice.
    unsafe {
        call(
            libc::SYS_futex,
            [address, operation as usize, value as usize, 0, 0, 0],
        )
    };
}

/// Wakes the one thread that sleeps at the word.
pub fn wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    let address = std::ptr::from_ref(word) as usize;
    // SAFETY: the word lives across the call.
    unsafe { call(libc::SYS_futex, [address, operation as usize, 1, 0, 0, 0]) };
}

/// Marks which of the descriptors can be read, without waiting.
pub fn poll(descriptors: &mut [libc::pollfd]) {
    let none = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the slice and the timeout live across the call.
    unsafe {
        call(
            libc::SYS_ppoll,
            [
                descriptors.as_mut_ptr() as usize,
                descriptors.len(),
                std::ptr::from_ref(&none) as usize,
                0,
                8,
                0,
            ],
        )
    };
}

pub fn rename(from: &CStr, to: &CStr) -> isize {
    let here = libc::AT_FDCWD as usize;
    // SAFETY: both names end in NUL and live across the call.
    unsafe {
        call(
            libc::SYS_renameat2,
            [
                here,
                from.as_ptr() as usize,
                here,
                to.as_ptr() as usize,
                0,
                0,
            ],
        )
    }
}

pub fn unlink(name: &CStr) -> isize {
    let here = libc::AT_FDCWD as usize;
    // SAFETY: the name ends in NUL and lives across the call.
    unsafe {
        call(
            libc::SYS_unlinkat,
            [here, name.as_ptr() as usize, 0, 0, 0, 0],
        )
    }
}

/// Ends the process with a word on standard error, where nothing else works any more.
pub fn die(words: &str, code: i32) -> ! {
    // SAFETY: the bytes live across the call, and `exit_group` does not return.
    unsafe {
        call(
            libc::SYS_write,
            [2, words.as_ptr() as usize, words.len(), 0, 0, 0],
        );
        call(libc::SYS_exit_group, [code as usize, 0, 0, 0, 0, 0]);
    }
    unreachable!("the process has ended")
}
