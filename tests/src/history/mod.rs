//! The history of a workload, and the checks of what was promised to it.
//!
//! - [`event`]: what clients did and saw, and when.

pub mod event;

pub use event::{
    Fault, History, HoldId, Moment, QueueHistory, Read, Receipt, Recorder, Send, Settle,
    Settlement, TopicHistory,
};
