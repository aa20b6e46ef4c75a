//! What can stop the program, and the exit code that it then ends with.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use flotilla_broker::BrokerError;
use flotilla_cluster::ClusterError;
use flotilla_gateway::GatewayError;
use flotilla_storage::error_chain;

use crate::config::{Origin, format_duration_ms};

/// Why the program did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A value that is not possible.
    #[error("{key} = {value:?} ({origin}) is not possible; allowed: {allowed}")]
    Config {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// By whom.
        origin: Origin,
        /// What would do.
        allowed: String,
    },
    /// A key that does not exist.
    #[error("unknown key {key:?} ({origin}); known: {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Who set it.
        origin: Origin,
        /// The keys it may have been meant to be.
        known: String,
    },
    /// A `--set` without a value.
    #[error("--set {given:?} must have the form section.key=value")]
    Pair {
        /// What was given.
        given: String,
    },
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {path}", path = path.display())]
    ConfigFile {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration file is not TOML.
    #[error(
        "the configuration file {path} is not valid TOML at line {line}, column {column}: {problem}",
        path = path.display()
    )]
    ConfigSyntax {
        /// Its path.
        path: PathBuf,
        /// Where, from 1 on.
        line: usize,
        /// Where in it, in characters from 1 on.
        column: usize,
        /// Why.
        problem: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {key} = \"{address}\" ({origin})")]
    Listen {
        /// The key.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// Who set it.
        origin: Origin,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file with a certificate, a key or a secret is not what it should be.
    #[error("cannot use {key} = {path:?}: {problem}")]
    SecurityFile {
        /// The key that names it.
        key: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Clients cannot be authenticated or authorized as configured.
    #[error("cannot control who has access")]
    Access(#[source] GatewayError),
    /// Another process uses the data directory.
    #[error(
        "the data directory {path} is in use by process {holder}; one node needs a directory of its own",
        path = path.display()
    )]
    DataDirLocked {
        /// The directory.
        path: PathBuf,
        /// The other process, as it wrote itself down.
        holder: String,
    },
    /// The data directory cannot be made or locked.
    #[error("cannot {action} {path}", path = path.display())]
    DataDir {
        /// What failed.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log, or the groups on it, did not start.
    #[error("cannot start the node on {path}", path = path.display())]
    Cluster {
        /// The data directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: ClusterError,
    },
    /// The actors did not start.
    #[error("cannot start the broker")]
    Broker(#[source] BrokerError),
    /// A thread, a runtime or a signal handler could not be made.
    #[error("cannot {action}")]
    Runtime {
        /// What failed.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part that should run for ever ended.
    #[error("{part} ended unexpectedly: {reason}")]
    Ended {
        /// Which.
        part: &'static str,
        /// What it said.
        reason: String,
    },
    /// The shutdown took too long.
    #[error("not everything stopped within {}", format_duration_ms(grace.as_millis() as u64))]
    ShutdownTimeout {
        /// How long it was given.
        grace: Duration,
    },
    /// The log could not be closed cleanly.
    #[error("cannot close the log cleanly")]
    Close(#[source] ClusterError),
    /// A node asked by a command of the program did not answer, or said no.
    #[error("{url}: {problem}")]
    Admin {
        /// What was asked.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The bench did not start.
    #[error("cannot run {program}; `make bench-build` builds it beside this program", program = program.display())]
    Bench {
        /// What was to be run.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Replicas are not what they should be, or could not be compared.
    #[error("{shards} of {total} shards are not found to be the same and whole on all their nodes")]
    Unsound {
        /// Of so many shards.
        shards: usize,
        /// Of all of them.
        total: u64,
    },
}

impl DaemonError {
    /// 2 for what the user must change before another try can succeed, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. }
            | Self::UnknownKey { .. }
            | Self::Pair { .. }
            | Self::ConfigFile { .. }
            | Self::ConfigSyntax { .. }
            | Self::Listen { .. }
            | Self::SecurityFile { .. }
            | Self::Access(_) => 2,
            _ => 1,
        }
    }

    /// The error with everything that caused it, in one line.
    pub fn chain(&self) -> String {
        error_chain(self)
    }
}
