//! What a bench found: every run, and by workload and competitor the figures that people compare.

mod chart;
mod markdown;

use crate::competitors::BASE;
use crate::goals::{self, Measured, Verdict};
use crate::harness::{Outcome, Run};
use crate::machine::Machine;
use crate::measure::Sample;
use crate::statistics::{median, spread};
use crate::target::Competitor;
use crate::workload::{Measure, Workload};
use crate::{BenchError, harness};
use serde::Serialize;
use std::path::Path;

/// Of the JSON file.
const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    format: u32,
    machine: Machine,
    warm_up_seconds: f64,
    run_seconds: f64,
    rounds: usize,
    tables: Vec<Table>,
    runs: Vec<Run>,
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Table {
    workload: String,
    title: String,
    unit: &'static str,
    less_is_better: bool,
    #[serde(skip)]
    measure: Measure,
    message_bytes: Option<usize>,
    rows: Vec<Row>,
}

/// One competitor at one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    competitor: &'static str,
    version: String,
    durability: &'static str,
    #[serde(flatten)]
    result: RowResult,
    verdicts: Vec<Verdict>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
enum RowResult {
    Measured(Box<Figures>),
    NotMeasured,
    NotSupported,
    Failed { text: String },
}

/// Medians of the runs of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Figures {
    /// That came to their end.
    runs: usize,
    /// That did not, and why the first of them did not.
    failed: usize,
    failure: Option<String>,
    value: f64,
    value_low: f64,
    value_high: f64,
    /// How many times as good Flotilla was in the same round: median, lowest and highest.
    base_advantage: Option<f64>,
    base_advantage_low: Option<f64>,
    base_advantage_high: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    p999_us: Option<f64>,
    /// None if no messages were counted, or only the one that ends a recovery.
    server_cpu_seconds_per_million: Option<f64>,
    client_cpu_seconds_per_million: Option<f64>,
    resident_bytes: f64,
    /// In all runs.
    lost: u64,
}

impl Report {
    pub fn new(plan: &harness::Plan, machine: Machine, runs: Vec<Run>) -> Self {
        let workloads = plan.workloads.iter();
        Self {
            format: FORMAT,
            machine,
            warm_up_seconds: plan.timing.warm_up.as_secs_f64(),
            run_seconds: plan.timing.run.as_secs_f64(),
            rounds: plan.rounds,
            tables: workloads
                .map(|workload| Table::new(plan, workload, &runs))
                .collect(),
            runs,
        }
    }

    /// Writes `bench.json`, `bench.md` and `bench.svg`.
    pub fn write(&self, directory: &Path) -> Result<(), BenchError> {
        let json = serde_json::to_string_pretty(self).map_err(BenchError::client("write JSON"))?;
        std::fs::create_dir_all(directory)
            .map_err(BenchError::io(format!("make {}", directory.display())))?;
        let files = [
            ("bench.json", json),
            ("bench.md", self.markdown()),
            ("bench.svg", self.chart()),
        ];
        for (name, text) in files {
            let path = directory.join(name);
            std::fs::write(&path, text)
                .map_err(BenchError::io(format!("write {}", path.display())))?;
        }
        Ok(())
    }

    pub fn markdown(&self) -> String {
        markdown::render(self)
    }

    pub fn chart(&self) -> String {
        chart::render(&self.tables)
    }

    /// Runs that failed.
    pub fn count_failed(&self) -> usize {
        let failed = |run: &&Run| matches!(run.outcome, Outcome::Failed(_));
        self.runs.iter().filter(failed).count()
    }
}

impl Table {
    fn new(plan: &harness::Plan, workload: &Workload, runs: &[Run]) -> Self {
        let runs: Vec<&Run> = runs
            .iter()
            .filter(|run| run.workload == workload.id)
            .collect();
        let measure = workload.measure();
        let mut rows: Vec<Row> = plan
            .competitors
            .iter()
            .map(|competitor| Row::new(workload, competitor.as_ref(), &runs))
            .collect();
        let measured: Vec<Measured> = rows.iter().filter_map(Row::measured).collect();
        let verdicts: Vec<Vec<Verdict>> = rows
            .iter()
            .map(|row| goals::verdicts(&workload.id, row.competitor, &measured))
            .collect();
        for (row, verdicts) in rows.iter_mut().zip(verdicts) {
            row.verdicts = verdicts;
        }
        Self {
            workload: workload.id.clone(),
            title: workload.title.clone(),
            unit: measure.unit(),
            less_is_better: measure.less_is_better(),
            measure,
            message_bytes: workload.message_bytes(),
            rows,
        }
    }
}

