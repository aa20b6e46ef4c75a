//! What the program is asked for.

use clap::{Parser, ValueEnum};

/// Runs clusters of simulated hosts under faults, each seed another life, and checks what was promised.
#[derive(Clone, Debug, Parser)]
#[command(name = "flotilla-simulation")]
pub struct Options {
    /// One seed, told as it happens
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    pub seed: Option<u64>,

    /// Only the verdict of the one seed
    #[arg(long, requires = "seed")]
    pub quiet: bool,

    /// So many seeds, in processes of their own
    #[arg(long, default_value_t = 200)]
    pub seeds: u64,

    /// The first of them
    #[arg(long, default_value_t = 1)]
    pub first: u64,

    /// Processes at a time: by default one for each processor
    #[arg(long)]
    pub jobs: Option<usize>,

    /// Breaks something on purpose: the checks must see it
    #[arg(long, value_enum)]
    pub defect: Option<Defect>,
}

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Defect {
    /// Disks say yes to a sync and do nothing
    NoSync,
    /// Batches without an answer are sent again without their number
    BlindRepeats,
}
