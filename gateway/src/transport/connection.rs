//! Accepting connections: at most as many as allowed, each counted while it lives.
//!
//! Nothing is waited for here but the next connection: a TLS handshake is made by the task that serves it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use flotilla_broker::Broker;
use futures::Stream;
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use super::socket::Socket;

/// After a failed accept, for lack of file descriptors for instance, others must get a chance to close.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// What a listener allows.
pub struct Admission {
    /// The label of its clients in the broker's figures.
    pub protocol: &'static str,
    /// Connections at most; further ones are closed as they come.
    pub connections_max: usize,
    /// A connection that has not sent its opening after this long is closed; under TLS: after the handshake, which
    /// is a part of that time.
    pub handshake_wait_max: Duration,
    /// Bytes of that opening: after them the protocol itself looks after clients that say nothing.
    pub opening_bytes: usize,
    /// `None`: connections are not encrypted.
    pub tls: Option<TlsAcceptor>,
}

/// The connections of a listener, without end.
pub fn accept(
    listener: TcpListener,
    broker: Broker,
    admission: Admission,
) -> impl Stream<Item = io::Result<Connection>> + use<> {
    let Admission {
        protocol,
        connections_max,
        handshake_wait_max,
        opening_bytes,
        tls,
    } = admission;
    let places = Arc::new(Semaphore::new(connections_max));
    stream::unfold(listener, move |listener| {
        let places = Arc::clone(&places);
        let broker = broker.clone();
        let tls = tls.clone();
        async move {
            loop {
                let (socket, peer) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        warn!(%error, "failed to accept a connection");
                        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                        continue;
                    }
                };
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    warn!(%peer, connections_max, "closed a connection: there are too many");
                    continue;
                };
                // Replies are small and waited for: never hold one back for a fuller packet.
                if let Err(error) = socket.set_nodelay(true) {
                    debug!(%peer, %error, "the connection was gone at once");
                    continue;
                }
                broker.client_connected(protocol);
                let connection = Connection {
                    info: socket.connect_info(),
                    socket: Socket::new(socket, tls.as_ref()),
                    opening_deadline: Some(Box::pin(tokio::time::sleep(handshake_wait_max))),
                    opening_bytes_left: opening_bytes,
                    broker,
                    protocol,
                    _place: place,
                };
                return Some((Ok(connection), listener));
            }
        }
    })
}

/// One client's connection. Its place is free again when it is dropped.
pub struct Connection {
    socket: Socket,
    info: TcpConnectInfo,
    /// Until the opening was read: a connection that says nothing must not keep its place.
    opening_deadline: Option<Pin<Box<Sleep>>>,
    opening_bytes_left: usize,
    broker: Broker,
    protocol: &'static str,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// What a socket says, or that its client has said nothing for too long.
    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending()
            && let Some(deadline) = &mut self.opening_deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.broker.client_disconnected(self.protocol);
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if self.opening_deadline.is_some() {
            let bytes = buffer.filled().len() - filled;
            self.opening_bytes_left = self.opening_bytes_left.saturating_sub(bytes);
            if self.opening_bytes_left == 0 {
                self.opening_deadline = None;
            }
        }
        self.in_time(context, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, buffer);
        self.in_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, buffers);
        self.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        self.in_time(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
