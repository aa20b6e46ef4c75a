//! Clients of a cluster that send, read and consume through faults, and write a history of it.
//!
//! ```text
//!   producers -> topics -> readers, one each            every client has a home node, goes to
//!   producers -> queues -> consumers, two each          another one when a call fails, and
//!                 |                                     comes home after a while
//!                 +-- rejected too often --> dead letters
//! ```
//!
//! - [`message`]: messages that tell who sent them.
//! - [`route`]: which node a client is connected to.
//! - [`produce`], [`follow`], [`consume`]: the clients.
//! - [`read_back`]: everything that is there at the end.
//! - [`run`]: all of it together.
//! - [`burst`]: one event to each of many topics.
//! - [`calls`]: single calls, for tests that say what must come of each.

pub mod burst;
pub mod calls;
pub mod consume;
pub mod follow;
pub mod message;
pub mod produce;
pub mod read_back;
pub mod route;
pub mod run;

/// The protocol's own types.
#[allow(clippy::all)]
pub mod protocol {
    tonic::include_proto!("kubemq");
}

pub use run::{Plan, Workload};
