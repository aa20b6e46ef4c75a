//! What a system costs while nobody asks anything of it.

use crate::BenchError;
use crate::measure::{CostMeter, Sample, Timing};
use crate::target::Running;
use std::time::{Duration, Instant};

/// Processor time is told in hundredths of a second: a shorter run says nothing.
const RUN_MIN: Duration = Duration::from_secs(10);
/// What a system does just after its start does not count.
const SETTLE_MIN: Duration = Duration::from_secs(3);

pub async fn run(running: &dyn Running, timing: Timing) -> Result<Sample, BenchError> {
    tokio::time::sleep(timing.warm_up.max(SETTLE_MIN)).await;
    let begun = Instant::now();
    let meter = CostMeter::begin(running)?;
    tokio::time::sleep(timing.run.max(RUN_MIN)).await;
    let cost = meter.end(running)?;
    Ok(Sample {
        messages: 0,
        seconds: begun.elapsed().as_secs_f64(),
        latency: None,
        lost: 0,
        cost,
    })
}
