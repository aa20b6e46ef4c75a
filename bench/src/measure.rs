//! What counts in a run, and what it cost.

use crate::target::Running;
use crate::{BenchError, supervise};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Latencies are kept up to this; a longer one counts as this long.
const LATENCY_NANOSECONDS_MAX: u64 = 60_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    pub warm_up: Duration,
    pub run: Duration,
}

/// The part of a run that counts: from its start to before its end.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub start: Instant,
    pub end: Instant,
}

impl Window {
    /// Begins after the warm-up, from now.
    pub fn after(timing: Timing) -> Self {
        let start = Instant::now() + timing.warm_up;
        Self {
            start,
            end: start + timing.run,
        }
    }

    pub fn contains(&self, instant: Instant) -> bool {
        self.start <= instant && instant < self.end
    }

    pub fn seconds(&self) -> f64 {
        (self.end - self.start).as_secs_f64()
    }
}

/// What one driver has counted.
#[derive(Clone, Debug)]
pub struct Tally {
    pub messages: u64,
    latencies: Histogram<u64>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            messages: 0,
            latencies: Histogram::new_with_bounds(1, LATENCY_NANOSECONDS_MAX, SIGNIFICANT_DIGITS)
                .expect("the bounds and digits are in the range that the library allows"),
        }
    }

    /// Counts messages whose latency nobody measures.
    pub fn count(&mut self, messages: u64) {
        self.messages += messages;
    }

    /// Counts messages that took this long each.
    pub fn count_latency(&mut self, latency: Duration, messages: u64) {
        self.messages += messages;
        self.note_latency(latency, messages);
    }

    /// Adds messages to the latencies only: those that did not come, and are at least as late.
    pub fn note_latency(&mut self, latency: Duration, messages: u64) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies
            .saturating_record_n(nanoseconds.max(1), messages);
    }

    pub fn merge(&mut self, other: &Self) {
        self.messages += other.messages;
        self.latencies
            .add(&other.latencies)
            .expect("all tallies have the same bounds");
    }

    /// None if no latency was measured.
    pub fn latency(&self) -> Option<Latency> {
        let microseconds = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        (!self.latencies.is_empty()).then(|| Latency {
            p50_us: microseconds(0.5),
            p99_us: microseconds(0.99),
            p999_us: microseconds(0.999),
            max_us: self.latencies.max() as f64 / 1e3,
        })
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

/// How long messages took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// What the counted part of a run cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Processor time of the server's processes.
    pub server_cpu_seconds: f64,
    /// Processor time of this process, which holds the clients.
    pub client_cpu_seconds: f64,
    /// Resident memory of the server's processes at the end.
    pub resident_bytes: u64,
}

/// What was used when the counted part began.
pub struct CostMeter {
    server_cpu_seconds: f64,
    client_cpu_seconds: f64,
}

impl CostMeter {
    pub fn begin(running: &dyn Running) -> Result<Self, BenchError> {
        Ok(Self {
            server_cpu_seconds: supervise::cpu_seconds(&running.processes())?,
            client_cpu_seconds: supervise::own_cpu_seconds(),
        })
    }

    /// For processes that will be started only now.
    pub fn of_new_processes() -> Self {
        Self {
            server_cpu_seconds: 0.0,
            client_cpu_seconds: supervise::own_cpu_seconds(),
        }
    }

    pub fn end(self, running: &dyn Running) -> Result<Cost, BenchError> {
        let processes = running.processes();
        let client_cpu_seconds = supervise::own_cpu_seconds() - self.client_cpu_seconds;
        let server_cpu_seconds = supervise::cpu_seconds(&processes)? - self.server_cpu_seconds;
        Ok(Cost {
            server_cpu_seconds,
            client_cpu_seconds,
            // Last, since to find it out takes the time of all.
            resident_bytes: supervise::resident_bytes(&processes)?,
        })
    }
}

/// Runs drivers to their end, and measures what the window cost. The first error ends all.
pub async fn measured(
    running: &dyn Running,
    window: Window,
    drivers: JoinSet<Result<Tally, BenchError>>,
) -> Result<(Tally, Cost), BenchError> {
    let cost = async {
        tokio::time::sleep_until(window.start.into()).await;
        let meter = CostMeter::begin(running)?;
        tokio::time::sleep_until(window.end.into()).await;
        meter.end(running)
    };
    tokio::try_join!(sum(drivers), cost)
}

async fn sum(mut drivers: JoinSet<Result<Tally, BenchError>>) -> Result<Tally, BenchError> {
    let mut all = Tally::new();
    while let Some(tally) = drivers.join_next().await {
        // A driver that panicked is a bug of the bench; none is cancelled before this returns.
        let tally = tally.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        all.merge(&tally?);
    }
    Ok(all)
}

/// What one run gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    pub messages: u64,
    pub seconds: f64,
    pub latency: Option<Latency>,
    /// Sent and never received.
    pub lost: u64,
    pub cost: Cost,
}

impl Sample {
    pub fn per_second(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// Processor seconds of the server for a million messages.
    pub fn server_cpu_per_million(&self) -> f64 {
        per_million(self.cost.server_cpu_seconds, self.messages)
    }

    pub fn client_cpu_per_million(&self) -> f64 {
        per_million(self.cost.client_cpu_seconds, self.messages)
    }
}

fn per_million(seconds: f64, messages: u64) -> f64 {
    seconds * 1e6 / messages as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_tallies_have_the_latencies_of_both() {
        let mut fast = Tally::new();
        fast.count_latency(Duration::from_micros(100), 99);
        let mut slow = Tally::new();
        slow.count_latency(Duration::from_millis(50), 1);
        fast.merge(&slow);
        let latency = fast.latency().expect("100 were measured");
        assert_eq!(fast.messages, 100);
        assert!((99.0..101.0).contains(&latency.p50_us), "{latency:?}");
        assert!(
            (49_900.0..50_100.0).contains(&latency.max_us),
            "{latency:?}"
        );
    }

    #[test]
    fn counted_messages_without_latency_have_none() {
        let mut tally = Tally::new();
        tally.count(7);
        assert_eq!((tally.messages, tally.latency()), (7, None));
    }

    #[test]
    fn a_latency_beyond_the_scale_counts_as_the_longest() {
        let mut tally = Tally::new();
        tally.count_latency(Duration::from_secs(1_000), 1);
        let latency = tally.latency().expect("one was measured");
        assert!(latency.max_us > 59e6, "{latency:?}");
    }
}
