//! The history of a workload, and the checks of what was promised to it.
//!
//! - [`event`]: what clients did and saw, and when.
//! - [`topic`]: topics, all readers together.
//! - [`delivery`], [`queue`]: who held which message of a queue, and until when.
//! - [`order`]: the order of the store against the clock.
//! - [`check`]: all of it.
//!
//! What needs no moments is checked by [`crate::checker`].

pub mod check;
pub mod delivery;
pub mod event;
pub mod order;
pub mod queue;
pub mod topic;

#[cfg(test)]
mod tests;

pub use event::{
    Fault, History, HoldId, Moment, QueueHistory, Read, Receipt, Recorder, Send, Settle,
    Settlement, TopicHistory,
};
