//! The bench: the same workloads against Flotilla, against the brokers that people would pick instead,
//! and against the limits of the machine, side by side.
//!
//! [`target`] says what a system under test must be able to do, [`workload`] what is asked of it, and
//! [`supervise`] starts, watches and ends its processes.

pub mod error;
pub mod supervise;
pub mod target;
pub mod workload;

pub use error::BenchError;
