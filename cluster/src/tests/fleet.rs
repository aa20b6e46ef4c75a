//! Several nodes in one process, linked over loopback.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::ids::NodeId;
use flotilla_model::name::Name;
use flotilla_model::query;
use openraft::async_runtime::watch::WatchReceiver;
use tempfile::TempDir;

use super::{Node, PATIENCE};
use crate::ClusterError;
use crate::{ClusterConfig, ShiftedTimeSource};

/// A place for a node: its directory and its address outlive it.
pub(super) struct Berth {
    pub dir: TempDir,
    pub listen: Arc<TcpListener>,
    pub address: String,
    pub time: Arc<ShiftedTimeSource>,
    pub node: Option<Node>,
}

/// Nodes with the same seeds.
pub(super) struct Fleet {
    pub berths: Vec<Berth>,
    pub expect: u32,
    /// The first three of them, if nothing else is said.
    pub seeds: Option<Vec<String>>,
    pub tune: fn(&mut ClusterConfig),
}

impl Fleet {
    /// Places for nodes that expect as many to form a cluster.
    pub fn new(count: usize) -> Self {
        Self {
            berths: (0..count).map(|_| Berth::new()).collect(),
            expect: count as u32,
            seeds: None,
            tune: |_| (),
        }
    }

    /// A running cluster.
    pub fn start(count: usize) -> Self {
        let mut fleet = Self::new(count);
        fleet.start_all();
        fleet
    }

    pub fn start_all(&mut self) {
        let places: Vec<usize> = (0..self.berths.len()).collect();
        self.start_these(&places);
    }

    /// Starts a node that may refuse to.
    pub fn try_start_one(&mut self, place: usize) -> Result<(), ClusterError> {
        let (seeds, expect, tune) = (self.seeds(), self.expect, self.tune);
        let berth = &mut self.berths[place];
        let listen = berth.listen.clone();
        berth.node = Some(Node::try_start(berth.dir.path(), |config| {
            config.listen = Some(listen);
            config.node_name = format!("n{}", place + 1);
            config.seeds = seeds;
            config.expect = expect;
            tune(config);
        })?);
        Ok(())
    }

    /// Starts nodes at the same time, and waits for all of them.
    pub fn start_these(&mut self, places: &[usize]) {
        let seeds = self.seeds();
        let (expect, tune) = (self.expect, self.tune);
        std::thread::scope(|scope| {
            for (place, berth) in self.berths.iter_mut().enumerate() {
                if places.contains(&place) {
                    let seeds = seeds.clone();
                    scope.spawn(move || {
                        berth.start(|config| {
                            config.node_name = format!("n{}", place + 1);
                            config.seeds = seeds;
                            config.expect = expect;
                            config.shards = 4;
                            tune(config);
                        });
                    });
                }
            }
        });
    }

    pub fn seeds(&self) -> Vec<String> {
        if let Some(seeds) = &self.seeds {
            return seeds.clone();
        }
        let seeds = self.berths.iter().take(3);
        seeds.map(|berth| berth.address.clone()).collect()
    }

    pub fn add(&mut self) -> usize {
        self.berths.push(Berth::new());
        self.berths.len() - 1
    }

    pub fn node(&self, place: usize) -> &Node {
        self.berths[place].node.as_ref().expect("the node runs")
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.berths.iter().filter_map(|berth| berth.node.as_ref())
    }

    pub fn kill(&mut self, place: usize) {
        if let Some(node) = self.berths[place].node.take() {
            node.kill();
        }
    }

    /// Whether a node's replica has so many messages of a topic.
    pub fn holds(&self, place: usize, topic: &Name, messages: usize) -> bool {
        let node = self.node(place);
        let shard = node.shard(topic);
        let info = shard.read(|records| query::topic_info(records, topic));
        match node.runtime.block_on(info) {
            Ok(Some(_)) => node.topic_contents(topic).len() == messages,
            Ok(None) | Err(_) => messages == 0,
        }
    }

    /// Every node knows all nodes and the place of every shard, and Raft has got there.
    pub fn is_settled(&self, nodes: usize, replicas: usize) -> bool {
        self.nodes().all(|node| {
            let known = node.cluster.nodes();
            let view = node.cluster.inner.roster.view();
            known.len() == nodes
                && view.placements.len() == 4
                && view
                    .placements
                    .iter()
                    .all(|place| place.replicas.len() == replicas)
                && node.cluster.inner.groups[1..].iter().all(|group| {
                    let wanted = node.cluster.inner.roster.replicas(group.replica.shard);
                    let wanted: BTreeSet<NodeId> = wanted.into_iter().flatten().collect();
                    if !wanted.contains(&node.cluster.node().id) {
                        return true;
                    }
                    let Some(raft) = group.raft() else {
                        return false;
                    };
                    let metrics = raft.metrics();
                    let metrics = metrics.borrow_watched();
                    // What everyone who holds it has agreed on. Who held it before may not know.
                    let membership = metrics.committed_membership_config.membership();
                    let voters = membership.voter_ids().map(NodeId).collect::<BTreeSet<_>>();
                    membership.get_joint_config().len() == 1 && voters == wanted
                })
        })
    }

    pub fn wait_for(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            if Instant::now() >= deadline {
                for node in self.nodes() {
                    for group in &node.cluster.inner.groups {
                        if let Some(raft) = group.raft() {
                            let metrics = raft.metrics();
                            eprintln!("{}", *metrics.borrow_watched());
                        }
                    }
                }
                panic!("waited in vain for: {what}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Berth {
    fn new() -> Self {
        let listen = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            address: listen.local_addr().unwrap().to_string(),
            listen: Arc::new(listen),
            time: Arc::default(),
            node: None,
        }
    }

    fn start(&mut self, tune: impl FnOnce(&mut ClusterConfig)) {
        let (listen, time) = (self.listen.clone(), self.time.clone());
        let node = Node::start_with(Path::new(self.dir.path()), |config| {
            config.listen = Some(listen);
            config.time = time;
            tune(config);
        });
        self.node = Some(node);
    }
}
