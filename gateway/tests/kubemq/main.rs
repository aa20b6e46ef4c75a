//! The KubeMQ gateway over a real broker, asked by a gRPC client.

mod events;
mod limits;
mod queues;
mod shutdown;
mod store;
mod streams;
mod support;
