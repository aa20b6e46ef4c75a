//! REST and WebSocket: the same calls over HTTP/1.1, with the protocol's messages as JSON.
//!
//! ```text
//!   mod (accepts) -> route -+-> call     one request, one answer in an envelope
//!                           +-> socket   a WebSocket: subscriptions, streams of events, transactions
//!   json, query, body: what is read and written       wire: what was written
//! ```
//!
//! Nothing is decided here: every call is a function that the gRPC service calls too, with the same messages.

mod body;
mod call;
mod config;
mod error;
mod json;
mod query;
mod route;
mod socket;
mod wire;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tracing::debug;

pub use self::config::RestConfig;

use self::body::BodyRoom;
use self::wire::{WhenWritten, Wire};
use super::context::Context;
use crate::server::Security;
use crate::transport::connection::{self, Admission, Connection};
use crate::transport::gate::Entry;

/// The listener in the broker's figures.
const LISTENER: &str = "kubemq_rest";
/// Longest head of a request, and what is kept to be written before the connection takes it.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What all requests share.
struct Rest {
    context: Arc<Context>,
    entry: Entry,
    room: BodyRoom,
}

/// Serves clients until the end of the server begins. Their connections are the lifecycle's background work.
pub async fn serve(listener: TcpListener, context: Arc<Context>, security: Security) {
    let config = &context.config;
    let admission = Admission {
        protocol: LISTENER,
        connections_max: config.rest.connections_max,
        handshake_wait_max: config.handshake_wait_max,
        // From the first one on there is a time for the head of a request.
        opening_bytes: 1,
        tls: security.acceptor(b"http/1.1"),
    };
    let connections = connection::accept(listener, context.broker.clone(), admission);
    tokio::pin!(connections);
    let lifecycle = Arc::clone(&context.lifecycle);
    let rest = Arc::new(Rest {
        room: BodyRoom::new(&config.rest),
        entry: context.entry(security.access, route::PING),
        context,
    });
    while let Ok(Some(connection)) = lifecycle.until_ending(connections.next()).await {
        match connection {
            Ok(connection) => lifecycle.spawn(converse(Arc::clone(&rest), connection)),
            Err(error) => debug!(%error, "failed to accept a connection"),
        }
    }
}

/// Answers the requests of one connection, one after the other.
async fn converse(rest: Arc<Rest>, connection: Connection) {
    let config = &rest.context.config;
    let when_written = WhenWritten::default();
    let wire = Wire::new(connection, when_written.clone(), gone_after(&rest.context));
    let answers = service_fn(|request| {
        let (rest, when_written) = (Arc::clone(&rest), when_written.clone());
        async move { Ok::<_, Infallible>(route::answer(rest, &when_written, request).await) }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        // The time between two requests is a part of it: idle clients are silent for longer than new ones.
        .header_read_timeout(gone_after(&rest.context).max(config.handshake_wait_max))
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(wire), answers)
        .with_upgrades();
    tokio::pin!(conversation);
    let lifecycle = &rest.context.lifecycle;
    let ended = tokio::select! {
        ended = &mut conversation => ended,
        () = lifecycle.ending() => {
            // The request under way is answered: that the server is ending, if nothing else.
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}

/// A client that neither sends nor takes anything for so long is taken for gone.
fn gone_after(context: &Context) -> Duration {
    let config = &context.config;
    config.keepalive_interval + config.keepalive_wait_max
}
