//! How soon a system with much stored takes a message again after all its processes were killed.

use super::flight::{self, Flight};
use super::{body, names};
use crate::BenchError;
use crate::measure::{CostMeter, Sample};
use crate::target::{Family, Running};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Long messages, so that storing takes less of the bench's time than it has to.
const MESSAGE_BYTES: usize = 4 * 1024;
/// A system may let clients in before it can store what they send.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    pub stored_bytes: u64,
}

impl Recovery {
    pub async fn run(self, running: &mut dyn Running) -> Result<Sample, BenchError> {
        let names = names("topic", 1);
        running.prepare(Family::Topics, &names).await?;
        let messages = (self.stored_bytes / MESSAGE_BYTES as u64) as usize;
        flight::store(running, &names, MESSAGE_BYTES, messages).await?;
        let meter = CostMeter::of_new_processes();
        let begun = Instant::now();
        running.kill_and_restart().await?;
        while let Err(refused) = store_one(running, &names).await {
            if begun.elapsed() > PATIENCE {
                return Err(refused);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Sample {
            messages: 1,
            seconds: begun.elapsed().as_secs_f64(),
            latency: None,
            lost: 0,
            cost: meter.end(running)?,
        })
    }
}

async fn store_one(running: &dyn Running, names: &Arc<[String]>) -> Result<(), BenchError> {
    let producer = running.producer(Family::Topics, names.clone()).await?;
    let mut flight = Flight::new(producer, 1, names.len(), body::filler(MESSAGE_BYTES));
    flight.fill(1).await?;
    flight.acked(|_, _| {}).await?;
    Ok(())
}
