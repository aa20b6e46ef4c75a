//! Single promises of a shard, each with the smallest story that shows it.

#![allow(
    clippy::unwrap_used,
    reason = "a panic in a test is its report of failure"
)]

mod formats;
mod harness;
mod metadata;
mod queue;
mod session;
mod shard;
mod withdrawal;
