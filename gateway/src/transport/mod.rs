//! What the gRPC protocols share: connections, bounded decoding, and word of what was written.
//!
//! ```text
//!   connection   accepts, counts, closes those that say nothing
//!   socket       a connection's bytes, as they are or under TLS
//!   lifecycle    whether requests are taken, an orderly end
//!   gate         before each call: ready? who calls? after: written?
//!   codec        bounds what a request becomes in memory
//!   inbound, outgoing   the two sides of a stream
//! ```

pub mod codec;
pub mod connection;
pub mod gate;
pub mod inbound;
pub mod lifecycle;
pub mod outgoing;
pub mod socket;
