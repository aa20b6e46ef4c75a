//! The native protocol over a real broker, asked by a gRPC client.

// The futures of the broker lie deep in those of the tests.
#![recursion_limit = "256"]
// Helpers of tests are not seen as tests by the lint that allows this there.
#![allow(clippy::unwrap_used)]

mod access;
mod consume;
mod consume_bounds;
mod consumer;
mod publish;
mod request_ends;
mod requests;
mod send;
#[path = "../shared/mod.rs"]
mod shared;
mod shutdown;
mod signals;
mod subscribe;
mod support;
