//! The public types of the facade, by subject.

pub mod admin;
pub mod cluster;
pub mod error;
pub mod figures;
pub mod queue;
pub mod request;
pub mod signal;
pub mod topic;
