//! The command line: what can be run, and which flags stand for which keys.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};

use crate::admin_client::{AdminClient, Trust};
use crate::cluster_command::{self, ClusterCommand};
use crate::config::{self, Config, FlagValue, Layers};
use crate::error::DaemonError;
use crate::{bench_command, health, serve};

/// Where a node's admin interface is when nobody says otherwise.
pub const ADMIN_URL: &str = "http://127.0.0.1:8080";
/// How long `flotilla health` waits for an answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// A clustered message broker.
#[derive(Debug, Parser)]
#[command(name = "flotilla", version = serve::VERSION, about)]
pub enum Command {
    /// Runs a node until it gets SIGTERM or SIGINT.
    Serve(Box<ServeArguments>),
    /// Prints the version.
    Version,
    /// Asks a running node whether it serves: exit code 0 if it does.
    Health {
        /// The node's admin interface.
        #[arg(long, value_name = "URL", default_value = ADMIN_URL)]
        admin: String,
        #[command(flatten)]
        trust: Trust,
    },
    /// Shows and changes which nodes work together.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Measures this program beside other brokers (runs flotilla-bench, which has a --help of its own).
    #[command(disable_help_flag = true)]
    Bench {
        /// What flotilla-bench is to do: run, smoke, check, list.
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGUMENTS"
        )]
        arguments: Vec<OsString>,
    },
}

