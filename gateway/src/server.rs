//! Serving the listeners of the protocols: HTTP/2 settings, and an orderly end.

use std::future::Future;
use std::sync::Arc;

use flotilla_broker::Broker;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tonic::transport::Server;
use tracing::{error, info, warn};

use crate::access::{Access, Reading};
use crate::error::GatewayError;
use crate::kubemq::{self, Context, KubemqConfig};
use crate::native;
use crate::transport::connection::{self, Admission};
use crate::transport::lifecycle::Lifecycle;

/// The gRPC listener in errors and figures: both protocols come to it, and which one a connection speaks is
/// known only when it calls.
const LISTENER: &str = "kubemq";
/// Longest HTTP/2 frame that clients may send: each one is a call to the system on both sides, and with the
/// 16 KiB that hold where nothing is said, a batch of records would be many.
const HTTP2_FRAME_BYTES_MAX: u32 = 256 * 1024;

/// What every HTTP/2 connection begins with, whole: there is no time for it in HTTP/2 itself.
const HTTP2_PREFACE_BYTES: usize = 24;

/// Where clients connect; `None`: nowhere.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Both protocols over gRPC.
    pub grpc: Option<TcpListener>,
    /// KubeMQ's protocol as REST and WebSocket.
    pub rest: Option<TcpListener>,
}

/// How clients are let in; by default: all of them, unencrypted.
#[derive(Clone, Default)]
pub struct Security {
    /// Who may come in, and what they may do.
    pub access: Access,
    /// With which certificate connections are encrypted, and of whom one is asked for. Which protocol is spoken
    /// under it is the listener's business.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Security {
    /// What encrypts the connections of a listener that speaks this protocol, if anything does.
    pub(crate) fn acceptor(&self, protocol: &[u8]) -> Option<TlsAcceptor> {
        let mut tls = ServerConfig::clone(self.tls.as_ref()?);
        // Who offers only others is refused in the handshake, and not with bytes that it cannot read.
        tls.alpn_protocols = vec![protocol.to_vec()];
        Some(TlsAcceptor::from(Arc::new(tls)))
    }
}

/// Serves clients of the KubeMQ and the native protocol until `shutdown` resolves, then ends.
///
/// At the end streams, sockets and long polls fail as unavailable, so that clients go elsewhere or come
/// back, and calls under way are finished, within `shutdown_wait_max`. The broker must outlive this.
pub async fn serve(
    listeners: Listeners,
    broker: Broker,
    config: KubemqConfig,
    security: Security,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), GatewayError> {
    config.check()?;
    let serving_broker = broker.clone();
    let (lifecycle, mut end) = Lifecycle::new(move || serving_broker.health().serving);
    let lifecycle = Arc::new(lifecycle);
    let wait_max = config.shutdown_wait_max;
    let context = kubemq::context(broker.clone(), config, Arc::clone(&lifecycle));
    let Listeners { grpc, rest } = listeners;
    let grpc = async {
        match grpc {
            Some(listener) => serve_grpc(listener, Arc::clone(&context), security.clone()).await,
            None => Ok(()),
        }
    };
    let rest = async {
        if let Some(listener) = rest {
            kubemq::rest::serve(listener, Arc::clone(&context), security.clone()).await;
        }
        Ok(())
    };
    let serving = async { tokio::try_join!(grpc, rest).map(|((), ())| ()) };
    let access = security.access.clone();
    let watching_rules = access.keep_current(move |reading| told(&broker, &reading));
    tokio::pin!(serving);
    tokio::pin!(watching_rules);
    tokio::select! {
        ended = &mut serving => return ended,
        never = &mut watching_rules => match never {},
        () = shutdown => {}
    }
    info!("ending clients' calls");
    end.begin();
    let ending = async {
        let served = serving.await;
        end.background_done(&lifecycle).await;
        served
    };
    match timeout(wait_max, ending).await {
        Ok(served) => served,
        Err(_) => {
            warn!(?wait_max, "connections did not end in time");
            Ok(())
        }
    }
}

/// Serves both protocols over gRPC until the end begins and what is under way then is done.
async fn serve_grpc(
    listener: TcpListener,
    context: Arc<Context>,
    security: Security,
) -> Result<(), GatewayError> {
    let Context {
        broker,
        config,
        lifecycle,
        ..
    } = &*context;
    let admission = Admission {
        protocol: LISTENER,
        connections_max: config.connections_max,
        handshake_wait_max: config.handshake_wait_max,
        opening_bytes: HTTP2_PREFACE_BYTES,
        tls: security.acceptor(b"h2"),
    };
    let access = security.access;
    let connections = connection::accept(listener, broker.clone(), admission);
    let mut server = Server::builder()
        .max_concurrent_streams(config.streams_per_connection_max)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        // Dead consumers must give their messages back even if their machine says nothing.
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .http2_keepalive_timeout(Some(config.keepalive_wait_max));
    let router = server
        .add_service(native::service(broker, config, lifecycle, access.clone()))
        .add_service(kubemq::service(Arc::clone(&context), access));
    router
        .serve_with_incoming_shutdown(connections, lifecycle.ending())
        .await
        .map_err(|source| GatewayError::Transport {
            protocol: LISTENER,
            source,
        })
}

/// Says what came of new access rules.
fn told(broker: &Broker, reading: &Reading) {
    match reading {
        Reading::Applied { records } => info!(records, "new access rules are in force"),
        Reading::Refused(error) => {
            let source = std::error::Error::source(error).map(ToString::to_string);
            error!(%error, source, "the access rules stay as they were");
        }
    }
    broker.access_rules_read(matches!(reading, Reading::Applied { .. }));
}
