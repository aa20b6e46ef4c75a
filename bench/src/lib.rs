//! The bench: the same workloads against Flotilla, against the brokers that people would pick instead,
//! and against the limits of the machine, side by side.
//!
//! ```text
//!   main: command line
//!     |- harness    rounds of interleaved runs      check    two builds of Flotilla in pairs
//!     |    |- workload      what is asked             \- statistics, harness
//!     |    |- competitors   of whom
//!     |    |- supervise     their processes
//!     |    '- measure       what counts, what it cost
//!     '- report     JSON, Markdown with the goals, a chart
//! ```
//!
//! [`target`] says what a system under test must be able to do.

pub mod check;
pub mod competitors;
pub mod error;
pub mod goals;
pub mod harness;
pub mod machine;
pub mod measure;
mod protocol;
pub mod report;
pub mod statistics;
pub mod supervise;
pub mod target;
#[cfg(test)]
mod testing;
pub mod workload;

pub use error::BenchError;
