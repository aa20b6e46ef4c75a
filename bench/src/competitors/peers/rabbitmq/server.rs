//! The servers: Erlang's port mapper, and one or three nodes that find each other through it.
//!
//! Debian's own start script wants a user and folders of the system; the script below it that it calls
//! takes everything from the environment.

use crate::BenchError;
use crate::competitors::peers::fleet::Fleet;
use crate::competitors::peers::{HINT, make_directory, write_file};
use crate::supervise::{Process, free_ports};
use crate::target::Place;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where Debian puts a folder for each version.
const VERSIONS: &str = "/usr/lib/rabbitmq/lib";
const EPMD: &str = "/usr/bin/epmd";
/// Where the port mapper is in the fleet; nodes follow.
const EPMD_INDEX: usize = 0;
/// How long nodes that serve may take to find each other.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// The secret that the nodes of a run know each other by. They are heard on the loopback interface only.
const COOKIE: &str = "flotilla-bench";

pub struct Installation {
    pub version: String,
    scripts: PathBuf,
}

impl Installation {
    pub fn find() -> Result<Self, BenchError> {
        let names = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
        let found = names.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix("rabbitmq_server-")?.to_owned();
            let scripts = entry.path().join("sbin");
            Some(Self { version, scripts })
        });
        found
            .max_by(|one, other| one.version.cmp(&other.version))
            .ok_or_else(|| BenchError::NotInstalled {
                what: "RabbitMQ".to_owned(),
                hint: HINT,
            })
    }
}

