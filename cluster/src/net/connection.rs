//! One HTTP/2 connection to another node.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Future;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::doorway::name_cluster;
use super::identity::LocalIdentity;
use super::lane::{
    CONNECT_TIMEOUT, FRAME_BYTES, Lane, PING_INTERVAL, PING_TIMEOUT, SEND_BUFFER_BYTES,
    STREAM_WINDOW,
};
use super::network::{Network, timed_out};
use super::traffic::{Counted, Traffic};
use super::wire::MESSAGE_BYTES_MAX;
use super::wire::proto::link_client::LinkClient;

/// HTTP/2 wants an authority; nothing is decided by it.
const ORIGIN: &str = "http://flotilla.node";

/// An open connection. Clones use the same one.
#[derive(Clone)]
pub(crate) struct Connection {
    requests: SendRequest<Body>,
    origin: http::Uri,
    driver: AbortHandle,
    me: watch::Receiver<LocalIdentity>,
}

/// Opens a node's connections.
#[derive(Clone)]
pub(super) struct Dialer {
    pub runtime: Handle,
    /// Who the node is; it may be in no cluster yet.
    pub me: watch::Receiver<LocalIdentity>,
    pub network: Arc<dyn Network>,
    pub traffic: Arc<Traffic>,
}

impl Dialer {
    /// Opens a connection to `address`.
    pub async fn open(&self, address: &str, lane: Lane) -> io::Result<Connection> {
        let stream =
            tokio::time::timeout(CONNECT_TIMEOUT, self.network.connect(address.to_owned()))
                .await
                .map_err(|_| timed_out(address))??;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(lane.connection_window())
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_frame_size(FRAME_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let (requests, connection) = builder
            .handshake(TokioIo::new(Counted::new(stream, self.traffic.clone())))
            .await
            .map_err(io::Error::other)?;
        let address = address.to_owned();
        let driver = self.runtime.spawn(async move {
            if let Err(error) = connection.await {
                let reason = crate::error::chain(&error);
                tracing::debug!(address, ?lane, reason, "link broke");
            }
        });
        Ok(Connection {
            requests,
            origin: http::Uri::from_static(ORIGIN),
            driver: driver.abort_handle(),
            me: self.me.clone(),
        })
    }
}

impl Connection {
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Ends the connection, and with an error everything on it.
    pub fn cut(&self) {
        self.driver.abort();
    }

    /// For what the generated client has no codec for.
    pub fn grpc(&self) -> tonic::client::Grpc<Self> {
        tonic::client::Grpc::with_origin(self.clone(), self.origin.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn client(&self) -> LinkClient<Self> {
        LinkClient::with_origin(self.clone(), self.origin.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.requests.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        name_cluster(request.headers_mut(), self.me.borrow().cluster);
        Box::pin(self.requests.send_request(request))
    }
}
