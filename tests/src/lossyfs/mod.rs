//! A filesystem that loses what was not synced when its power is cut.
//!
//! `kill -9` leaves the page cache alone, so it says nothing about syncs. Here everything that a
//! process writes is volatile until it asks for durability, and [`Disk::cut_power`] forgets the rest:
//!
//! ```text
//!    write, truncate     create, rename, unlink
//!           |                     |
//!     volatile bytes        volatile names        what processes see
//!           | fsync(file)         | fsync(directory)
//!     durable bytes         durable names         what is there after a power cut
//! ```
//!
//! - [`content`]: the bytes of one file, as pages that both sides share until one changes.
//! - [`disk`]: files and directories with their two sides, and the cut.
//! - [`mount`]: the disk as a FUSE mount, for the real server to run on.
//!
//! The rules are stricter than those of most filesystems, on purpose: syncing a file does not make
//! its name durable, and syncing a directory does not make the files in it durable.

mod content;
mod disk;
mod filesystem;
mod mount;
#[cfg(test)]
mod tests;

pub use content::PAGE_BYTES;
pub use disk::{Disk, DiskError, Inode, ROOT, Survival, SyncBehaviour};
pub use mount::Mounted;
