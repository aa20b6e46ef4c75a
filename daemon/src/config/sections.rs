//! The typed configuration: the settings of each part as that part declares them, and the
//! daemon's own. Defaults stand in the table of keys, as text, like every other value.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use flotilla_broker::BrokerConfig;
use flotilla_cluster::ClusterConfig;
use flotilla_gateway::KubemqConfig;

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
    /// Into how many shards names are divided; `None`: by the number of nodes.
    pub shards: Option<u32>,
    /// The other nodes, the log, the state and the groups on them.
    pub cluster: ClusterConfig,
    /// What is alive.
    pub broker: BrokerConfig,
    /// KubeMQ's protocol.
    pub kubemq: KubemqConfig,
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
    /// Admin REST, metrics, health.
    pub admin: Option<SocketAddr>,
    /// Other nodes; `None`: the node stays alone.
    pub cluster: Option<SocketAddr>,
    /// Allow an address that other hosts can reach although nothing is encrypted or authenticated.
    pub allow_insecure: bool,
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
            shards: None,
            cluster: ClusterConfig::new(PathBuf::new()),
            broker: BrokerConfig::default(),
            kubemq: KubemqConfig::default(),
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
