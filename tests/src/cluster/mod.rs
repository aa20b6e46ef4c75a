//! A cluster of real servers, each in a network namespace of its own, and what can be done to it.
//!
//! - [`namespace`], [`network`]: who reaches whom.

pub mod namespace;
pub mod network;
