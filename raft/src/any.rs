//! Any log, any state machine, any network: openraft's traits over trait objects.
//!
//! For each trait there is one of the same methods with boxed arguments and futures, which whatever has
//! openraft's has too, and a type that holds such an object and is openraft's again. A call is one more
//! allocation, beside the entries, files and connections that it is about.

mod log;
mod machine;
mod network;

pub use log::AnyLog;
pub use machine::{AnyMachine, AnySnapshot};
pub use network::AnyNetwork;
