//! All nodes of a test with the network between them.

use super::network::{Network, Place};
use super::node::{CLUSTER_PORT, DiskKind, Node};
use super::status::{self, Status};
use crate::admin;
use crate::workdir::WorkDir;
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a cluster may take to form, or to be whole again, on two busy cores.
pub const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// How long one node may take to answer a question about its state.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long nobody may lead anything while nothing is wrong.
const LED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// What a test needs.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Places for nodes.
    pub nodes: u32,
    /// How many of them form the cluster; the others are started later, or belong to another one.
    pub forming: u32,
    pub shards: u32,
    /// Disks that are not plain.
    pub disks: BTreeMap<u32, DiskKind>,
    /// More settings of every node.
    pub settings: Vec<(&'static str, String)>,
}

impl Layout {
    /// Nodes that all form one cluster, with few shards: they share two cores.
    pub fn of(nodes: u32) -> Self {
        Self {
            nodes,
            forming: nodes,
            shards: 4,
            disks: BTreeMap::new(),
            settings: Vec::new(),
        }
    }

    pub fn disk(mut self, node: u32, kind: DiskKind) -> Self {
        self.disks.insert(node, kind);
        self
    }

    pub fn set(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((key, value.into()));
        self
    }
}

/// The nodes of a test. It is to be dropped before its work directory.
pub struct Fleet {
    pub network: Network,
    nodes: Vec<Node>,
}

impl Fleet {
    /// Prepares the nodes and starts none.
    pub fn new(work: &WorkDir, layout: &Layout) -> Self {
        let network = Network::new(layout.nodes);
        let seeds = seeds(1..=layout.forming);
        let nodes = (1..=layout.nodes)
            .map(|number| {
                let disk = layout.disks.get(&number).copied().unwrap_or_default();
                let directory = work.join(&format!("node-{number}"));
                let mut node = Node::new(number, &network, &directory, disk);
                node.set("FLOTILLA_CLUSTER_SEEDS", &seeds);
                node.set("FLOTILLA_CLUSTER_EXPECT", &layout.forming.to_string());
                node.set("FLOTILLA_CLUSTER_SHARDS", &layout.shards.to_string());
                for (key, value) in &layout.settings {
                    node.set(key, value);
                }
                node
            })
            .collect();
        Self { network, nodes }
    }

    /// Starts the nodes that form the cluster, and waits until they serve.
    pub fn form(work: &WorkDir, layout: &Layout) -> Self {
        let mut fleet = Self::new(work, layout);
        for number in 1..=layout.forming {
            fleet.node_mut(number).start();
        }
        fleet.wait_until_whole();
        fleet
    }

    pub fn node(&self, number: u32) -> &Node {
        &self.nodes[number as usize - 1]
    }

    pub fn node_mut(&mut self, number: u32) -> &mut Node {
        &mut self.nodes[number as usize - 1]
    }

    /// The numbers of the nodes that run.
    pub fn running(&self) -> Vec<u32> {
        let running = self.nodes.iter().filter(|node| node.server().is_some());
        running.map(Node::number).collect()
    }

