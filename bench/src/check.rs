//! The guard against regressions: two builds of Flotilla at a few workloads, in interleaved pairs.
//!
//! A build fails only if it is proved worse: if the whole 95 % interval of the ratio of new to old, in
//! messages a second or in processor time for each message, lies below nine tenths. A machine that is too
//! noisy to tell makes wide intervals, and those fail nobody.

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
    /// Texts of runs that failed.
    pub failures: Vec<String>,
}

impl Comparison {
    /// Whether the new build is as good as proved to be worse, or could not be measured at all.
    pub fn is_bad(&self) -> bool {
        self.ratio.is_none_or(|ratio| ratio.high < RATIO_MIN)
    }
}

/// Runs all pairs. The order within a pair changes from pair to pair, so that neither build always has
/// the machine as the other one left it.
pub async fn run(check: &Check, mut told: impl FnMut(&Run)) -> Result<Vec<Comparison>, BenchError> {
    let build = |name, binary: &Path| -> Arc<dyn Competitor> {
        Arc::new(Flotilla::new(name, binary, Protocol::Native))
    };
    let builds = [build(OLD, &check.old), build(NEW, &check.new)];
    for build in &builds {
        build.version()?;
    }
    let mut comparisons = Vec::new();
    for workload in catalogue::short() {
        let mut runs = Vec::new();
        for pair in 0..check.pairs {
            let mut competitors = builds.to_vec();
            if pair % 2 == 1 {
                competitors.reverse();
            }
            let plan = Plan {
                workloads: vec![workload.clone()],
                competitors,
                rounds: 1,
                timing: check.timing,
                directory: check.directory.clone(),
            };
            for mut run in harness::run(&plan, &mut told).await {
                run.round = pair;
                runs.push(run);
            }
        }
        comparisons.extend(compare(&workload, &runs));
    }
    Ok(comparisons)
}

fn compare(workload: &Workload, runs: &[Run]) -> [Comparison; 2] {
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
    runs: &[Run],
    ratio: impl Fn(&Sample, &Sample) -> f64,
) -> Comparison {
    let sample = |name: &str, round: usize| {
        let found = runs
            .iter()
            .find(|run| run.competitor == name && run.round == round);
        match &found?.outcome {
            Outcome::Measured(sample) => Some(sample),
            _ => None,
        }
    };
    let rounds = runs.iter().map(|run| run.round + 1).max().unwrap_or(0);
    let ratios: Vec<f64> = (0..rounds)
        .filter_map(|round| Some(ratio(sample(OLD, round)?, sample(NEW, round)?)))
        .collect();
    let failures = runs.iter().filter_map(|run| match &run.outcome {
        Outcome::Failed(text) => Some(format!("{}: {text}", run.competitor)),
        _ => None,
    });
    Comparison {
        workload: workload.id.clone(),
        what,
        ratio: estimate_ratio(&ratios),
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

    /// Runs of both builds, as messages and processor seconds.
    fn runs(old: &[(u64, f64)], new: &[(u64, f64)]) -> Vec<Run> {
        let of = |competitor, samples: &[(u64, f64)]| -> Vec<Run> {
            let numbered = samples.iter().enumerate();
            numbered
                .map(|(round, (messages, server_cpu_seconds))| Run {
                    workload: "publish".to_owned(),
                    competitor,
                    round,
                    outcome: Outcome::Measured(Sample {
                        messages: *messages,
                        seconds: 1.0,
                        latency: None,
                        lost: 0,
                        cost: Cost {
                            server_cpu_seconds: *server_cpu_seconds,
                            ..Cost::default()
                        },
                    }),
                })
                .collect()
        };
        [of(OLD, old), of(NEW, new)].concat()
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
    fn a_build_that_cannot_be_measured_fails() {
        assert_eq!(bad(STEADY, &[]), [true, true]);
        let workload = &catalogue::short()[0];
        let text = table(&compare(workload, &runs(STEADY, &[])));
        assert!(text.contains("too few runs  WORSE"), "{text}");
    }
}
