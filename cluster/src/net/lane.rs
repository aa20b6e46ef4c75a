//! The lanes between two nodes, and what each may hold.

use std::time::Duration;

/// Which of the connections to a peer is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Small and urgent: heartbeats, votes, presence, forming.
    Control,
    /// Entries on their way to followers.
    Append,
    /// Large or many: snapshots, forwarded proposals and calls, conversations.
    Bulk,
}

impl Lane {
    pub(crate) const COUNT: usize = 3;

    pub(crate) fn number(self) -> usize {
        match self {
            Self::Control => 0,
            Self::Append => 1,
            Self::Bulk => 2,
        }
    }

    /// Bytes that the other side may send without having been read, over all streams of a connection.
    pub(crate) fn connection_window(self) -> u32 {
        match self {
            Self::Control => 16 << 20,
            // So many streams must stand still before they hold up the others.
            Self::Append | Self::Bulk => 64 << 20,
        }
    }
}

/// Bytes that one stream may send without having been read.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;
/// What a server lets any lane send: it cannot tell them apart when a connection opens.
pub(crate) const SERVER_CONNECTION_WINDOW: u32 = 64 << 20;
/// Streams of one connection at a time: two per group, and the calls and conversations.
pub(crate) const STREAMS_MAX: u32 = 4_096;
/// Bytes of a stream that wait for its window.
pub(crate) const SEND_BUFFER_BYTES: usize = 1 << 20;
/// A frame of HTTP/2: larger than its default, since every frame costs a look at the queues.
pub(crate) const FRAME_BYTES: u32 = 64 << 10;
/// How often an open connection is tried, and how long an answer may take: together the time in which
/// a dead or frozen peer is noticed.
pub(crate) const PING_INTERVAL: Duration = Duration::from_millis(500);
pub(crate) const PING_TIMEOUT: Duration = Duration::from_millis(1_500);
/// For all addresses of a peer together.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After a failed attempt the next one waits, longer each time.
pub(crate) const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
pub(crate) const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);
