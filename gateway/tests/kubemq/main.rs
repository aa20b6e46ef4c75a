//! The KubeMQ gateway over a real broker, asked by a gRPC client.

// Helpers of tests are not seen as tests by the lint that allows this there.
#![allow(clippy::unwrap_used)]

mod access_rules;
mod authentication;
mod authorization;
mod bound_clients;
mod certificates;
mod channels;
mod documented;
mod encrypting;
mod encryption;
mod errors;
mod events;
mod fuzz;
mod gone;
mod hands;
mod hostile;
mod limits;
mod query_cache;
mod queues;
mod queues_info;
mod requests;
mod requeue;
mod rest;
mod routing;
mod settings;
#[path = "../shared/mod.rs"]
mod shared;
mod shutdown;
mod silence;
mod store;
mod streams;
mod support;
mod transactions;
mod two_streams;
