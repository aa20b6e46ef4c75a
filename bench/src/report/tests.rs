//! What the report says of runs.

use super::*;
use crate::measure::{Cost, Latency};
use crate::target::Nodes;
use crate::testing::{Behaviour, Fake};
use crate::workload::{Kind, Publish, Recovery};
use std::sync::Arc;
use std::time::Duration;

fn sample(messages: u64) -> Sample {
    Sample {
        messages,
        seconds: 2.0,
        latency: Some(Latency {
            p50_us: 100.0,
            p99_us: 200.0,
            p999_us: 300.0,
            max_us: 400.0,
        }),
        lost: 1,
        cost: Cost {
            server_cpu_seconds: 1.0,
            client_cpu_seconds: 0.5,
            resident_bytes: 50_000_000,
        },
    }
}

fn workload() -> Workload {
    Workload {
        id: "publish-1k-1024".to_owned(),
        title: "Publish & more".to_owned(),
        nodes: Nodes::One,
        kind: Kind::Publish(Publish {
            message_bytes: 1_000,
            in_flight: 1_024,
            topics: 1,
            producers: 1,
        }),
    }
}

fn recovery() -> Workload {
    Workload {
        kind: Kind::Recovery(Recovery { stored_bytes: 1 }),
        ..workload()
    }
}

/// A bench in which each competitor counted so many messages in each round. No messages stand for a failed
/// run.
fn report(counts: &[(&'static str, &[u64])]) -> Report {
    report_of(workload(), counts)
}

fn report_of(workload: Workload, counts: &[(&'static str, &[u64])]) -> Report {
    let fakes = counts
        .iter()
        .map(|(name, _)| Fake::new(name, Behaviour::Works));
    let plan = harness::Plan {
        workloads: vec![workload.clone()],
        competitors: fakes
            .map(|fake| Arc::new(fake) as Arc<dyn Competitor>)
            .collect(),
        rounds: 3,
        timing: crate::measure::Timing {
            warm_up: Duration::from_secs(1),
            run: Duration::from_secs(2),
        },
        directory: std::env::temp_dir(),
    };
    let runs = counts.iter().flat_map(|(competitor, counts)| {
        counts.iter().enumerate().map(|(round, messages)| Run {
            workload: workload.id.clone(),
            competitor,
            round,
            outcome: match messages {
                0 => Outcome::Failed("the | disk is full".to_owned()),
                _ => Outcome::Measured(sample(*messages)),
            },
        })
    });
    let runs = runs.collect();
    Report::new(&plan, Machine::look(Path::new("/")), runs)
}

fn figures<'a>(report: &'a Report, competitor: &str) -> &'a Figures {
    let mut rows = report.tables[0].rows.iter();
    let row = rows.find(|row| row.competitor == competitor);
    match &row.expect("it has a row").result {
        RowResult::Measured(figures) => figures,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ratios_are_taken_within_rounds_and_not_between_medians() {
    // The machine was ten times as slow in the last round: medians would say 3 times, each round says 2.
    let report = report(&[(BASE, &[600, 600, 60]), ("nats", &[300, 200, 30])]);
    let nats = figures(&report, "nats");
    assert_eq!(nats.base_advantage, Some(2.0));
    assert_eq!(nats.base_advantage_low, Some(2.0));
    assert_eq!(nats.base_advantage_high, Some(3.0));
    assert_eq!(
        (nats.value, nats.value_low, nats.value_high),
        (100.0, 15.0, 150.0)
    );
}

#[test]
fn cost_is_told_for_a_million_messages_and_losses_are_summed_up() {
    let report = report(&[(BASE, &[500_000, 500_000, 500_000])]);
    let figures = figures(&report, BASE);
    assert_eq!(figures.server_cpu_seconds_per_million, Some(2.0));
    assert_eq!(figures.client_cpu_seconds_per_million, Some(1.0));
    assert_eq!(figures.lost, 3);
}

#[test]
fn who_failed_in_some_rounds_is_not_shown_like_one_who_never_did() {
    let report = report(&[(BASE, &[600, 600, 600]), ("nats", &[300, 0, 300])]);
    let nats = figures(&report, "nats");
    assert_eq!((nats.runs, nats.failed), (2, 1));
    let markdown = report.markdown();
    let shown = "| 150 (2 of 3 runs; failed: the \\| disk is full) | 150 to 150 |";
    assert!(markdown.contains(shown), "{markdown}");
    assert_eq!(markdown.matches("failed").count(), 1, "{markdown}");
}

#[test]
fn a_recovery_has_no_cost_for_a_million_messages() {
    let report = report_of(recovery(), &[(BASE, &[1, 1, 1])]);
    let figures = figures(&report, BASE);
    assert_eq!(figures.value, 2.0);
    assert_eq!(figures.server_cpu_seconds_per_million, None);
    assert_eq!(figures.client_cpu_seconds_per_million, None);
}

#[test]
fn the_chart_says_where_a_short_bar_is_a_good_one() {
    let counts: &[(&'static str, &[u64])] = &[(BASE, &[1])];
    let says = |workload| {
        let report = report_of(workload, counts);
        report.chart().contains("less is better")
    };
    assert!(says(recovery()));
    assert!(!says(workload()));
}

#[test]
fn goals_that_are_met_and_missed_stand_in_the_row_of_the_peer() {
    let report = report(&[
        (BASE, &[600, 600, 600]),
        ("nats", &[300, 300, 300]),
        ("redis-always", &[500, 500, 500]),
    ]);
    let markdown = report.markdown();
    let line = |name: &str| {
        let start = format!("| {name} ");
        let mut lines = markdown.lines();
        lines
            .find(|line| line.starts_with(&start))
            .expect("a row")
            .to_owned()
    };
    assert!(line("nats").contains("≥ 1.5 ×: met"), "{markdown}");
    let redis = line("redis-always");
    assert!(redis.contains("≥ 1.5 ×: **missed**"), "{markdown}");
    assert!(redis.contains("floor ≥ 1 ×: met"), "{markdown}");
}

#[test]
fn every_row_of_a_table_has_as_many_cells_as_its_head() {
    let report = report(&[(BASE, &[600]), ("nats", &[])]);
    let markdown = report.markdown();
    let rows = markdown.lines().filter(|line| line.starts_with('|'));
    let cells: Vec<usize> = rows.map(|line| line.matches('|').count()).collect();
    assert!(
        cells.len() == 4 && cells.iter().all(|count| *count == cells[0]),
        "{markdown}"
    );
}

#[test]
fn files_are_written_with_every_run_in_them() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let report = report(&[(BASE, &[600, 600, 60])]);
    let directory = work.path().join("results");
    report.write(&directory).expect("they are written");
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect("it is there");
    let json: serde_json::Value = serde_json::from_str(&read("bench.json")).expect("it is JSON");
    assert_eq!(json["format"], 1);
    assert_eq!(json["runs"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["tables"][0]["rows"][0]["value"], 300.0);
    let chart = read("bench.svg");
    assert!(
        chart.starts_with("<svg") && chart.contains("Publish &amp; more"),
        "{chart}"
    );
    assert!(read("bench.md").contains("# Bench"));
}
