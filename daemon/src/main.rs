//! The `flotilla` program: reads the configuration, puts the parts together, starts and stops them.
//!
//! ```text
//!   main -> cli -> config           what to run
//!                  serve            the process: log lines, lock, ports, signals
//!                   |- security     certificates (tls), keys and access rules, read first
//!                   |- data_dir     one process per directory
//!                   |- listeners    all ports bound before anything starts
//!                   |- node         cluster, broker, gateways, admin: start and stop
//!                   |- neighbours   log lines about the other nodes
//! ```
//!
//! Its other commands ask a running node: `health`, `cluster_command`, over `admin_client`; or start
//! another program: `bench_command`. It decides nothing about messages.

mod admin_client;
mod admin_thread;
mod bench_command;
mod cli;
mod cluster_command;
mod config;
mod data_dir;
mod error;
mod health;
mod listeners;
mod logging;
mod mutation;
mod neighbours;
mod node;
mod process;
mod security;
mod serve;
mod shutdown;
mod tls;
mod verify_command;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flotilla: {}", error.chain());
            ExitCode::from(error.exit_code())
        }
    }
}
