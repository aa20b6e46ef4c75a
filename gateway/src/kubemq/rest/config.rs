//! Settings of the REST and WebSocket listener.

const MIB: usize = 1024 * 1024;

/// Settings of the REST and WebSocket listener; what it shares with gRPC is in
/// [`KubemqConfig`](crate::KubemqConfig).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestConfig {
    /// Largest body of a request, and largest message of a WebSocket, in bytes.
    pub body_bytes_max: usize,
    /// Bytes of all bodies, and of the long messages of WebSockets, that are read and worked on together at most;
    /// further ones wait unread.
    pub bodies_bytes_max: usize,
    /// Connections at most, WebSockets included; further ones are closed as they come. Each has one request
    /// under way at most.
    pub connections_max: usize,
}

impl Default for RestConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 * MIB,
            bodies_bytes_max: 128 * MIB,
            connections_max: 1_000,
        }
    }
}
