//! Connections to Flotilla, and what its errors say.

use crate::BenchError;
use crate::protocol::flotilla::v1;
use std::net::SocketAddr;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// How many bytes the other side may send ahead of the reader.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Longest HTTP/2 frame that the other side may send: fewer calls to the system for a batch.
pub const HTTP2_FRAME_BYTES_MAX: u32 = 256 << 10;
/// Frames that wait to be written. What is under way is bounded by the workload; this many frames are
/// never one of it alone.
const FRAMES_WAITING_MAX: usize = 64;
/// Longer frames are not understood.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

pub async fn connect(address: SocketAddr) -> Result<Channel, BenchError> {
    Endpoint::from_shared(format!("http://{address}"))
        .map_err(BenchError::client("make an address"))?
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .connect()
        .await
        .map_err(BenchError::client(format!("connect to {address}")))
}

/// The two ends of what a client sends on a stream.
pub fn outbox<T>() -> (mpsc::Sender<T>, ReceiverStream<T>) {
    let (sender, receiver) = mpsc::channel(FRAMES_WAITING_MAX);
    (sender, ReceiverStream::new(receiver))
}

/// An answer that stands for a failure.
pub fn refused(doing: &str, error: &v1::Error) -> BenchError {
    BenchError::Refused {
        doing: doing.to_owned(),
        text: format!("{:?}: {}", error.code(), error.text),
    }
}

/// A record with nothing but a body.
pub fn record(body: &bytes::Bytes) -> v1::Record {
    v1::Record {
        body: body.clone(),
        ..v1::Record::default()
    }
}
