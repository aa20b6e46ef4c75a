//! Three nodes in one process, linked over loopback, and ways to lose one.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use flotilla_broker::{Broker, BrokerConfig};
use flotilla_cluster::{Cluster, ClusterConfig};
use flotilla_model::ids::NodeId;
use flotilla_model::name::Name;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::node::PATIENCE;

/// A node that runs on a runtime of its own, so that it can be killed with all that it was doing.
pub struct Member {
    pub broker: Broker,
    pub cluster: Cluster,
    runtime: Option<Runtime>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Where a node has its data and its address, running or not.
struct Berth {
    directory: TempDir,
    listen: Arc<TcpListener>,
    address: String,
    member: Option<Member>,
}

/// Nodes that form one cluster.
pub struct Fleet {
    berths: Vec<Berth>,
    tune: fn(&mut ClusterConfig),
    config: BrokerConfig,
}

impl Fleet {
    pub async fn start() -> Self {
        Self::start_as(|_| (), BrokerConfig::default()).await
    }

    pub async fn start_with(config: BrokerConfig) -> Self {
        Self::start_as(|_| (), config).await
    }

    pub async fn start_tuned(tune: fn(&mut ClusterConfig)) -> Self {
        Self::start_as(tune, BrokerConfig::default()).await
    }

    async fn start_as(tune: fn(&mut ClusterConfig), config: BrokerConfig) -> Self {
        let berths = (0..3).map(|_| {
            let listen = TcpListener::bind("127.0.0.1:0").unwrap();
            Berth {
                directory: tempfile::tempdir().unwrap(),
                address: listen.local_addr().unwrap().to_string(),
                listen: Arc::new(listen),
                member: None,
            }
        });
        let mut fleet = Self {
            berths: berths.collect(),
            tune,
            config,
        };
        let starting = (0..3).map(|place| fleet.boot(place));
        let members = futures::future::join_all(starting).await;
        for (berth, member) in fleet.berths.iter_mut().zip(members) {
            berth.member = Some(member);
        }
        fleet.settled().await;
        fleet
    }

    async fn boot(&self, place: usize) -> Member {
        let berth = &self.berths[place];
        let mut config = ClusterConfig::new(berth.directory.path());
        config.log.reserve_bytes = Some(0);
        config.shards = 4;
        config.seeds = self.berths.iter().map(|one| one.address.clone()).collect();
        config.expect = 3;
        config.listen = Some(berth.listen.clone());
        config.advertise = Some(berth.address.clone());
        (self.tune)(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        let broker_config = self.config.clone();
        let starting = runtime.spawn(async move {
            let cluster = Cluster::start(config, handle).await.unwrap();
            let broker = Broker::start(cluster.clone(), broker_config).await.unwrap();
            (cluster, broker)
        });
        let (cluster, broker) = starting.await.unwrap();
        Member {
            broker,
            cluster,
            runtime: Some(runtime),
        }
    }

    /// Every running node knows the same leader of every shard.
    pub async fn settled(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut seen = self.running().map(|member| {
                let shards = member.cluster.shards().iter();
                shards.map(|shard| shard.leader()).collect::<Vec<_>>()
            });
            let first = seen.next().unwrap();
            let running: Vec<NodeId> = self.running().map(|one| one.cluster.node().id).collect();
            let is_led =
                |leader: &Option<NodeId>| leader.is_some_and(|node| running.contains(&node));
            if first.iter().all(is_led) && seen.all(|leaders| leaders == first) {
                return;
            }
            assert!(Instant::now() < deadline, "no agreement on leaders");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    fn running(&self) -> impl Iterator<Item = &Member> {
        self.berths.iter().filter_map(|berth| berth.member.as_ref())
    }

    pub fn member(&self, place: usize) -> &Member {
        self.berths[place].member.as_ref().unwrap()
    }

    pub fn broker(&self, place: usize) -> &Broker {
        &self.member(place).broker
    }

    /// The place of the node that leads a name's shard. Waits for one: a busy machine may cost the lead.
    pub async fn leader(&self, name: &Name) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.running().find_map(|member| {
                let shard = member.cluster.shard_for(name);
                shard.is_leader().then(|| member.cluster.node().id)
            });
            if let Some(leader) = leader {
                return self.place(leader);
            }
            assert!(
                Instant::now() < deadline,
                "nobody leads the shard of {name}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    fn place(&self, node: NodeId) -> usize {
        let is_it = |berth: &Berth| {
            let member = berth.member.as_ref();
            member.is_some_and(|member| member.cluster.node().id == node)
        };
        self.berths.iter().position(is_it).unwrap()
    }

    pub fn directory(&self, place: usize) -> &Path {
        self.berths[place].directory.path()
    }

    /// The places of all other nodes.
    pub fn others(&self, place: usize) -> [usize; 2] {
        [(place + 1) % 3, (place + 2) % 3]
    }

    /// Ends a node in the middle of all it does.
    pub fn kill(&mut self, place: usize) {
        let Some(mut member) = self.berths[place].member.take() else {
            return;
        };
        // Its threads must be gone before another node begins at the same place.
        if let Some(runtime) = member.runtime.take() {
            tokio::task::block_in_place(|| runtime.shutdown_timeout(PATIENCE));
        }
    }

    pub async fn restart(&mut self, place: usize) {
        let member = self.boot(place).await;
        self.berths[place].member = Some(member);
    }
}
