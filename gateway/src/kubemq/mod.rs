//! The KubeMQ gRPC protocol, for unmodified KubeMQ clients.
//!
//! ```text
//!   server       accepts, ends, HTTP/2 settings            connection, lifecycle
//!   gate         before each call: ready? after: written?
//!   service      one method per call of the protocol
//!     |- ping, events_send, events_subscribe -> store_subscribe
//!     |- queue_send <- upstream
//!     |- queue_receive, downstream
//!   codec, validate, convert, error: what requests may be, must be, become, and are told
//! ```

mod codec;
mod config;
mod connection;
mod context;
mod convert;
mod downstream;
mod error;
mod events_send;
mod events_subscribe;
mod exchange;
mod gate;
mod inbound;
mod lifecycle;
mod ping;
mod queue_receive;
mod queue_send;
mod server;
mod service;
mod store_subscribe;
mod upstream;
mod validate;

pub use config::{KubemqConfig, KubemqLimits};
pub use server::serve;

/// The protocol's messages, and a client for tests and tools.
#[allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant)]
pub mod protocol {
    tonic::include_proto!("kubemq");
}
