//! The protocols that clients speak: one module each, over the [`Broker`](flotilla_broker::Broker) facade.
//!
//! A gateway translates its protocol's words to the broker's and back. It holds what belongs to a
//! connection (streams, transactions, replies not yet written) and decides nothing about messages.
//!
//! ```text
//!   server      one listener for both gRPC protocols, one for REST and WebSocket
//!   access      who may come in, and what they may do there
//!     |- kubemq       for unmodified KubeMQ clients
//!     |- native       Flotilla's own: batches on streams
//!   transport   what they share
//!   consumer    streams on which clients take messages out of queues and settle them, of either protocol
//! ```

pub mod access;
#[cfg(test)]
mod any_json;
mod consumer;
mod error;
pub mod kubemq;
pub mod native;
mod server;
mod transport;

pub use error::GatewayError;
pub use kubemq::{KubemqConfig, KubemqLimits, RestConfig, Routes};
pub use server::{Listeners, Security, serve};