/// Flags of `flotilla serve`. Each stands for a key of the configuration and wins over its other sources.
#[derive(Debug, Default, Args)]
pub struct ServeArguments {
    /// TOML file with the configuration.
    #[arg(long, value_name = "FILE", env = config::ENVIRONMENT_FILE)]
    config: Option<PathBuf>,
    /// Where everything is kept (node.data_dir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// What people call this node (node.name).
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Where KubeMQ clients connect (listen.kubemq).
    #[arg(long, value_name = "IP:PORT")]
    kubemq: Option<String>,
    /// Where KubeMQ clients connect over HTTP: REST and WebSocket (listen.kubemq_rest).
    #[arg(long, value_name = "IP:PORT")]
    kubemq_rest: Option<String>,
    /// Where operators connect (listen.admin).
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<String>,
    /// Where other nodes connect (listen.cluster).
    #[arg(long, value_name = "IP:PORT")]
    cluster: Option<String>,
    /// What other nodes dial instead (cluster.advertise).
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Nodes to form a cluster with, or to join the cluster of (cluster.seeds).
    #[arg(long, value_name = "HOST:PORT,...")]
    seeds: Option<String>,
    /// How many new nodes form a cluster (cluster.expect).
    #[arg(long, value_name = "COUNT")]
    expect: Option<String>,
    /// Allows listeners that other hosts can reach (listen.allow_insecure).
    #[arg(long)]
    allow_insecure: bool,
    /// Which log lines are written (log.level).
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines are written: text or json (log.format).
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Sets any key; may be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl ServeArguments {
    /// Reads all sources of the configuration, the process's environment included.
    pub fn configuration(self) -> Result<(Config, Layers), DaemonError> {
        self.configuration_with(std::env::vars_os())
    }

    fn configuration_with(
        self,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<(Config, Layers), DaemonError> {
        let mut layers = Layers::default();
        if let Some(path) = &self.config {
            layers.add_file(path)?;
        }
        layers.add_environment(environment)?;
        layers.add_flags(self.flags()?)?;
        Ok((layers.build()?, layers))
    }

    /// The same with these nodes as seeds, beside those that the flag names.
    pub fn joining(mut self, members: &[String]) -> Self {
        let seeds = self.seeds.iter().chain(members);
        self.seeds = Some(seeds.cloned().collect::<Vec<_>>().join(","));
        self
    }

    fn flags(self) -> Result<Vec<FlagValue>, DaemonError> {
        let named = [
            ("--data-dir", "node.data_dir", self.data_dir),
            ("--node-name", "node.name", self.node_name),
            ("--kubemq", "listen.kubemq", self.kubemq),
            ("--kubemq-rest", "listen.kubemq_rest", self.kubemq_rest),
            ("--admin", "listen.admin", self.admin),
            ("--cluster", "listen.cluster", self.cluster),
            ("--advertise", "cluster.advertise", self.advertise),
            ("--seeds", "cluster.seeds", self.seeds),
            ("--expect", "cluster.expect", self.expect),
            (
                "--allow-insecure",
                "listen.allow_insecure",
                self.allow_insecure.then(|| "true".to_owned()),
            ),
            ("--log-level", "log.level", self.log_level),
            ("--log-format", "log.format", self.log_format),
        ];
        let named = named.into_iter().filter_map(|(flag, key, text)| {
            let key = key.to_owned();
            text.map(|text| Ok(FlagValue { flag, key, text }))
        });
        let free = self.set.into_iter().map(|pair| {
            let (key, text) = pair.split_once('=').ok_or_else(|| DaemonError::Pair {
                // What comes after the key may be a secret.
                given: pair
                    .split_once(|c: char| !c.is_ascii_alphanumeric() && !"._".contains(c))
                    .map_or_else(|| pair.clone(), |(key, _)| format!("{key}…")),
            })?;
            Ok(FlagValue {
                flag: "--set",
                key: key.to_owned(),
                text: text.to_owned(),
            })
        });
        named.chain(free).collect()
    }
}

/// Runs a command to its end.
pub fn run(command: Command) -> Result<(), DaemonError> {
    match command {
        Command::Serve(arguments) => {
            let (config, layers) = arguments.configuration()?;
            serve::run(config, &layers)
        }
        Command::Version => {
            print_line(&format!("flotilla {}", serve::VERSION));
            Ok(())
        }
        Command::Health { admin, trust } => {
            let node = AdminClient::new(&admin, HEALTH_TIMEOUT, &trust)?;
            print_line(&health::ask(&node)?);
            Ok(())
        }
        Command::Cluster(command) => cluster_command::run(command),
        Command::Bench { arguments } => bench_command::run(&arguments),
    }
}

/// Writes a line to standard output, where scripts read it. Nobody reading is no reason to stop.
pub fn print_line(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::warn!(%error, line, "cannot write to standard output");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(arguments: &[&str]) -> Result<Vec<(String, String)>, String> {
        let line = ["flotilla", "serve"].iter().chain(arguments);
        let Command::Serve(arguments) = Command::try_parse_from(line).map_err(|e| e.to_string())?
        else {
            panic!("serve was parsed as something else");
        };
        let flags = arguments.flags().map_err(|e| e.to_string())?;
        Ok(flags.into_iter().map(|f| (f.key, f.text)).collect())
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Command::command().debug_assert();
    }

    #[test]
    fn flags_set_their_keys() {
        let got = flags(&[
            "--kubemq",
            "127.0.0.1:0",
            "--allow-insecure",
            "--set",
            "storage.cache=64MiB",
            "--set",
            "node.name=a=b",
        ]);
        let expected = [
            ("listen.kubemq", "127.0.0.1:0"),
            ("listen.allow_insecure", "true"),
            ("storage.cache", "64MiB"),
            ("node.name", "a=b"),
        ];
        let expected: Vec<_> = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(got.unwrap(), expected);
    }

    #[test]
    fn a_node_joins_by_its_seeds() {
        let line = "flotilla cluster join a:7600 b:7600 --data-dir d --cluster 127.0.0.1:0";
        let Command::Cluster(ClusterCommand::Join(join)) =
            Command::try_parse_from(line.split(' ')).unwrap()
        else {
            panic!("join was parsed as something else");
        };
        let (config, _) = join
            .serve_arguments()
            .configuration_with(std::iter::empty())
            .unwrap();
        assert_eq!(config.cluster.seeds, ["a:7600", "b:7600"]);
        assert_eq!(config.data_dir, PathBuf::from("d"));
    }

    #[test]
    fn whatever_follows_bench_is_for_the_bench() {
        let line = "flotilla bench run --full --help -x";
        let Command::Bench { arguments } = Command::try_parse_from(line.split(' ')).unwrap() else {
            panic!("bench was parsed as something else");
        };
        assert_eq!(arguments, ["run", "--full", "--help", "-x"]);
    }

    #[test]
    fn a_pair_without_equals_sign_is_named() {
        let error = flags(&["--set", "storage.cache"]).unwrap_err();
        assert!(error.contains("\"storage.cache\""), "{error}");
    }
}
