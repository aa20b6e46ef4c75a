//! Runs workloads against competitors, in rounds: in each round every competitor runs once, one after
//! another, so that what changes on the machine from minute to minute hits all of them alike.
//!
//! Every run begins with a system that was started for it, on an empty directory and with nothing left to
//! be written back by the kernel.

use crate::BenchError;
use crate::measure::{Sample, Timing};
use crate::target::{Competitor, Place};
use crate::workload::{Kind, Workload};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a workload may take beside its warm-up and run: storing a backlog slowly, mostly.
const SPARE_SECONDS: u64 = 180;
/// The same of one that stores gigabytes.
const RECOVERY_SPARE_SECONDS: u64 = 1_800;
const START_SECONDS_MAX: u64 = 120;
const STOP_SECONDS_MAX: u64 = 60;
/// Who failed as often at a workload is not tried again.
const FAILURES_MAX: usize = 2;
/// Rounds of a workload that takes minutes.
const LONG_ROUNDS_MAX: usize = 3;

/// What is run.
pub struct Plan {
    pub workloads: Vec<Workload>,
    pub competitors: Vec<Arc<dyn Competitor>>,
    pub rounds: usize,
    pub timing: Timing,
    /// For the data of all runs, one after another.
    pub directory: PathBuf,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Measured(Sample),
    NotSupported,
    Failed(String),
}

/// One competitor's turn at one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    pub workload: String,
    pub competitor: &'static str,
    /// From 0.
    pub round: usize,
    pub outcome: Outcome,
}

/// Runs a plan to its end; `told` hears of each run when it is over.
pub async fn run(plan: &Plan, mut told: impl FnMut(&Run)) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for workload in &plan.workloads {
        let rounds = match workload.kind {
            Kind::Recovery(_) => plan.rounds.min(LONG_ROUNDS_MAX),
            _ => plan.rounds,
        };
        for round in 0..rounds {
            for competitor in &plan.competitors {
                let name = competitor.name();
                let before = runs.iter().filter(|run| {
                    run.workload == workload.id && run.competitor == name && run.is_fruitless()
                });
                let fruitless = before.count();
                if fruitless >= FAILURES_MAX {
                    continue;
                }
                let outcome = turn(plan, workload, competitor.as_ref()).await;
                let run = Run {
                    workload: workload.id.clone(),
                    competitor: name,
                    round,
                    outcome,
                };
                told(&run);
                runs.push(run);
            }
        }
    }
    runs
}

impl Run {
    fn is_fruitless(&self) -> bool {
        !matches!(self.outcome, Outcome::Measured(_))
    }
}

async fn turn(plan: &Plan, workload: &Workload, competitor: &dyn Competitor) -> Outcome {
    let stores = competitor.keeps_messages() || matches!(workload.kind, Kind::Publish(_));
    if !stores || !competitor.supports(workload.family(), workload.nodes) {
        return Outcome::NotSupported;
    }
    match started_and_run(plan, workload, competitor).await {
        // Nothing can be compared with nothing.
        Ok(sample) if sample.messages == 0 && workload.kind != Kind::Idle => {
            Outcome::Failed("no message came to its end in the time that counts".to_owned())
        }
        Ok(sample) => Outcome::Measured(sample),
        Err(BenchError::NotSupported(_)) => Outcome::NotSupported,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

async fn started_and_run(
    plan: &Plan,
    workload: &Workload,
    competitor: &dyn Competitor,
) -> Result<Sample, BenchError> {
    let directory = plan.directory.join("run");
    clear(&directory)?;
    std::fs::create_dir_all(&directory)
        .map_err(BenchError::io(format!("make {}", directory.display())))?;
    let place = Place {
        nodes: workload.nodes,
        directory: directory.clone(),
    };
    let name = competitor.name();
    let started = competitor.start(place);
    let mut running = within(START_SECONDS_MAX, || format!("starting {name}"), started).await?;
    let spare_seconds = match workload.kind {
        Kind::Recovery(_) => RECOVERY_SPARE_SECONDS,
        _ => SPARE_SECONDS,
    };
    let seconds = (plan.timing.warm_up + plan.timing.run).as_secs() + spare_seconds;
    let ran = workload.run(running.as_mut(), plan.timing);
    let ran = within(seconds, || format!("{} of {name}", workload.id), ran).await;
    let stopped = within(
        STOP_SECONDS_MAX,
        || format!("stopping {name}"),
        running.stop(),
    )
    .await;
    clear(&directory)?;
    let sample = ran?;
    stopped?;
    Ok(sample)
}

async fn within<T>(
    seconds: u64,
    doing: impl FnOnce() -> String,
    work: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, BenchError> {
    let done = tokio::time::timeout(Duration::from_secs(seconds), work).await;
    done.unwrap_or_else(|_| {
        Err(BenchError::TooSlow {
            doing: doing(),
            seconds,
        })
    })
}

/// Removes what a run has left, and waits until the disk is at rest, so that the next one does not pay
/// for it.
fn clear(directory: &Path) -> Result<(), BenchError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .map_err(BenchError::io(format!("remove {}", directory.display())))?;
    let parent = directory.parent().unwrap_or(directory);
    if let Ok(parent) = File::open(parent) {
        // SAFETY: the descriptor is open. An error says that something else could not be written, and
        // changes nothing here.
        unsafe {
            libc::syncfs(parent.as_raw_fd());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
