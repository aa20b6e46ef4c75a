//! Serving a listener: HTTP/2 settings, and an orderly end.

use std::future::Future;
use std::sync::Arc;

use flotilla_broker::Broker;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::transport::Server;
use tracing::{info, warn};

use super::config::KubemqConfig;
use super::connection;
use super::context::Context;
use super::gate::Gate;
use super::lifecycle::Lifecycle;
use super::ping::Started;
use super::protocol::kubemq_server::KubemqServer;
use super::service::Service;
use crate::error::GatewayError;

/// A message may be delivered with more around it than it was sent with; its size was checked then.
const RESPONSE_HEADROOM_BYTES: usize = 1024 * 1024;

/// Serves KubeMQ clients until `shutdown` resolves, then ends.
///
/// At the end streams and long polls fail with UNAVAILABLE, so that clients go elsewhere or come
/// back, and calls under way are finished, within `shutdown_wait_max`. The broker must outlive this.
pub async fn serve(
    listener: TcpListener,
    broker: Broker,
    config: KubemqConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), GatewayError> {
    config.check()?;
    let serving_broker = broker.clone();
    let (lifecycle, mut end) = Lifecycle::new(move || serving_broker.health().serving);
    let lifecycle = Arc::new(lifecycle);
    let connections = connection::accept(listener, broker.clone(), &config);
    let wait_max = config.shutdown_wait_max;

    let mut server = Server::builder()
        .max_concurrent_streams(config.streams_per_connection_max)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        // Dead consumers must give their messages back even if their machine says nothing.
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .http2_keepalive_timeout(Some(config.keepalive_wait_max));
    let request_bytes_max = config.request_bytes_max;
    let context = Arc::new(Context {
        broker,
        config,
        lifecycle: Arc::clone(&lifecycle),
        started: Started::now(),
    });
    let service = KubemqServer::new(Service::new(context))
        .max_decoding_message_size(request_bytes_max)
        .max_encoding_message_size(request_bytes_max.saturating_add(RESPONSE_HEADROOM_BYTES));
    let router = server.add_service(Gate::new(service, Arc::clone(&lifecycle)));

    let (stop_accepting, accepting_stopped) = oneshot::channel::<()>();
    let serving = router.serve_with_incoming_shutdown(connections, async {
        // An error means that the sender is gone: the end all the same.
        let _ = accepting_stopped.await;
    });
    tokio::pin!(serving);
    let failed = |source| GatewayError::Transport {
        protocol: "kubemq",
        source,
    };
    tokio::select! {
        ended = &mut serving => return ended.map_err(failed),
        () = shutdown => {}
    }
    info!("ending kubemq clients' calls");
    end.begin();
    drop(stop_accepting);
    let ending = async {
        let served = serving.await;
        end.background_done(&lifecycle).await;
        served
    };
    match timeout(wait_max, ending).await {
        Ok(served) => served.map_err(failed),
        Err(_) => {
            warn!(?wait_max, "kubemq connections did not end in time");
            Ok(())
        }
    }
}
