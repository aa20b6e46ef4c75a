//! `flotilla serve`: what the process needs around a node, from its first line to its last.

use std::convert::Infallible;
use std::sync::Arc;

use flotilla_admin_api::{Admin, AdminConfig};
use flotilla_cluster::{Listen, StartProgress, StartStage};
use tokio::runtime::Runtime;
use tracing::{error, info, warn};

use crate::cli::print_line;
use crate::config::{Config, Layers, format_size};
use crate::data_dir::DataDir;
use crate::error::DaemonError;
use crate::listeners::Listeners;
use crate::node::{Node, Running};
use crate::security::Security;
use crate::shutdown::Signals;
use crate::{logging, mutation, process};

/// Of the time for a graceful end, one part is for connections; the parts below have the rest.
const CONNECTIONS_SHARE: u32 = 4;

/// The program's version. A build for development, which can be told to break promises, says what it is
/// wherever it is asked.
pub const VERSION: &str = if cfg!(debug_assertions) {
    concat!(env!("CARGO_PKG_VERSION"), "-dev")
} else {
    env!("CARGO_PKG_VERSION")
};

/// Runs a node until a signal, or until a part of it ends that should not.
pub fn run(config: Config, layers: &Layers) -> Result<(), DaemonError> {
    process::bound_malloc_arenas();
    logging::start(&config.log);
    mutation::choose()?;
    process::log_panics();
    process::raise_open_files();
    let security = Security::load(&config)?;
    let data_dir = DataDir::open(&config.data_dir)?;
    let mut listeners = Listeners::bind(&config, layers)?;
    for (name, address) in listeners.addresses() {
        print_line(&format!("listening {name} {address}"));
    }
    let config = settle(config, &data_dir, &mut listeners);
    log_start(&config);
    let runtime = start_runtime()?;
    let outcome = runtime.block_on(serve(&config, listeners, security));
    // Whatever still runs has had its time.
    runtime.shutdown_background();
    match &outcome {
        Ok(()) => info!("stopped"),
        Err(error) => error!(error = %error.chain(), "stopped with an error"),
    }
    // Another process may take the directory now.
    drop(data_dir);
    outcome
}

/// Fills in what only the running system knows.
fn settle(mut config: Config, data_dir: &DataDir, listeners: &mut Listeners) -> Config {
    if config.node_name.is_empty() {
        config.node_name = process::host_name();
    }
    config.cluster.data_dir = data_dir.path().to_owned();
    config.cluster.node_name.clone_from(&config.node_name);
    config.cluster.shards = config.shard_count();
    let cluster = listeners.cluster.take();
    config.cluster.listen = cluster.map(|listener| Arc::new(listener) as Arc<dyn Listen>);
    config.kubemq.host.clone_from(&config.node_name);
    config.kubemq.shutdown_wait_max = config.shutdown_grace / CONNECTIONS_SHARE;
    config
}

fn log_start(config: &Config) {
    info!(
        version = VERSION,
        node = config.node_name,
        data_dir = %config.cluster.data_dir.display(),
        sync = ?config.cluster.log.sync,
        seeds = ?config.cluster.seeds,
        segment_size = format_size(config.cluster.log.segment_bytes),
        reserve = format_size(config.cluster.log.reserve()),
        "starting"
    );
}

fn start_runtime() -> Result<Runtime, DaemonError> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("flotilla")
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Runtime {
            action: "start the runtime",
            source,
        })
}

/// Tells operators what the start is at: other nodes may be hours away.
async fn show_start(progress: &StartProgress, admin: &Admin) -> Infallible {
    let mut stages = progress.watch();
    loop {
        let stage = stages.borrow_and_update().clone();
        if stage != StartStage::Started {
            info!(%stage, "starting");
            admin.hold_back(&format!("the node is starting: {stage}"));
        }
        if stages.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn serve(
    config: &Config,
    listeners: Listeners,
    security: Security,
) -> Result<(), DaemonError> {
    let mut signals = Signals::listen()?;
    let admin = Admin::new(AdminConfig {
        version: VERSION.to_owned(),
        node_name: config.node_name.clone(),
        body_bytes_max: config.admin.body_bytes_max,
        connections_max: config.admin.connections_max,
        topic_defaults: config.cluster.topic.clone(),
        queue_defaults: config.cluster.queue.clone(),
    });
    let mut running = Running::new(listeners.admin, &admin, security.admin_tls)?;
    let node = tokio::select! {
        node = Node::start(config) => node?,
        signal = signals.next() => {
            // Nothing was accepted yet, so there is nothing to finish: the log is safe at any moment.
            info!(signal, "stopped while starting");
            return Ok(());
        }
        ended = running.any_ended() => return Err(ended),
        never = show_start(&config.cluster.progress, &admin) => match never {},
    };
    admin.serve_broker(node.broker().clone());
    running.start_gateways(
        listeners.kubemq,
        listeners.kubemq_rest,
        &node,
        config,
        security.clients,
    )?;
    for reason in node.broker().health().reasons {
        // It takes the requests that it can serve; whoever starts nodes must hear of the others.
        warn!(reason, "not all of the node is in service");
        print_line(&format!("degraded: {reason}"));
    }
    info!(shards = node.shard_count(), "ready");
    print_line("ready");
    let outcome = tokio::select! {
        signal = signals.next() => {
            info!(signal, "stopping");
            Ok(())
        }
        ended = running.any_ended() => Err(ended),
    };
    signals.exit_at_next();
    admin.hold_back("the node is shutting down");
    let stopped = running.stop(node, config.shutdown_grace).await;
    outcome.and(stopped)
}
