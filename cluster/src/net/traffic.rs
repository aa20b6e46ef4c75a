//! What goes over the links, counted where bytes enter and leave the sockets.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::network::Socket;

/// Counters of all links of a node since its start.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    snapshots_received: AtomicU64,
    snapshots_sent: AtomicU64,
}

/// What the counters say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkMetrics {
    /// Bytes that came from other nodes.
    pub received_bytes: u64,
    /// Bytes that went to other nodes.
    pub sent_bytes: u64,
    /// Snapshots that came whole.
    pub snapshots_received: u64,
    /// Snapshots that another node took whole.
    pub snapshots_sent: u64,
}

impl Traffic {
    pub fn snapshot_received(&self) {
        self.snapshots_received.fetch_add(1, Ordering::Relaxed);
    }

    pub fn snapshot_sent(&self) {
        self.snapshots_sent.fetch_add(1, Ordering::Relaxed);
    }

    pub fn metrics(&self) -> LinkMetrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkMetrics {
            received_bytes: load(&self.received_bytes),
            sent_bytes: load(&self.sent_bytes),
            snapshots_received: load(&self.snapshots_received),
            snapshots_sent: load(&self.snapshots_sent),
        }
    }
}

/// A socket whose bytes are counted.
pub(super) struct Counted {
    stream: Box<dyn Socket>,
    traffic: Arc<Traffic>,
}

impl Counted {
    pub fn new(stream: Box<dyn Socket>, traffic: Arc<Traffic>) -> Self {
        Self { stream, traffic }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            let bytes = bytes as u64;
            self.traffic.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        written
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = buffer.filled().len().saturating_sub(before) as u64;
        let counter = &self.traffic.received_bytes;
        counter.fetch_add(bytes, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn both_directions_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let near = TcpStream::connect(address).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let traffic = Arc::new(Traffic::default());
        let mut counted = Counted::new(Box::new(near), traffic.clone());
        counted.write_all(b"question").await.unwrap();
        let mut question = [0; 8];
        far.read_exact(&mut question).await.unwrap();
        far.write_all(b"yes").await.unwrap();
        let mut answer = [0; 3];
        counted.read_exact(&mut answer).await.unwrap();
        let metrics = traffic.metrics();
        assert_eq!((metrics.sent_bytes, metrics.received_bytes), (8, 3));
    }
}
