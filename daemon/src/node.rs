//! The parts of a running node, in the order in which they are started, and stopped the other way.
//!
//! ```text
//!   start:  admin (says "starting") -> cluster -> broker -> kubemq
//!   stop:   leadership goes to other nodes -> kubemq -> broker -> cluster
//!           -> admin (says "shutting down" all the while)
//! ```

use std::net::TcpListener;
use std::time::{Duration, Instant};

use flotilla_admin_api::Admin;
use flotilla_broker::Broker;
use flotilla_cluster::Cluster;
use flotilla_gateway::Listeners;
use rustls::ServerConfig;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::admin_thread::AdminThread;
use crate::config::Config;
use crate::error::DaemonError;
use crate::neighbours;

/// Of the time for a graceful end, one part is kept for the admin interface, which ends last.
const ADMIN_SHARE: u32 = 10;
/// Another part is for handing leadership over, while clients are still served.
const HAND_OVER_SHARE: u32 = 4;

/// What holds and delivers messages.
pub struct Node {
    cluster: Cluster,
    broker: Broker,
}

impl Node {
    /// Opens the log, recovers the groups and starts the actors.
    pub async fn start(config: &Config) -> Result<Self, DaemonError> {
        let cluster = Cluster::start(config.cluster.clone(), Handle::current())
            .await
            .map_err(|source| DaemonError::Cluster {
                path: config.cluster.data_dir.clone(),
                source,
            })?;
        tokio::spawn(neighbours::log(cluster.watch_nodes()));
        let broker = Broker::start(cluster.clone(), config.broker.clone())
            .await
            .map_err(DaemonError::Broker)?;
        Ok(Self { cluster, broker })
    }

    /// What gateways and the admin interface call.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// How many shards hold messages.
    pub fn shard_count(&self) -> u32 {
        self.cluster.shard_count()
    }
}

/// Tells the node that a part ended, when it is dropped: at the part's end, or by its panic.
pub struct EndReport {
    part: &'static str,
    reason: String,
    to: mpsc::UnboundedSender<DaemonError>,
}

impl EndReport {
    fn new(part: &'static str, to: &mpsc::UnboundedSender<DaemonError>) -> Self {
        Self {
            part,
            reason: "it panicked".to_owned(),
            to: to.clone(),
        }
    }

    /// The part ended otherwise than by a panic.
    pub fn because(mut self, reason: String) {
        self.reason = reason;
    }
}

impl Drop for EndReport {
    fn drop(&mut self) {
        // Nobody listens any more when the stop was asked for.
        let _ = self.to.send(DaemonError::Ended {
            part: self.part,
            reason: std::mem::take(&mut self.reason),
        });
    }
}

/// A listener for the runtime of the gateways.
fn served(listener: TcpListener) -> Result<tokio::net::TcpListener, DaemonError> {
    tokio::net::TcpListener::from_std(listener).map_err(|source| DaemonError::Runtime {
        action: "serve a listener of clients",
        source,
    })
}

/// What clients and operators are connected to.
pub struct Running {
    admin: Option<AdminThread>,
    kubemq: Option<JoinHandle<()>>,
    stop_gateways: watch::Sender<bool>,
    ended: mpsc::UnboundedReceiver<DaemonError>,
    report_end: mpsc::UnboundedSender<DaemonError>,
}

impl Running {
    /// Starts the admin interface, which serves from now on.
    pub fn new(
        listener: Option<TcpListener>,
        admin: &Admin,
        tls: Option<ServerConfig>,
    ) -> Result<Self, DaemonError> {
        // At most one message per part ever comes.
        let (report_end, ended) = mpsc::unbounded_channel();
        let admin = listener
            .map(|listener| {
                let end = EndReport::new("the admin interface", &report_end);
                AdminThread::start(listener, admin.clone(), tls, end)
            })
            .transpose()?;
        Ok(Self {
            admin,
            kubemq: None,
            stop_gateways: watch::Sender::new(false),
            ended,
            report_end,
        })
    }

    /// Opens the doors to clients.
    pub fn start_gateways(
        &mut self,
        kubemq: Option<TcpListener>,
        kubemq_rest: Option<TcpListener>,
        node: &Node,
        config: &Config,
        security: flotilla_gateway::Security,
    ) -> Result<(), DaemonError> {
        if kubemq.is_none() && kubemq_rest.is_none() {
            return Ok(());
        }
        let listeners = Listeners {
            grpc: kubemq.map(served).transpose()?,
            rest: kubemq_rest.map(served).transpose()?,
        };
        let mut stop = self.stop_gateways.subscribe();
        let stopped = async move {
            // An error means that the sender is gone: the node is ending all the same.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let serving = flotilla_gateway::serve(
            listeners,
            node.broker.clone(),
            config.kubemq.clone(),
            security,
            stopped,
        );
        let end = EndReport::new("the listener of clients", &self.report_end);
        self.kubemq = Some(tokio::spawn(async move {
            end.because(match serving.await {
                Ok(()) => "it stopped".to_owned(),
                Err(error) => error.to_string(),
            });
        }));
        Ok(())
    }

    /// Waits until a part ends that nobody asked to.
    pub async fn any_ended(&mut self) -> DaemonError {
        match self.ended.recv().await {
            Some(error) => error,
            // Cannot come: one sender is kept here.
            None => std::future::pending().await,
        }
    }

    /// Ends everything within `grace`: leadership and clients first, the log last.
    pub async fn stop(self, node: Node, grace: Duration) -> Result<(), DaemonError> {
        let started = Instant::now();
        let deadline = started + grace;
        let stopping = async {
            node.cluster
                .hand_over(started + grace / HAND_OVER_SHARE)
                .await;
            info!("leadership is handed over");
            self.stop_gateways.send_replace(true);
            if let Some(kubemq) = self.kubemq
                && let Err(error) = kubemq.await
            {
                error!(%error, "the listeners of clients did not end cleanly");
            }
            info!("clients are disconnected");
            node.broker.shutdown().await;
            // The rest is for the admin interface, which answers probes until then.
            let closed = node.cluster.shutdown(deadline - grace / ADMIN_SHARE).await;
            if closed.is_ok() {
                info!("the log is closed");
            }
            if let Some(admin) = self.admin {
                admin.stop().await;
            }
            closed.map_err(DaemonError::Close)
        };
        let stopped = tokio::time::timeout_at(deadline.into(), stopping).await;
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match stopped {
            Ok(stopped) => {
                info!(took_ms, "everything stopped");
                stopped
            }
            Err(_) => {
                warn!(took_ms, "the time for a graceful end is over");
                Err(DaemonError::ShutdownTimeout { grace })
            }
        }
    }
}
