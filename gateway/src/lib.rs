//! The protocols that clients speak: one module each, over the [`Broker`](flotilla_broker::Broker) facade.
//!
//! A gateway translates its protocol's words to the broker's and back. It holds what belongs to a
//! connection (streams, transactions, replies not yet written) and decides nothing about messages.

mod error;
pub mod kubemq;

pub use error::GatewayError;
pub use kubemq::{KubemqConfig, KubemqLimits, serve};
