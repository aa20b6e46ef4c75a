//! The admin interface: REST for topics, queues, groups and nodes, `/metrics`, and health.
//!
//! It translates HTTP to the broker's facade and decides nothing itself.
//!
//! ```text
//!   HTTP -> routes -> handlers::*  -> Broker      JSON shapes: view
//!                        |                        errors: error
//!                      state (starting | serving | stopping)
//! ```
//!
//! It listens before the broker runs, so that a probe can tell a node that is starting from one
//! that is dead.

mod error;
mod handlers;
mod kubemq_metrics;
mod metrics;
mod process;
mod query;
mod routes;
mod server;
mod settings;
mod state;
mod view;

#[cfg(test)]
mod broker_test;
#[cfg(test)]
mod kubemq_test;
#[cfg(test)]
mod openapi_test;
#[cfg(test)]
mod tests;

pub use server::serve;
pub use state::{Admin, AdminConfig};