    /// Where clients find each of all nodes.
    pub fn kubemq(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::kubemq).collect()
    }

    /// Starts a node again and waits until everything is whole.
    pub fn restart(&mut self, number: u32) {
        self.node_mut(number).start();
        self.wait_until_whole();
    }

    /// What a node says about the cluster; none if it does not answer.
    pub fn status(&self, number: u32) -> Option<Status> {
        let address = self.node(number).admin();
        let answer = admin::request(address, "GET", "/api/v1/cluster", ANSWER_WITHIN).ok()?;
        (answer.0 == 200).then(|| Status::parse(&answer.1))?
    }

    /// The same of a node that must answer, if not to the first question.
    pub fn status_when_it_answers(&self, number: u32) -> Status {
        let answer = Cell::new(None);
        self.wait_until(&format!("node {number} answers"), WHOLE_WITHIN, |fleet| {
            let status = fleet.status(number);
            let is_there = status.is_some();
            answer.set(status);
            is_there
        });
        answer.take().expect("it was waited for")
    }

    /// Whether a node says that it takes requests.
    pub fn is_ready(&self, number: u32) -> bool {
        let address = self.node(number).admin();
        admin::request(address, "GET", "/readyz", ANSWER_WITHIN).is_ok_and(|(code, _)| code == 200)
    }

    /// Whether all running nodes are ready and agree that they are up and that all groups are led.
    pub fn is_whole(&self) -> bool {
        let running = self.running();
        running.iter().all(|&number| {
            self.is_ready(number)
                && self.status(number).is_some_and(|status| {
                    let ids = status.ids();
                    let is_up = |other: &u32| {
                        ids.get(&Place::Node(*other).address())
                            .and_then(|id| status.member(*id))
                            .is_some_and(|member| member.is_up)
                    };
                    status.ready && status.is_led() && running.iter().all(is_up)
                })
        })
    }

    pub fn wait_until_whole(&self) {
        self.wait_until("all running nodes are ready", WHOLE_WITHIN, Self::is_whole);
    }

    /// Waits until a new cluster has come to the feature level of its nodes.
    pub fn wait_until_levelled(&self) {
        self.wait_until("all have the level", WHOLE_WITHIN, |fleet| {
            let mut statuses = fleet.running().into_iter().map(|node| fleet.status(node));
            statuses.all(|status| status.is_some_and(|status| status.is_levelled()))
        });
    }

    /// Waits for something; fails with what all nodes say when it takes too long, or when a server
    /// ends by itself.
    pub fn wait_until(&self, what: &str, limit: Duration, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + limit;
        while !condition(self) {
            self.expect_running();
            if Instant::now() > deadline {
                panic!("not true after {limit:?}: {what}\n{}", self.describe());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until a node, which may end by that, says something in its log or on its admin port.
    pub fn wait_until_said(&self, number: u32, words: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        let address = self.node(number).admin();
        loop {
            let readiness = admin::request(address, "GET", "/readyz", ANSWER_WITHIN);
            let said = readiness.map_or_else(|_| String::new(), |(_, body)| body);
            if said.contains(words) || self.node(number).log().contains(words) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "node {number} did not say {words:?}, but {said:?}\n{}",
                self.node(number).log_end()
            );
            std::thread::sleep(POLL);
        }
    }

    pub fn expect_running(&self) {
        self.nodes.iter().for_each(Node::expect_running);
    }

    /// Has the first node drain, undrain or let go of a node.
    pub fn ask_to(&self, what: &str, number: u32) {
        let status = self.status_when_it_answers(number);
        let path = format!("/api/v1/nodes/{}/{what}", status.node);
        let answer = admin::request(self.node(1).admin(), "POST", &path, WHOLE_WITHIN);
        let (code, body) = answer.expect("an answer");
        assert_eq!(code, 204, "{what}: {body}");
    }

    /// Whether all running nodes agree that this one keeps no shard, and so leads none.
    pub fn keeps_nothing(&self, number: u32) -> bool {
        let Some(id) = self.status(number).map(|status| status.node) else {
            return false;
        };
        self.running().into_iter().all(|asked| {
            let status = self.status(asked);
            status.is_some_and(|status| {
                status.shards.iter().all(|shard| {
                    let mut named = shard.replicas.iter().chain(&shard.voters);
                    named.all(|node| *node != id) && shard.leader != Some(id)
                })
            })
        })
    }

    /// The number of the node that leads a shard, as the given node sees it.
    pub fn leader(&self, shard: u64, seen_by: u32) -> Option<u32> {
        let status = self.status(seen_by)?;
        let group = status.shards.iter().find(|group| group.id == shard)?;
        number_of(&status, group.leader?)
    }

    /// The number of the node that leads a topic or queue: the path is that of the admin interface.
    pub fn leader_of(&self, path: &str) -> u32 {
        let deadline = Instant::now() + LED_WITHIN;
        loop {
            let led = self.running().into_iter().find_map(|number| {
                let answer = admin::get(self.node(number).admin(), path).ok()?;
                let detail: Value = serde_json::from_str(&answer.1).ok()?;
                let status = self.status(number)?;
                let shard = detail.get("shard")?.as_u64()?;
                let group = status.shards.iter().find(|group| group.id == shard)?;
                number_of(&status, group.leader?)
            });
            match led {
                Some(number) => return number,
                None => assert!(Instant::now() < deadline, "{path}\n{}", self.describe()),
            }
            std::thread::sleep(POLL);
        }
    }

    /// The node that leads most shards. Waits for one: after a fault writes may be taken again before
    /// every node has heard who leads.
    pub fn busiest_leader(&self) -> u32 {
        let deadline = Instant::now() + LED_WITHIN;
        loop {
            let counts = self.led();
            let busiest = counts.iter().max_by_key(|(_, count)| **count);
            if let Some((number, count)) = busiest
                && *count > 0
            {
                return *number;
            }
            assert!(
                Instant::now() < deadline,
                "nobody leads anything\n{}",
                self.describe()
            );
            std::thread::sleep(POLL);
        }
    }

    /// How many shards each running node leads, as those see it that have heard of the latest terms.
    pub fn led(&self) -> BTreeMap<u32, usize> {
        let running = self.running();
        let views: Vec<Status> = running
            .iter()
            .filter_map(|number| self.status(*number))
            .collect();
        let Some(any) = views.first() else {
            panic!("no node answers\n{}", self.describe());
        };
        let ids = any.ids();
        let leaders = status::leaders(&views);
        running
            .into_iter()
            .map(|number| {
                let led = ids.get(&Place::Node(number).address()).map_or(0, |id| {
                    leaders.values().filter(|leader| *leader == id).count()
                });
                (number, led)
            })
            .collect()
    }

    /// Has a node compare the replicas of all shards until they are the same and whole: what is damaged
    /// is repaired by that, or on its own.
    pub fn expect_same_replicas(&self, asked: u32) {
        let deadline = Instant::now() + WHOLE_WITHIN;
        loop {
            let found = self.compare_replicas(asked);
            if found["fine"] == true {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "replicas are not the same: {found}\n{}",
                self.describe()
            );
        }
    }

    /// One comparison, to its end.
    fn compare_replicas(&self, asked: u32) -> Value {
        const PATH: &str = "/api/v1/cluster/verify";
        let address = self.node(asked).admin();
        let answer = |method| {
            let answer = admin::request(address, method, PATH, ANSWER_WITHIN * 10);
            let (code, body) = answer.expect("the node answers");
            assert!(code < 300, "{method} {PATH}: {code} {body}");
            serde_json::from_str::<Value>(&body).expect("the answer is JSON")
        };
        answer("POST");
        let deadline = Instant::now() + WHOLE_WITHIN;
        loop {
            std::thread::sleep(POLL);
            let found = answer("GET");
            if found["running"] == false {
                return found;
            }
            let limit = WHOLE_WITHIN;
            assert!(
                Instant::now() < deadline,
                "not compared after {limit:?}: {found}\n{}",
                self.describe()
            );
        }
    }

    /// What all running nodes say, for a failure.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for number in self.running() {
            let answer =
                |path| admin::request(self.node(number).admin(), "GET", path, ANSWER_WITHIN);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "node {number}: readyz {:?}\n  cluster {:?}\n  end of its log:\n{}",
                answer("/readyz"),
                answer("/api/v1/cluster"),
                self.node(number).log_end()
            );
        }
        text
    }

    /// Asks all running nodes to end, one after another; each must do so in time.
    pub fn terminate(mut self) {
        for number in self.running() {
            let ended = self.node_mut(number).terminate();
            let status = ended.unwrap_or_else(|error| panic!("node {number}: {error}"));
            assert!(status.success(), "node {number} ended with {status}");
        }
    }
}

/// The setting that tells nodes where to find these.
pub fn seeds(nodes: impl Iterator<Item = u32>) -> String {
    nodes
        .map(|number| format!("{}:{CLUSTER_PORT}", Place::Node(number).address()))
        .collect::<Vec<_>>()
        .join(",")
}

/// The number of the node with an id.
pub fn number_of(status: &Status, id: u64) -> Option<u32> {
    let address = &status.member(id)?.address;
    let (host, _) = address.rsplit_once(':')?;
    let address: std::net::Ipv4Addr = host.parse().ok()?;
    Some(u32::from(address.octets()[3]))
}
