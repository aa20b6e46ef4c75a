//! Runs workloads against competitors, in rounds: in each round every competitor runs once, one after
//! another, so that what changes on the machine from minute to minute hits all of them alike. Each round
//! begins with the next competitor, so that none always has the machine as the same other one left it.
//!
//! Every run begins with a system that was started for it, on an empty directory and with nothing left to
//! be written back by the kernel.

use crate::BenchError;
use crate::error::within;
use crate::measure::{Sample, Timing};
use crate::target::{Competitor, Place, Support};
use crate::workload::{Kind, Workload};
use folder::RunFolder;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

mod folder;

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
    /// The system has something like it, which the bench does not drive.
    NotMeasured,
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
            for competitor in turns(&plan.competitors, round) {
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

/// Who runs in a round, in order.
fn turns<T>(competitors: &[T], round: usize) -> impl Iterator<Item = &T> {
    let first = round % competitors.len().max(1);
    let (later, earlier) = competitors.split_at(first);
    earlier.iter().chain(later)
}

impl Run {
    fn is_fruitless(&self) -> bool {
        !matches!(self.outcome, Outcome::Measured(_))
    }
}

async fn turn(plan: &Plan, workload: &Workload, competitor: &dyn Competitor) -> Outcome {
    if !competitor.keeps_messages() && !matches!(workload.kind, Kind::Publish(_)) {
        return Outcome::NotMeasured;
    }
    match competitor.supports(workload.family(), workload.nodes) {
        Support::Measured => {}
        Support::NotMeasured => return Outcome::NotMeasured,
        Support::Missing => return Outcome::NotSupported,
    }
    match started_and_run(plan, workload, competitor).await {
        // Nothing can be compared with nothing.
        Ok(sample) if sample.messages == 0 && workload.kind != Kind::Idle => {
            Outcome::Failed("no message came to its end in the time that counts".to_owned())
        }
        Ok(sample) => Outcome::Measured(sample),
        Err(BenchError::NotSupported(_)) => Outcome::NotSupported,
        Err(BenchError::NotMeasured(_)) => Outcome::NotMeasured,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

async fn started_and_run(
    plan: &Plan,
    workload: &Workload,
    competitor: &dyn Competitor,
) -> Result<Sample, BenchError> {
    let folder = RunFolder::within(&plan.directory);
    let place = Place {
        nodes: workload.nodes,
        directory: folder.make()?,
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
    folder.clear()?;
    let sample = ran?;
    stopped?;
    Ok(sample)
}

#[cfg(test)]
mod tests;
