//! The tables that people read.

use super::{Figures, Report, Row, RowResult, Table};
use crate::goals::{GoalKind, Verdict};
use crate::workload::Measure;
use std::fmt::Write;

pub fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail, here and below.
    let _ = head(&mut text, report);
    for table in &report.tables {
        let _ = render_table(&mut text, table);
    }
    text
}

fn head(text: &mut String, report: &Report) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(text, "# Bench\n")?;
    writeln!(
        text,
        "{} × {}, {:.0} GiB memory, Linux {}, data on {}; load average {} before; bench at commit {}, and \
         Flotilla as `--flotilla` gave it. Medians of up to {} rounds of {} s after {} s of warm-up (backlogs, \
         recovery and idle have none, or times of their own), competitors one after another in each round. \
         `Flotilla is` is the median, lowest and highest of how many times as good Flotilla was in the same \
         round. CPU is in seconds for a million messages; memory is that of the server's processes at the \
         end.\n",
        machine.processors,
        machine.processor,
        machine.memory_bytes as f64 / (1_u64 << 30) as f64,
        machine.kernel,
        machine.file_system,
        machine.load_before,
        machine.commit,
        report.rounds,
        report.run_seconds,
        report.warm_up_seconds,
    )?;
    writeln!(text, "![chart](bench.svg)\n")
}

fn render_table(text: &mut String, table: &Table) -> std::fmt::Result {
    writeln!(text, "## {} (`{}`)\n", table.title, table.workload)?;
    writeln!(
        text,
        "| system | acknowledged means | {} | lowest to highest | MB/s | Flotilla is | goal | p50 / p99 / \
         p99.9, µs | CPU server + client | memory, MB | lost |",
        table.unit
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|---|---|")?;
    for row in &table.rows {
        match &row.result {
            RowResult::Measured(figures) => measured(text, table, row, figures)?,
            RowResult::NotMeasured => unmeasured(text, row, "not measured")?,
            RowResult::NotSupported => unmeasured(text, row, "not supported")?,
            RowResult::Failed { text: why } => {
                unmeasured(text, row, &format!("failed: {}", cell(why)))?;
            }
        }
    }
    writeln!(text)
}

fn unmeasured(text: &mut String, row: &Row, why: &str) -> std::fmt::Result {
    writeln!(
        text,
        "| {} | {} | {why} | | | | | | | | |",
        row.competitor, row.durability
    )
}

fn measured(text: &mut String, table: &Table, row: &Row, figures: &Figures) -> std::fmt::Result {
    let optional = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), figure);
    let megabytes = match (table.measure, table.message_bytes) {
        (Measure::PerSecond, Some(bytes)) => figure(figures.value * bytes as f64 / 1e6),
        _ => String::new(),
    };
    let advantage = match (
        figures.base_advantage,
        figures.base_advantage_low,
        figures.base_advantage_high,
    ) {
        (Some(middle), Some(low), Some(high)) => {
            format!("{} × ({} to {})", figure(middle), figure(low), figure(high))
        }
        _ => String::new(),
    };
    let latency = match figures.p50_us {
        Some(p50) => format!(
            "{} / {} / {}",
            figure(p50),
            optional(figures.p99_us),
            optional(figures.p999_us)
        ),
        None => String::new(),
    };
    let value = match &figures.failure {
        None => figure(figures.value),
        Some(why) => format!(
            "{} ({} of {} runs; failed: {})",
            figure(figures.value),
            figures.runs,
            figures.runs + figures.failed,
            cell(why)
        ),
    };
    let cost = match figures.server_cpu_seconds_per_million {
        Some(server) => format!(
            "{} + {}",
            figure(server),
            optional(figures.client_cpu_seconds_per_million)
        ),
        None => String::new(),
    };
    writeln!(
        text,
        "| {} {} | {} | {value} | {} to {} | {megabytes} | {advantage} | {} | {latency} | {cost} | {} | {} |",
        row.competitor,
        cell(&row.version),
        row.durability,
        figure(figures.value_low),
        figure(figures.value_high),
        goals(&row.verdicts),
        figure(figures.resident_bytes / 1e6),
        figures.lost,
    )
}

fn goals(verdicts: &[Verdict]) -> String {
    let each = verdicts.iter().map(|verdict| {
        let kind = match verdict.kind {
            GoalKind::Goal => "",
            GoalKind::Floor => "floor ",
        };
        let met = if verdict.met { "met" } else { "**missed**" };
        format!("{kind}{}: {met}", verdict.goal)
    });
    each.collect::<Vec<_>>().join("; ")
}

/// Text that stays within its cell.
fn cell(text: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(CHARACTERS_MAX).collect();
    short.replace('|', "\\|")
}

/// Three digits at least, and no more than are worth reading; thousands are divided.
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "–".to_owned(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => thousands(value.round() as i64),
    }
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_as_precise_as_they_are_worth() {
        let shown = [0.123, 9.876, 42.42, 999.4, 1_234_567.8, f64::NAN].map(figure);
        assert_eq!(shown, ["0.12", "9.88", "42.4", "999", "1,234,568", "–"]);
    }

    #[test]
    fn a_failure_stays_within_its_cell() {
        let long = format!("a | b\nc {}", "x".repeat(1_000));
        let shown = cell(&long);
        assert!(shown.starts_with("a \\| b c xxx"), "{shown}");
        assert!(shown.len() < 250);
    }
}
