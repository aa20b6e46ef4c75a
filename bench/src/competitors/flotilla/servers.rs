//! The server processes: one node, or three that form a cluster.

use crate::BenchError;
use crate::supervise::{Process, free_ports, kill_all};
use crate::target::Place;
use futures::future::{self, FutureExt};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a start may take, one that recovers a large log too.
const START_LIMIT: Duration = Duration::from_secs(60);

pub struct Servers {
    binary: PathBuf,
    place: Place,
    nodes: Vec<Node>,
    processes: Vec<Process>,
    /// So that each start has log files of its own.
    starts: usize,
    drivers: AtomicUsize,
}

struct Node {
    number: usize,
    clients: SocketAddr,
    links: SocketAddr,
}

impl Servers {
    pub async fn start(binary: &Path, place: Place) -> Result<Self, BenchError> {
        // Three for clients and three for each other, all at once so that none is found twice; a node alone
        // needs one of them.
        let ports: [u16; 6] = free_ports()?;
        let (clients, links) = ports.split_at(3);
        let pairs = clients.iter().zip(links).take(place.nodes.count());
        let address = |port: &u16| SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        let nodes = pairs.zip(1..).map(|((clients, links), number)| Node {
            number,
            clients: address(clients),
            links: address(links),
        });
        let nodes = nodes.collect();
        let mut servers = Self {
            binary: binary.to_owned(),
            place,
            nodes,
            processes: Vec::new(),
            starts: 0,
            drivers: AtomicUsize::new(0),
        };
        servers.start_all().await?;
        Ok(servers)
    }

    async fn start_all(&mut self) -> Result<(), BenchError> {
        self.starts += 1;
        for node in &self.nodes {
            let name = format!("flotilla node {}", node.number);
            let log = format!("node-{}-start-{}.log", node.number, self.starts);
            let log = self.place.directory.join(log);
            self.processes
                .push(Process::start(&name, self.command(node), &log)?);
        }
        for process in &mut self.processes {
            let says_so = |process: &Process| process.log().lines().any(|line| line == "ready");
            let ready = |process: &Process| future::ready(says_so(process)).boxed();
            process.wait_ready(START_LIMIT, ready).await?;
        }
        Ok(())
    }

    fn command(&self, node: &Node) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("serve");
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("FLOTILLA_") {
                command.env_remove(key);
            }
        }
        let data = self.place.directory.join(format!("node-{}", node.number));
        command
            .env("FLOTILLA_NODE_DATA_DIR", data)
            .env("FLOTILLA_NODE_NAME", format!("node-{}", node.number))
            .env("FLOTILLA_LISTEN_KUBEMQ", node.clients.to_string())
            .env("FLOTILLA_LISTEN_KUBEMQ_REST", "")
            .env("FLOTILLA_LISTEN_ADMIN", "");
        if self.nodes.len() == 1 {
            // It stays alone.
            command.env("FLOTILLA_LISTEN_CLUSTER", "");
        } else {
            let links = self.nodes.iter().map(|node| node.links.to_string());
            command
                .env("FLOTILLA_LISTEN_CLUSTER", node.links.to_string())
                .env(
                    "FLOTILLA_CLUSTER_SEEDS",
                    links.collect::<Vec<_>>().join(","),
                )
                .env("FLOTILLA_CLUSTER_EXPECT", self.nodes.len().to_string());
        }
        command
    }

    pub fn processes(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// Where the next driver connects to: each node in turn.
    pub fn next_address(&self) -> SocketAddr {
        let turn = self.drivers.fetch_add(1, Ordering::Relaxed);
        self.nodes[turn % self.nodes.len()].clients
    }

    pub async fn kill_and_restart(&mut self) -> Result<(), BenchError> {
        kill_all(std::mem::take(&mut self.processes)).await?;
        self.start_all().await
    }

    /// Its data is thrown away: there is nothing to be saved by a slow end.
    pub async fn stop(self) -> Result<(), BenchError> {
        kill_all(self.processes).await
    }
}
