//! The typed configuration: the settings of each part as that part declares them, and the
//! daemon's own. Defaults stand in the table of keys, as text, like every other value.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use flotilla_broker::BrokerConfig;
use flotilla_cluster::ClusterConfig;
use flotilla_gateway::KubemqConfig;
use flotilla_gateway::access::Algorithm;

/// Shards of a node alone: enough for the processors of one machine.
const SHARDS_ALONE: u32 = 4;
/// Shards of several nodes: enough to spread over more of them, when the cluster grows.
const SHARDS_TOGETHER: u32 = 16;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// What people call this node; empty: the host's name.
    pub node_name: String,
    /// How long a graceful shutdown may take.
    pub shutdown_grace: Duration,
    /// Where to listen.
    pub listen: Listen,
    /// With what listeners are encrypted.
    pub tls: TlsFiles,
    /// How clients show who they are.
    pub authentication: Authentication,
    /// What they may do.
    pub authorization: Authorization,
    /// Into how many shards names are divided; `None`: by the number of nodes.
    pub shards: Option<u32>,
    /// The other nodes, the log, the state and the groups on them.
    pub cluster: ClusterConfig,
    /// What is alive.
    pub broker: BrokerConfig,
    /// KubeMQ's protocol.
    pub kubemq: KubemqConfig,
    /// Where its routes are kept; empty: they are among its settings.
    pub kubemq_routes_file: PathBuf,
    /// The admin interface.
    pub admin: Admin,
    /// The process's own log lines.
    pub log: Log,
}

/// Where to listen.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// KubeMQ's gRPC.
    pub kubemq: Option<SocketAddr>,
    /// KubeMQ's REST and WebSocket.
    pub kubemq_rest: Option<SocketAddr>,
    /// Admin REST, metrics, health.
    pub admin: Option<SocketAddr>,
    /// Other nodes; `None`: the node stays alone.
    pub cluster: Option<SocketAddr>,
    /// Allow an address that other hosts can reach although what goes over it is not encrypted.
    pub allow_insecure: bool,
}

/// With what listeners are encrypted: files in PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The node's certificate, and those between it and its authority. `None`: nothing is encrypted.
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
    /// Who vouches for clients. `None`: no certificate is asked of them.
    pub client_ca_file: Option<PathBuf>,
    /// Whether the admin interface is encrypted as well.
    pub admin: bool,
}

impl TlsFiles {
    /// Whether clients' connections are encrypted.
    pub fn is_on(&self) -> bool {
        self.cert_file.is_some()
    }
}

/// How clients show who they are.
#[derive(Clone, Default)]
pub struct Authentication {
    /// How their tokens are signed; `None`: they have none.
    pub algorithm: Option<Algorithm>,
    /// The secret, or the public key; empty: it is in the file.
    pub key: String,
    /// Where the key is.
    pub key_file: Option<PathBuf>,
    /// The claim that says which client a token is for.
    pub client_claim: Option<String>,
}

impl fmt::Debug for Authentication {
    /// The key is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication")
            .field("algorithm", &self.algorithm)
            .field("key_file", &self.key_file)
            .field("client_claim", &self.client_claim)
            .finish_non_exhaustive()
    }
}

/// What clients may do.
#[derive(Clone, Debug, Default)]
pub struct Authorization {
    /// The rules as they are.
    pub rules: Option<String>,
    /// Where they are.
    pub rules_file: Option<PathBuf>,
    /// How often it is looked whether they have changed there.
    pub reload_interval: Option<Duration>,
}

/// The admin interface.
#[derive(Clone, Debug, Default)]
pub struct Admin {
    /// Longest request body.
    pub body_bytes_max: usize,
    /// Most connections at a time.
    pub connections_max: usize,
}

/// The process's own log lines.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// For whom.
    pub format: LogFormat,
    /// Which: a level, or a filter by part.
    pub level: String,
}

/// Who reads the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// People.
    #[default]
    Text,
    /// Machines.
    Json,
}

impl Config {
    /// A configuration that the table of keys has not filled yet.
    pub(super) fn blank() -> Self {
        Self {
            data_dir: PathBuf::new(),
            node_name: String::new(),
            shutdown_grace: Duration::ZERO,
            listen: Listen::default(),
            tls: TlsFiles::default(),
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            shards: None,
            cluster: ClusterConfig::new(PathBuf::new()),
            broker: BrokerConfig::default(),
            kubemq: KubemqConfig::default(),
            kubemq_routes_file: PathBuf::new(),
            admin: Admin::default(),
            log: Log::default(),
        }
    }

    /// Whether the node forms a cluster of its own at once, without asking anybody.
    pub fn is_alone(&self) -> bool {
        self.cluster.expect == 1 && self.cluster.seeds.is_empty()
    }

    /// How many shards a cluster gets that this node forms.
    pub fn shard_count(&self) -> u32 {
        self.shards.unwrap_or(if self.is_alone() {
            SHARDS_ALONE
        } else {
            SHARDS_TOGETHER
        })
    }

    /// Divides the memory for caches: half for state records, because a miss there stalls a
    /// command, and a quarter each for the log's index and its newest entries.
    pub(super) fn divide_cache(&mut self, bytes: u64) {
        self.cluster.state_cache_bytes = bytes / 2;
        self.cluster.log.index_cache_bytes = bytes / 4;
        self.cluster.log.tail_cache_bytes = usize::try_from(bytes / 4).unwrap_or(usize::MAX);
    }
}
