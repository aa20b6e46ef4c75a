//! Memory at the same addresses in every process.
//!
//! `parking_lot` decides by the address of a lock when it is fair, so where things lie is part of what a
//! seed decides. The system's allocator begins somewhere else in every process.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::{null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicBool, Ordering};

use super::kernel;

/// Where nothing else is put by the kernel.
const BEGIN: usize = 0x2000_0000_0000;
/// Reserved, not used.
const BYTES: usize = 64 << 30;
/// Blocks are powers of two from this one on.
const CLASS_FIRST: u32 = 4;
const CLASSES: usize = 40;

struct Blocks {
    end: usize,
    /// Free blocks of each size; the first word of each is the address of the next.
    free: [usize; CLASSES],
}

/// Blocks of a fixed piece of memory; none of it is given back.
pub struct Heap {
    is_locked: AtomicBool,
    blocks: UnsafeCell<Blocks>,
}

// SAFETY: what is inside is only touched under the lock.
unsafe impl Sync for Heap {}

impl Heap {
    pub const fn new() -> Self {
        Self {
            is_locked: AtomicBool::new(false),
            blocks: UnsafeCell::new(Blocks {
                end: 0,
                free: [0; CLASSES],
            }),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Blocks) -> T) -> T {
        // Threads of a simulation never meet here, and others do not stay long.
        while self.is_locked.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: the lock is held.
        let outcome = work(unsafe { &mut *self.blocks.get() });
        self.is_locked.store(false, Ordering::Release);
        outcome
    }
}

/// The class of a block that a layout fits into.
fn class_of(layout: Layout) -> usize {
    let bytes = layout.size().max(layout.align()).max(1 << CLASS_FIRST);
    (bytes.next_power_of_two().trailing_zeros() - CLASS_FIRST) as usize
}

impl Blocks {
    fn take(&mut self, class: usize) -> usize {
        let Some(free) = self.free.get_mut(class) else {
            return 0;
        };
        if *free != 0 {
            let block = *free;
            // SAFETY: a free block begins with the address of the next one.
            *free = unsafe { *(without_provenance_mut::<usize>(block)) };
            return block;
        }
        if self.end == 0 {
            self.end = reserve();
        }
        let bytes = 1_usize << (class as u32 + CLASS_FIRST);
        // Blocks are aligned to their size, which is a power of two.
        let block = self.end.next_multiple_of(bytes);
        if block + bytes > BEGIN + BYTES {
            return 0;
        }
        self.end = block + bytes;
        block
    }

    fn give_back(&mut self, block: usize, class: usize) {
        // SAFETY: the block is at least a word long, and nobody uses it any more.
        unsafe { *(without_provenance_mut::<usize>(block)) = self.free[class] };
        self.free[class] = block;
    }
}

fn reserve() -> usize {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags =
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let arguments = [
        BEGIN,
        BYTES,
        protection as usize,
        flags as usize,
        usize::MAX,
        0,
    ];
    // SAFETY: nothing is mapped there, or the call fails.
    let found = unsafe { kernel::call(libc::SYS_mmap, arguments) };
    if found != BEGIN as isize {
        kernel::die("no memory at the addresses of a simulation\n", 3);
    }
    BEGIN
}

// SAFETY: blocks are disjoint, as large and as aligned as asked for, and live until they are given back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.with(|blocks| blocks.take(class_of(layout)));
        match block {
            0 => null_mut(),
            block => std::ptr::with_exposed_provenance_mut(block),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.with(|blocks| blocks.give_back(block.addr(), class_of(layout)));
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller vouches for the size.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        if class_of(wanted) == class_of(layout) {
            return block;
        }
        // SAFETY: as for the parts; both blocks hold what is copied.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(block, moved, bytes.min(layout.size()));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}
