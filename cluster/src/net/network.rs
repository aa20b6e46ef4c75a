//! The seam between the links and what carries their bytes.
//!
//! Every connection to and from other nodes goes through [`Network`] and [`Listen`], so that a simulation
//! can delay, hold and cut them.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::lane::CONNECT_TIMEOUT;

/// No address gets less, however many a name has.
const ADDRESS_TIMEOUT_MIN: Duration = Duration::from_millis(200);

/// An open connection's bytes.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Where connections to other nodes are made.
pub trait Network: Send + Sync + Debug {
    /// Opens a connection to `host:port`. The caller bounds how long that may take.
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Socket>>>;
}

/// Where other nodes come in.
pub trait Listen: Send + Sync + Debug {
    /// What peers dial, as `host:port`.
    fn address(&self) -> io::Result<String>;
    /// Connections as they come. To be called inside a runtime; an error does not end the stream.
    fn incoming(&self) -> io::Result<BoxStream<'static, io::Result<Box<dyn Socket>>>>;
}

/// The machine's.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpNetwork;

impl Network for TcpNetwork {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        Box::pin(async move {
            let stream = connect(&address).await?;
            Ok(Box::new(stream) as Box<dyn Socket>)
        })
    }
}

impl Listen for std::net::TcpListener {
    fn address(&self) -> io::Result<String> {
        Ok(self.local_addr()?.to_string())
    }

    fn incoming(&self) -> io::Result<BoxStream<'static, io::Result<Box<dyn Socket>>>> {
        let listener = self.try_clone()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accepted = stream::unfold(listener, |listener| async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) if stream.set_nodelay(true).is_ok() => {
                        return Some((Ok(Box::new(stream) as Box<dyn Socket>), listener));
                    }
                    // Gone before it was served.
                    Ok(_) => {}
                    Err(error) => return Some((Err(error), listener)),
                }
            }
        });
        Ok(accepted.boxed())
    }
}

/// Connects to the first address of a name that answers.
async fn connect(address: &str) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(address).await?.collect();
    let share = CONNECT_TIMEOUT / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = io::Error::new(
        io::ErrorKind::NotFound,
        format!("{address} has no addresses"),
    );
    for socket_address in addresses {
        let attempt = TcpStream::connect(socket_address);
        match tokio::time::timeout(share.max(ADDRESS_TIMEOUT_MIN), attempt).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = timed_out(address),
        }
    }
    Err(failure)
}

pub(super) fn timed_out(address: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{address} does not answer"),
    )
}
