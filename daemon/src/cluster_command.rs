//! `flotilla cluster …`: shows the cluster of a running node, and takes nodes out of it.

use std::fmt::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;

use crate::admin_client::{AdminClient, Trust};
use crate::cli::{ServeArguments, print_line};
use crate::error::DaemonError;
use crate::{serve, verify_command};

/// A change of the cluster is answered once a majority has it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What can be done with a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Shows the nodes of the cluster and where its shards are.
    Status {
        #[command(flatten)]
        node: AskedNode,
        /// Prints the answer as the node gave it.
        #[arg(long)]
        json: bool,
    },
    /// Compares the replicas of all shards, and has damaged ones made anew.
    Verify {
        #[command(flatten)]
        node: AskedNode,
        /// Prints the answer as the node gave it.
        #[arg(long)]
        json: bool,
    },
    /// Runs a new node that joins a cluster: `serve` with these nodes as cluster.seeds.
    Join(Box<JoinArguments>),
    /// Moves everything away from a node; it stays in the cluster.
    Drain(NodeArguments),
    /// Lets a drained node take part again.
    Undrain(NodeArguments),
    /// Takes a drained node out of the cluster for ever.
    Leave(NodeArguments),
    /// Changes how many nodes keep each shard.
    Replicas {
        /// 1 to 7.
        #[arg(value_name = "COUNT")]
        count: u32,
        #[command(flatten)]
        node: AskedNode,
    },
}

/// Which node answers.
#[derive(Debug, Args)]
pub struct AskedNode {
    /// The admin interface of any node of the cluster.
    #[arg(long, value_name = "URL", default_value = crate::cli::ADMIN_URL)]
    admin: String,
    #[command(flatten)]
    trust: Trust,
}

/// Which node is meant.
#[derive(Debug, Args)]
pub struct NodeArguments {
    /// The node's id, as the status shows it.
    #[arg(value_name = "ID")]
    id: u64,
    #[command(flatten)]
    node: AskedNode,
}

/// Whom to join, and as what.
#[derive(Debug, Args)]
pub struct JoinArguments {
    /// Nodes of the cluster.
    #[arg(value_name = "HOST:PORT", required = true)]
    members: Vec<String>,
    #[command(flatten)]
    serve: ServeArguments,
}

/// Runs a command to its end.
pub fn run(command: ClusterCommand) -> Result<(), DaemonError> {
    match command {
        ClusterCommand::Status { node, json } => {
            let answer = node.client()?.get("/api/v1/cluster")?;
            if json {
                print_line(answer.trim_end());
                return Ok(());
            }
            let cluster: ClusterAnswer = serde_json::from_str(&answer)
                .map_err(|error| node.fail(format!("not the answer of a node: {error}")))?;
            print_line(cluster.describe().trim_end());
            Ok(())
        }
        ClusterCommand::Verify { node, json } => verify_command::run(&node, json),
        ClusterCommand::Join(join) => {
            let (config, layers) = join.serve_arguments().configuration()?;
            serve::run(config, &layers)
        }
        ClusterCommand::Drain(which) => which.ask_for("drain"),
        ClusterCommand::Undrain(which) => which.ask_for("undrain"),
        ClusterCommand::Leave(which) => which.ask_for("leave"),
        ClusterCommand::Replicas { count, node } => node.client()?.put(
            "/api/v1/cluster/replicas",
            &serde_json::json!({ "replicas": count }).to_string(),
        ),
    }
}

impl AskedNode {
    pub fn client(&self) -> Result<AdminClient, DaemonError> {
        AdminClient::new(&self.admin, ANSWER_TIMEOUT, &self.trust)
    }

    pub fn fail(&self, problem: String) -> DaemonError {
        DaemonError::Admin {
            url: self.admin.clone(),
            problem,
        }
    }
}

impl JoinArguments {
    /// How the new node is served.
    pub fn serve_arguments(self) -> ServeArguments {
        self.serve.joining(&self.members)
    }
}

impl NodeArguments {
    fn ask_for(self, action: &str) -> Result<(), DaemonError> {
        let path = format!("/api/v1/nodes/{}/{action}", self.id);
        self.node.client()?.post(&path).map(drop)
    }
}

/// `GET /api/v1/cluster`, as far as it is shown.
#[derive(Deserialize)]
struct ClusterAnswer {
    cluster: String,
    node: u64,
    ready: bool,
    feature_level: u16,
    replicas: u32,
    nodes: Vec<NodeAnswer>,
    metadata: PlaceAnswer,
    shards: Vec<ShardAnswer>,
}

#[derive(Deserialize)]
struct NodeAnswer {
    id: u64,
    name: String,
    address: String,
    zone: String,
    feature_level_max: u16,
    state: String,
    up: bool,
    leads_shards: Vec<u32>,
}

