//! A cluster of real servers, each in a network namespace of its own, and what can be done to it.
//!
//! - [`namespace`], [`network`]: who reaches whom.
//! - [`clock`]: wall clocks that are moved.
//! - [`node`]: one server with its disk and its clock, killed, frozen, started again.
//! - [`status`]: what a node says about the cluster.
//! - [`usage`]: what a server takes of the machine.
//! - [`fleet`]: all nodes together.
//! - `spoil`: damage to the files of a node.
//! - [`fault`], [`campaign`]: what happens to them under load, and the verdict.

pub mod campaign;
pub mod clock;
pub mod fault;
pub mod fleet;
pub mod namespace;
pub mod network;
pub mod node;
mod spoil;
pub mod status;
pub mod usage;

pub use campaign::Campaign;
pub use fault::Fault;
pub use fleet::{Fleet, Layout, WHOLE_WITHIN};
pub use network::Place;
pub use node::{DiskKind, Node};
