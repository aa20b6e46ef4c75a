//! A gateway on a port of its own, for the tests of each protocol.

pub mod panics;
pub mod tokens;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla_broker::{Broker, BrokerConfig};
use flotilla_cluster::{Cluster, ClusterConfig};
use flotilla_gateway::{GatewayError, KubemqConfig, Listeners, Security, serve};
use flotilla_model::name::Name;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// For what should come at once; a loaded machine may be slow.
const SOON: Duration = Duration::from_secs(20);

/// A gateway with a broker and its storage.
pub struct Gateway {
    pub address: SocketAddr,
    /// REST and WebSocket; one protocol only has them.
    #[allow(dead_code)]
    pub rest: SocketAddr,
    pub broker: Broker,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), GatewayError>>,
    _data: tempfile::TempDir,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::with(KubemqConfig::default()).await
    }

    pub async fn with(config: KubemqConfig) -> Self {
        Self::over(config, |_| {}).await
    }

    /// Over storage with other settings.
    pub async fn over(config: KubemqConfig, change: impl FnOnce(&mut ClusterConfig)) -> Self {
        let security = Security::default();
        Self::on(config, BrokerConfig::default(), security, change).await
    }

    /// Over a broker with other settings.
    pub async fn on_broker(broker: BrokerConfig) -> Self {
        Self::on(KubemqConfig::default(), broker, Security::default(), |_| {}).await
    }

    /// That does not let in everybody.
    pub async fn secured(security: Security) -> Self {
        Self::secured_with(KubemqConfig::default(), security).await
    }

    pub async fn secured_with(config: KubemqConfig, security: Security) -> Self {
        Self::on(config, BrokerConfig::default(), security, |_| {}).await
    }

    async fn on(
        mut config: KubemqConfig,
        broker: BrokerConfig,
        security: Security,
        change: impl FnOnce(&mut ClusterConfig),
    ) -> Self {
        panics::watch();
        let data = tempfile::tempdir().unwrap();
        let mut cluster = ClusterConfig::new(data.path());
        cluster.shards = 2;
        // Streams of tests are opened right after the start, and may be used late on a slow machine. A test of
        // that names a time of its own.
        if config.silence_after_start_max == KubemqConfig::default().silence_after_start_max {
            config.silence_after_start_max = None;
        }
        // What else is on the machine's disk is not what is tested.
        cluster.log.reserve_bytes = Some(16 << 20);
        change(&mut cluster);
        let cluster = Cluster::start(cluster, tokio::runtime::Handle::current())
            .await
            .unwrap();
        let broker = Broker::start(cluster, broker).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rest_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rest = rest_listener.local_addr().unwrap();
        let listeners = Listeners {
            grpc: Some(listener),
            rest: Some(rest_listener),
        };
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listeners, broker.clone(), config, security, async move {
            let _ = stopped.await;
        });
        let serving = tokio::spawn(serving);
        Self {
            address,
            rest,
            broker,
            stop: Some(stop),
            serving,
            _data: data,
        }
    }

    /// Begins the end, as a signal to the process would.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Resolves when the gateway has ended.
    pub async fn ended(mut self) -> Result<(), GatewayError> {
        soon(&mut self.serving).await.unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panics::expect_none();
        }
    }
}

/// Fails instead of waiting for ever.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work)
        .await
        .expect("it did not happen in time")
}

/// A name that no other test uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until nobody waits for messages of a queue that still has so many: what was brought has to be
/// read before.
pub async fn until_held_back(gateway: &Gateway, queue: &str, count_min: u64) {
    let name = Name::queue(queue).unwrap();
    soon(async {
        loop {
            let detail = gateway.broker.queue(&name).await.unwrap();
            if detail.subscriber_count == 0 && detail.leased > 0 && detail.available >= count_min {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
