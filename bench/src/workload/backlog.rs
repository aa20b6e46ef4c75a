//! What a topic holds, read from its first message with acknowledgements, again and again by new readers
//! until the time is over. Where reading takes away what there was, the run ends when all is read, and what
//! counts is the time that this took.

use super::{flight, names};
use crate::BenchError;
use crate::measure::{CostMeter, Sample, Timing};
use crate::target::{Family, Running, Source};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    pub message_bytes: usize,
    /// How many the topic holds.
    pub messages: usize,
}

impl Backlog {
    pub async fn run(self, running: &dyn Running, timing: Timing) -> Result<Sample, BenchError> {
        let names = names("topic", 1);
        running.prepare(Family::Topics, &names).await?;
        flight::store(running, &names, self.message_bytes, self.messages).await?;
        let meter = CostMeter::begin(running)?;
        let mut read = Read::default();
        for pass in 0.. {
            if read.reading >= timing.run {
                break;
            }
            match self
                .pass(running, &names[0], pass, timing.run, &mut read)
                .await
            {
                // Reading took away what there was.
                Err(BenchError::NotSupported(_)) if pass > 0 => break,
                passed => passed?,
            }
        }
        Ok(Sample {
            messages: read.messages,
            seconds: read.reading.as_secs_f64(),
            latency: None,
            lost: 0,
            cost: meter.end(running)?,
        })
    }

    /// Reads the topic once, or until the time is over.
    async fn pass(
        self,
        running: &dyn Running,
        topic: &str,
        pass: usize,
        limit: Duration,
        read: &mut Read,
    ) -> Result<(), BenchError> {
        let reader = format!("reader-{pass}");
        let backlog = Source::Backlog {
            topic,
            reader: &reader,
        };
        let begun = Instant::now();
        let mut consumer = running.consumer(backlog).await?;
        let mut bodies = Vec::new();
        let mut received = 0;
        let end = begun + limit.saturating_sub(read.reading);
        while received < self.messages && Instant::now() < end {
            match tokio::time::timeout_at(end.into(), consumer.next(&mut bodies)).await {
                Ok(came) => came?,
                // Nothing came any more.
                Err(_) => break,
            }
            consumer.ack().await?;
            received += bodies.len();
            bodies.clear();
        }
        read.reading += begun.elapsed();
        read.messages += received as u64;
        Ok(())
    }
}

/// What was read so far, in all passes.
#[derive(Default)]
struct Read {
    messages: u64,
    reading: Duration,
}