impl Row {
    fn new(workload: &Workload, competitor: &dyn Competitor, runs: &[&Run]) -> Self {
        let name = competitor.name();
        Self {
            competitor: name,
            version: competitor
                .version()
                .unwrap_or_else(|_| "unknown".to_owned()),
            durability: competitor.durability(workload.family(), workload.nodes),
            result: result_of(workload.measure(), name, runs),
            verdicts: Vec::new(),
        }
    }

    fn measured(&self) -> Option<Measured<'static>> {
        let RowResult::Measured(figures) = &self.result else {
            return None;
        };
        Some(Measured {
            competitor: self.competitor,
            value: figures.value,
            base_advantage: figures.base_advantage,
            p50_us: figures.p50_us,
            resident_bytes: figures.resident_bytes,
        })
    }
}

fn result_of(measure: Measure, name: &str, runs: &[&Run]) -> RowResult {
    let own = || runs.iter().filter(|run| run.competitor == name);
    let failures = || {
        own().filter_map(|run| match &run.outcome {
            Outcome::Failed(text) => Some(text),
            _ => None,
        })
    };
    let samples: Vec<&Sample> = own().filter_map(|run| run.sample()).collect();
    let values: Vec<f64> = samples.iter().map(|sample| measure.of(sample)).collect();
    let (Some(value), Some((low, high))) = (median(&values), spread(&values)) else {
        let not_measured = own().any(|run| run.outcome == Outcome::NotMeasured);
        return match failures().next() {
            Some(text) => RowResult::Failed { text: text.clone() },
            None if not_measured => RowResult::NotMeasured,
            None => RowResult::NotSupported,
        };
    };
    let base_of = |round| {
        let base = |run: &&&Run| run.competitor == BASE && run.round == round;
        runs.iter().find(base)?.sample()
    };
    let advantages: Vec<f64> = own()
        .filter_map(|run| {
            let base = measure.of(base_of(run.round)?);
            Some(measure.advantage(base, measure.of(run.sample()?)))
        })
        .collect();
    let middle = |figure: &dyn Fn(&Sample) -> Option<f64>| {
        let figures: Vec<f64> = samples.iter().filter_map(|sample| figure(sample)).collect();
        median(&figures)
    };
    let counted = |sample: &Sample, figure: f64| {
        (sample.messages > 0 && measure != Measure::Seconds).then_some(figure)
    };
    RowResult::Measured(Box::new(Figures {
        runs: samples.len(),
        failed: failures().count(),
        failure: failures().next().cloned(),
        value,
        value_low: low,
        value_high: high,
        base_advantage: median(&advantages),
        base_advantage_low: spread(&advantages).map(|(low, _)| low),
        base_advantage_high: spread(&advantages).map(|(_, high)| high),
        p50_us: middle(&|sample| Some(sample.latency?.p50_us)),
        p99_us: middle(&|sample| Some(sample.latency?.p99_us)),
        p999_us: middle(&|sample| Some(sample.latency?.p999_us)),
        server_cpu_seconds_per_million: middle(&|sample| {
            counted(sample, sample.server_cpu_per_million())
        }),
        client_cpu_seconds_per_million: middle(&|sample| {
            counted(sample, sample.client_cpu_per_million())
        }),
        resident_bytes: middle(&|sample| Some(sample.cost.resident_bytes as f64)).unwrap_or(0.0),
        lost: samples.iter().map(|sample| sample.lost).sum(),
    }))
}

impl Run {
    fn sample(&self) -> Option<&Sample> {
        match &self.outcome {
            Outcome::Measured(sample) => Some(sample),
            Outcome::NotMeasured | Outcome::NotSupported | Outcome::Failed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
