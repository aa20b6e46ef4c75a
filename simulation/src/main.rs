//! Clusters of simulated hosts: real nodes, without their clients' protocols, on hosts whose processors,
//! clocks, disks and network are decided by a seed.
//!
//! ```text
//!   many: a process for each seed      single: one seed in this process
//!                                          |
//!                                       scenario: what a seed stands for
//!                 .------------------------+-----------------------.
//!              clients                   faults                  finish: drain, read, compare
//!                 '---------> host: lives of a node <--------------'
//!                               |        |       |
//!                          network    clock    disk (storage::testing)
//!                               '--------+-------'
//!                              machine: threads, time, randomness, synced bytes
//! ```
//!
//! A failure prints its seed, and the seed fails again, wherever and whenever it is run.

mod clients;
mod clock;
mod faults;
mod finish;
mod host;
mod machine;
mod many;
mod network;
mod options;
mod scenario;
mod single;
mod world;

use std::process::ExitCode;

use clap::Parser;

use crate::options::Options;

#[global_allocator]
static HEAP: machine::Heap = machine::Heap::new();

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(seed) = options.seed {
        single::run(seed, options.defect, !options.quiet);
    }
    match many::run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the seeds could not be run: {error}");
            ExitCode::FAILURE
        }
    }
}
