//! The guard against regressions: two builds of Flotilla at a few workloads, in interleaved pairs.
//!
//! A build fails only if it is proved worse: if the whole 95 % interval of the ratio of new to old, in
//! messages a second or in processor time for each message, lies below nine tenths. A machine that is too
//! noisy to tell makes wide intervals, and those fail nobody. What fails too is a build with a failed run
//! where the old one's came to its end.

use crate::BenchError;
use crate::competitors::flotilla::{Flotilla, Protocol};
use crate::harness::{self, Outcome, Plan, Run};
use crate::measure::{Sample, Timing};
use crate::statistics::{RatioEstimate, estimate_ratio};
use crate::target::Competitor;
use crate::workload::{Workload, catalogue};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a ratio must not be proved to be below.
const RATIO_MIN: f64 = 0.9;
const OLD: &str = "old";
const NEW: &str = "new";

/// What is to be compared.
pub struct Check {
    pub old: PathBuf,
    pub new: PathBuf,
    pub pairs: usize,
    pub timing: Timing,
    pub directory: PathBuf,
}

/// How a figure of the new build compares with the old one's.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub workload: String,
    pub what: &'static str,
    /// None if there are too few pairs of runs that both came to their end.
    pub ratio: Option<RatioEstimate>,
    /// In how many pairs the new build failed and the old one did not.
    pub only_new_failed: usize,
    /// Texts of runs that failed.
    pub failures: Vec<String>,
}

impl Comparison {
    /// Whether the new build is as good as proved to be worse, failed where the old one did not, or could
    /// not be measured at all.
    pub fn is_bad(&self) -> bool {
        self.only_new_failed > 0 || self.ratio.is_none_or(|ratio| ratio.high < RATIO_MIN)
    }
}

/// Runs all pairs; they are the rounds of a bench, in which the order changes from pair to pair.
pub async fn run(check: &Check, told: impl FnMut(&Run)) -> Result<Vec<Comparison>, BenchError> {
    let build = |name, binary: &Path| -> Arc<dyn Competitor> {
        Arc::new(Flotilla::new(name, binary, Protocol::Native))
    };
    let builds = [build(OLD, &check.old), build(NEW, &check.new)];
    for build in &builds {
        build.version()?;
    }
    let plan = Plan {
        workloads: catalogue::short(),
        competitors: builds.to_vec(),
        rounds: check.pairs,
        timing: check.timing,
        directory: check.directory.clone(),
    };
    let runs = harness::run(&plan, told).await;
    let workloads = plan.workloads.iter();
    Ok(workloads
        .flat_map(|workload| compare(workload, &runs))
        .collect())
}

fn compare(workload: &Workload, runs: &[Run]) -> [Comparison; 2] {
    let runs = runs.iter().filter(|run| run.workload == workload.id);
    let runs = &runs.collect::<Vec<_>>();
    let measure = workload.measure();
    let rate = |old: &Sample, new: &Sample| measure.advantage(measure.of(new), measure.of(old));
    let cpu =
        |old: &Sample, new: &Sample| old.server_cpu_per_million() / new.server_cpu_per_million();
    [
        comparison(workload, "messages a second", runs, rate),
        comparison(workload, "messages for each second of CPU", runs, cpu),
    ]
}

fn comparison(
    workload: &Workload,
    what: &'static str,
    runs: &[&Run],
    ratio: impl Fn(&Sample, &Sample) -> f64,
) -> Comparison {
    let outcome = |name: &str, round: usize| {
        let mut found = runs.iter();
        let found = found.find(|run| run.competitor == name && run.round == round);
        found.map(|run| &run.outcome)
    };
    let sample = |name: &str, round: usize| match outcome(name, round)? {
        Outcome::Measured(sample) => Some(sample),
        _ => None,
    };
    let rounds = runs.iter().map(|run| run.round + 1).max().unwrap_or(0);
    let ratios: Vec<f64> = (0..rounds)
        .filter_map(|round| Some(ratio(sample(OLD, round)?, sample(NEW, round)?)))
        .collect();
    let only_new_failed = (0..rounds).filter(|round| {
        let failed = matches!(outcome(NEW, *round), Some(Outcome::Failed(_)));
        failed && sample(OLD, *round).is_some()
    });
    let failures = runs.iter().filter_map(|run| match &run.outcome {
        Outcome::Failed(text) => Some(format!("{}: {text}", run.competitor)),
        _ => None,
    });
    Comparison {
        workload: workload.id.clone(),
        what,
        ratio: estimate_ratio(&ratios),
        only_new_failed: only_new_failed.count(),
        failures: failures.collect(),
    }
}

