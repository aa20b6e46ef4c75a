//! Takes turns, and prints what they gave.

use std::fs;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{AnyError, Layout, TURN};

#[derive(Default)]
pub struct Figures {
    bytes: u64,
    elapsed: Duration,
    cpu: Duration,
    written: u64,
    latencies: Vec<Duration>,
    /// MB/s of each turn.
    rates: Vec<f64>,
}

impl Figures {
    fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64()
    }

    pub fn print(&mut self, name: &str) {
        self.latencies.sort();
        let p99 = self
            .latencies
            .get(self.latencies.len() * 99 / 100)
            .copied()
            .unwrap_or_default();
        println!(
            "  {name:28} {:8.0} MB/s   written x{:5.2}   {:6.2} us CPU/KiB   p99 {:8.2} ms",
            self.megabytes_per_second(),
            self.written as f64 / self.bytes as f64,
            self.cpu.as_secs_f64() * 1e6 / (self.bytes as f64 / 1024.0),
            p99.as_secs_f64() * 1e3,
        );
    }
}

/// Processor time of the whole process.
fn cpu_time() -> Duration {
    // SAFETY: an all-zero rusage is a valid value of that plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` lives across the call.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Bytes the process has sent towards the disk.
fn written_bytes() -> u64 {
    fs::read_to_string("/proc/self/io")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("write_bytes"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .unwrap_or(0)
}

pub fn turn(
    layout: &mut dyn Layout,
    batch: &[Bytes],
    figures: &mut Figures,
) -> Result<(), AnyError> {
    let (started, cpu, written) = (Instant::now(), cpu_time(), written_bytes());
    let bytes: usize = batch.iter().map(Bytes::len).sum();
    let mut turn_bytes = 0;
    while started.elapsed() < TURN {
        let before = Instant::now();
        layout.write(batch)?;
        figures.latencies.push(before.elapsed());
        turn_bytes += bytes as u64;
    }
    let elapsed = started.elapsed();
    figures
        .rates
        .push(turn_bytes as f64 / 1e6 / elapsed.as_secs_f64());
    figures.bytes += turn_bytes;
    figures.elapsed += elapsed;
    figures.cpu += cpu_time() - cpu;
    figures.written += written_bytes() - written;
    Ok(())
}

pub fn print_ratio(node: &Figures, plain: &Figures, what: &str) {
    let mut ratios: Vec<f64> = node
        .rates
        .iter()
        .zip(&plain.rates)
        .map(|(node, plain)| node / plain)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let at = |quarter: usize| ratios[(ratios.len() - 1) * quarter / 4];
    println!(
        "  node log / plain file, {what}: {:.2} (turn by turn: median {:.2}, quartiles {:.2} and {:.2})",
        node.megabytes_per_second() / plain.megabytes_per_second(),
        at(2),
        at(1),
        at(3),
    );
}
