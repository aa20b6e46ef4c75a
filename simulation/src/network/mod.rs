//! A network in memory, between the hosts of a simulation.
//!
//! ```text
//!   Port::connect ----> Wires: who reaches whom, how slowly ----> Port::incoming
//!        |                                                            |
//!      Socket ==== pipe: bytes with the moment of their arrival ==== Socket
//!      Socket ==== pipe                                         ==== Socket
//! ```
//!
//! Connections keep the order of their bytes and lose none, as TCP does: a lost packet is a pause, a cut
//! link is silence until it heals or somebody gives up. Different connections overtake each other.

mod pipe;
mod port;
mod wires;

pub use port::Port;
pub use wires::{Weather, Wires};
