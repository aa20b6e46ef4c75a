//! Tests of the log as a whole, against its public interface.

mod basics;
mod checkpoints;
mod compaction;
mod compaction_crash;
mod crash;
mod damage;
mod imports;
mod mending;
mod model;
mod retention;
mod snapshots;
mod support;
