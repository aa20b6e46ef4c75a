//! The protocols that clients speak: one module each, over the [`Broker`](flotilla_broker::Broker) facade.
//!
//! A gateway translates its protocol's words to the broker's and back. It holds what belongs to a
//! connection (streams, transactions, replies not yet written) and decides nothing about messages.
//!
//! ```text
//!   server      one listener for both gRPC protocols
//!     |- kubemq       for unmodified KubeMQ clients
//!     |- native       Flotilla's own: batches on streams
//!   transport   what they share
//!   fetching, auto_ack: what their consumers of queues share
//! ```

mod auto_ack;
mod error;
mod fetching;
pub mod kubemq;
pub mod native;
mod server;
mod transport;

pub use error::GatewayError;
pub use kubemq::{KubemqConfig, KubemqLimits};
pub use server::serve;
