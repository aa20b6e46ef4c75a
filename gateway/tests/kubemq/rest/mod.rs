//! REST and WebSocket over a real broker, asked as plain HTTP.

mod access;
mod calls;
mod limits;
mod sockets;
pub mod support;