/// The comparisons as a table for people.
pub fn table(comparisons: &[Comparison]) -> String {
    let mut text = format!(
        "{:<20} {:<32} {:>8} {:>18}\n",
        "workload", "new / old of", "ratio", "95 % interval"
    );
    for comparison in comparisons {
        let verdict = if comparison.is_bad() { "  WORSE" } else { "" };
        let (ratio, interval) = match comparison.ratio {
            Some(ratio) => (
                format!("{:.3}", ratio.mean),
                format!("{:.3} to {:.3}", ratio.low, ratio.high),
            ),
            None => ("–".to_owned(), "too few runs".to_owned()),
        };
        text += &format!(
            "{:<20} {:<32} {ratio:>8} {interval:>18}{verdict}\n",
            comparison.workload, comparison.what
        );
        for failure in &comparison.failures {
            text += &format!("    a run failed: {failure}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Cost;

    /// Runs of both builds, as messages and processor seconds. No messages stand for a failed run.
    fn runs(old: &[(u64, f64)], new: &[(u64, f64)]) -> Vec<Run> {
        let of = |competitor, samples: &[(u64, f64)]| -> Vec<Run> {
            let numbered = samples.iter().enumerate();
            numbered
                .map(|(round, (messages, server_cpu_seconds))| Run {
                    workload: catalogue::short()[0].id.clone(),
                    competitor,
                    round,
                    outcome: match messages {
                        0 => Outcome::Failed("it crashed".to_owned()),
                        _ => Outcome::Measured(sample(*messages, *server_cpu_seconds)),
                    },
                })
                .collect()
        };
        [of(OLD, old), of(NEW, new)].concat()
    }

    fn sample(messages: u64, server_cpu_seconds: f64) -> Sample {
        Sample {
            messages,
            seconds: 1.0,
            latency: None,
            lost: 0,
            cost: Cost {
                server_cpu_seconds,
                ..Cost::default()
            },
        }
    }

    fn bad(old: &[(u64, f64)], new: &[(u64, f64)]) -> [bool; 2] {
        let workload = &catalogue::short()[0];
        compare(workload, &runs(old, new)).map(|comparison| comparison.is_bad())
    }

    const STEADY: &[(u64, f64)] = &[(1_000, 1.0), (1_010, 1.0), (990, 1.0), (1_000, 1.0)];

    #[test]
    fn the_same_build_passes() {
        assert_eq!(bad(STEADY, STEADY), [false, false]);
    }

    #[test]
    fn a_build_that_is_steadily_a_fifth_slower_fails() {
        let slower: Vec<(u64, f64)> = STEADY.iter().map(|(m, s)| (m * 4 / 5, s * 0.8)).collect();
        assert_eq!(bad(STEADY, &slower), [true, false]);
    }

    #[test]
    fn a_build_that_needs_more_processor_time_fails_though_it_is_as_fast() {
        let costlier: Vec<(u64, f64)> = STEADY.iter().map(|(m, s)| (*m, s * 1.25)).collect();
        assert_eq!(bad(STEADY, &costlier), [false, true]);
    }

    #[test]
    fn noise_alone_fails_nobody() {
        let noisy = [(500, 0.5), (1_400, 1.5), (600, 0.7), (1_000, 0.9)];
        assert_eq!(bad(STEADY, &noisy), [false, false]);
    }

    #[test]
    fn a_build_that_fails_where_the_old_one_did_not_fails() {
        let mut crashing = STEADY.to_vec();
        crashing[1].0 = 0;
        assert_eq!(bad(STEADY, &crashing), [true, true]);
        assert_eq!(bad(&crashing, &crashing), [false, false]);
        assert_eq!(bad(&crashing, STEADY), [false, false]);
        let workload = &catalogue::short()[0];
        let text = table(&compare(workload, &runs(STEADY, &crashing)));
        assert!(text.contains("a run failed: new: it crashed"), "{text}");
    }

    #[test]
    fn a_build_that_cannot_be_measured_fails() {
        assert_eq!(bad(STEADY, &[]), [true, true]);
        let workload = &catalogue::short()[0];
        let text = table(&compare(workload, &runs(STEADY, &[])));
        assert!(text.contains("too few runs  WORSE"), "{text}");
    }
}