/// The environment of one node, and of the command line tool for it.
#[derive(Clone)]
struct Environment(Vec<(&'static str, String)>);

impl Environment {
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.envs(self.0.iter().map(|(key, value)| (*key, value)));
        command
    }
}

pub struct Servers {
    fleet: Fleet,
    epmd_port: u16,
    ports: Vec<u16>,
    control: PathBuf,
    control_log: PathBuf,
    first: Environment,
}

impl Servers {
    pub async fn start(place: &Place) -> Result<Self, BenchError> {
        let installation = Installation::find()?;
        let directory = std::path::absolute(&place.directory);
        let directory = &directory.map_err(BenchError::io("find the folder"))?;
        // The port mapper, three for clients, three for each other.
        let ports: [u16; 7] = free_ports()?;
        let (epmd_port, count) = (ports[0], place.nodes.count());
        let (clients, links) = (&ports[1..=count], &ports[4..4 + count]);
        write_cookie(directory)?;
        write_file(directory, "enabled_plugins", "[].\n")?;
        let configuration = write_file(directory, "rabbitmq.conf", &configuration(count))?;

        let mut fleet = Fleet::default();
        fleet.add("epmd".to_owned(), directory.join("epmd.log"), move || {
            let mut command = Command::new(EPMD);
            command.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
            command
        });
        let mut environments = Vec::with_capacity(count);
        for index in 0..count {
            let name = node(index);
            let data = make_directory(directory, &format!("data-{}", index + 1))?;
            let environment = Environment(vec![
                // Where the secret is.
                ("HOME", directory.display().to_string()),
                ("ERL_EPMD_PORT", epmd_port.to_string()),
                ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
                ("RABBITMQ_NODENAME", name.clone()),
                ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
                ("RABBITMQ_NODE_PORT", clients[index].to_string()),
                ("RABBITMQ_DIST_PORT", links[index].to_string()),
                ("RABBITMQ_MNESIA_BASE", data.display().to_string()),
                ("RABBITMQ_LOG_BASE", data.display().to_string()),
                // To the output, which the fleet keeps.
                ("RABBITMQ_LOGS", "-".to_owned()),
                ("RABBITMQ_CONFIG_FILE", configuration.display().to_string()),
                (
                    "RABBITMQ_CONF_ENV_FILE",
                    directory.join("no-file").display().to_string(),
                ),
                (
                    "RABBITMQ_ENABLED_PLUGINS_FILE",
                    directory.join("enabled_plugins").display().to_string(),
                ),
                (
                    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                    "-kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
                ),
                // The script then becomes the server, instead of staying its parent.
                ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
            ]);
            environments.push(environment.clone());
            let program = installation.scripts.join("rabbitmq-server");
            let log = directory.join(format!("node-{}.log", index + 1));
            fleet.add(name, log, move || environment.command(&program));
        }
        let first = environments.swap_remove(0);
        let mut servers = Self {
            fleet,
            epmd_port,
            ports: clients.to_vec(),
            control: installation.scripts.join("rabbitmqctl"),
            control_log: directory.join("rabbitmqctl.log"),
            first,
        };
        servers.launch_first_time().await?;
        Ok(servers)
    }

    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    pub fn processes(&self) -> Vec<u32> {
        self.fleet.processes()
    }

    /// One after the other: the later ones join the first one.
    async fn launch_first_time(&mut self) -> Result<(), BenchError> {
        self.launch_port_mapper().await?;
        for index in 0..self.ports.len() {
            self.fleet.launch(EPMD_INDEX + 1 + index)?;
            self.wait_serves(index).await?;
        }
        self.wait_joined().await
    }

    /// All at once: nodes of a cluster wait for each other.
    pub async fn kill_and_restart(&mut self) -> Result<(), BenchError> {
        self.kill().await?;
        self.launch_port_mapper().await?;
        for index in 0..self.ports.len() {
            self.fleet.launch(EPMD_INDEX + 1 + index)?;
        }
        for index in 0..self.ports.len() {
            self.wait_serves(index).await?;
        }
        self.wait_joined().await
    }

    async fn launch_port_mapper(&mut self) -> Result<(), BenchError> {
        self.fleet.launch(EPMD_INDEX)?;
        let port = self.epmd_port;
        let listens = || async move {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
        };
        self.fleet.wait_ready(EPMD_INDEX, listens).await
    }

    async fn wait_serves(&mut self, index: usize) -> Result<(), BenchError> {
        let port = self.ports[index];
        let serves = || async move { super::connect(port).await.is_ok() };
        self.fleet.wait_ready(EPMD_INDEX + 1 + index, serves).await
    }

    /// Waits until the first node knows all of them.
    async fn wait_joined(&self) -> Result<(), BenchError> {
        let count = self.ports.len();
        if count == 1 {
            return Ok(());
        }
        let mut command = self.first.command(&self.control);
        command.args(["await_online_nodes", &count.to_string(), "--timeout"]);
        command.arg(JOIN_LIMIT.as_secs().to_string());
        let waiting = Process::start("rabbitmqctl await_online_nodes", command, &self.control_log)?;
        // It needs a second or two for its own start.
        waiting.wait_success(2 * JOIN_LIMIT).await
    }

    pub async fn kill(&mut self) -> Result<(), BenchError> {
        self.fleet.kill().await
    }
}

fn node(index: usize) -> String {
    format!("bench{}@localhost", index + 1)
}

/// What the nodes of a cluster read.
fn configuration(count: usize) -> String {
    let mut text = String::from("# Of one run of the bench.\n");
    if count > 1 {
        text.push_str("cluster_formation.peer_discovery_backend = classic_config\n");
        for index in 0..count {
            writeln!(
                text,
                "cluster_formation.classic_config.nodes.{} = {}",
                index + 1,
                node(index)
            )
            .expect("a String takes everything");
        }
    }
    text
}

/// Erlang refuses a secret that others may read.
fn write_cookie(directory: &Path) -> Result<(), BenchError> {
    let path = write_file(directory, ".erlang.cookie", COOKIE)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400))
        .map_err(BenchError::io("protect the cookie"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_of_a_cluster_are_told_of_each_other() {
        assert!(!configuration(1).contains("cluster_formation"));
        let text = configuration(3);
        for name in ["bench1@localhost", "bench2@localhost", "bench3@localhost"] {
            assert!(text.contains(name), "{text}");
        }
    }
}