#[derive(Deserialize)]
struct ShardAnswer {
    id: u32,
    #[serde(flatten)]
    place: PlaceAnswer,
}

#[derive(Deserialize)]
struct PlaceAnswer {
    leader: Option<u64>,
    replicas: Vec<u64>,
}

impl ClusterAnswer {
    /// The cluster as people read it.
    fn describe(&self) -> String {
        let ready = if self.ready { "ready" } else { "not ready" };
        let mut text = format!(
            "cluster {}, seen by node {}, which is {ready}\n\
             feature level {}{}, {} replicas of each shard wanted\n\n",
            self.cluster,
            self.node,
            self.feature_level,
            self.level_held(),
            self.replicas,
        );
        let nodes = self.nodes.iter().map(|node| {
            let keeps = self
                .places()
                .filter(|(_, place)| place.replicas.contains(&node.id));
            [
                node.id.to_string(),
                node.name.clone(),
                node.address.clone(),
                node.zone.clone(),
                node.state.clone(),
                if node.up { "yes" } else { "no" }.to_owned(),
                keeps.count().to_string(),
                node.leads_shards.len().to_string(),
            ]
        });
        let heads = [
            "node", "name", "address", "zone", "state", "heard", "keeps", "leads",
        ];
        text.push_str(&table(heads, nodes.collect()));
        text.push('\n');
        let places = self.places().map(|(what, place)| {
            let leader = place
                .leader
                .map_or("none".to_owned(), |node| node.to_string());
            let replicas: Vec<_> = place.replicas.iter().map(u64::to_string).collect();
            [what, leader, replicas.join(" ")]
        });
        text.push_str(&table(["shard", "leader", "replicas"], places.collect()));
        text
    }

    /// Who keeps the feature level where it is, while others follow a higher one.
    fn level_held(&self) -> String {
        let behind: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| node.feature_level_max <= self.feature_level)
            .map(|node| node.id.to_string())
            .collect();
        if behind.is_empty() || behind.len() == self.nodes.len() {
            return String::new();
        }
        format!(" (held by node {})", behind.join(", "))
    }

    fn places(&self) -> impl Iterator<Item = (String, &PlaceAnswer)> {
        let shards = self.shards.iter();
        let shards = shards.map(|shard| (shard.id.to_string(), &shard.place));
        std::iter::once(("metadata".to_owned(), &self.metadata)).chain(shards)
    }
}

/// Lines with columns as wide as their longest cell.
pub fn table<const N: usize>(heads: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut widths = heads.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let heads = heads.map(str::to_owned);
    for row in std::iter::once(&heads).chain(&rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Command;

    #[test]
    fn the_number_of_replicas_is_an_argument() {
        let line = "flotilla cluster replicas 5 --admin http://a:1";
        let parsed = Command::try_parse_from(line.split(' ')).unwrap();
        let Command::Cluster(ClusterCommand::Replicas { count, node }) = parsed else {
            panic!("replicas was parsed as something else");
        };
        assert_eq!((count, &*node.admin), (5, "http://a:1"));
    }

    #[test]
    fn a_status_is_two_tables() {
        let answer = r#"{
            "cluster": "00ff", "node": 2, "incarnation": 1, "ready": false,
            "feature_level": 1, "replicas": 3,
            "nodes": [
                {"id": 1, "name": "anna", "address": "10.0.0.1:7600", "zone": "", "feature_level_max": 2, "state": "up",
                 "up": false, "silent_ms": 4000, "self": false, "leads_shards": []},
                {"id": 2, "name": "bo", "address": "10.0.0.2:7600", "zone": "b", "feature_level_max": 1, "state": "draining",
                 "up": true, "silent_ms": 0, "self": true, "leads_shards": [1]}],
            "metadata": {"leader": 2, "term": 7, "replicas": [1, 2]},
            "shards": [
                {"id": 1, "leader": 2, "term": 3, "replicas": [2]},
                {"id": 2, "leader": null, "term": 3, "replicas": [1, 2]}]
        }"#;
        let cluster: ClusterAnswer = serde_json::from_str(answer).unwrap();
        let expected = "\
cluster 00ff, seen by node 2, which is not ready
feature level 1 (held by node 2), 3 replicas of each shard wanted

node  name  address        zone  state     heard  keeps  leads
1     anna  10.0.0.1:7600        up        no     2      0
2     bo    10.0.0.2:7600  b     draining  yes    3      1

shard     leader  replicas
metadata  2       1 2
1         2       2
2         none    1 2
";
        assert_eq!(cluster.describe(), expected);
    }
}
