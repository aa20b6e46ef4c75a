//! Durable messages, with a fixed number under way: each acknowledgement makes room for another message.

use super::flight::Flight;
use super::{body, names};
use crate::BenchError;
use crate::measure::{Sample, Tally, Timing, Window, measured};
use crate::target::{Family, Running};
use std::time::Instant;
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    pub message_bytes: usize,
    /// Of all producers together.
    pub in_flight: usize,
    /// Messages go to them in turn.
    pub topics: usize,
    /// Each with a connection of its own.
    pub producers: usize,
}

impl Publish {
    pub async fn run(self, running: &dyn Running, timing: Timing) -> Result<Sample, BenchError> {
        let names = names("topic", self.topics);
        running.prepare(Family::Topics, &names).await?;
        let body = body::filler(self.message_bytes);
        let mut flights = Vec::new();
        for _ in 0..self.producers {
            let producer = running.producer(Family::Topics, names.clone()).await?;
            let in_flight = (self.in_flight / self.producers).max(1);
            flights.push(Flight::new(producer, in_flight, names.len(), body.clone()));
        }
        let window = Window::after(timing);
        let mut drivers = JoinSet::new();
        for flight in flights {
            drivers.spawn(keep_full(flight, window));
        }
        let (tally, cost) = measured(running, window, drivers).await?;
        Ok(Sample {
            messages: tally.messages,
            seconds: window.seconds(),
            latency: tally.latency(),
            lost: 0,
            cost,
        })
    }
}

/// Sends as much as may be under way until the window ends, and counts what is acknowledged within it.
pub async fn keep_full(mut flight: Flight, window: Window) -> Result<Tally, BenchError> {
    let mut tally = Tally::new();
    while Instant::now() < window.end {
        flight.fill(usize::MAX).await?;
        let counted = flight.acked(|latency, messages| {
            if window.contains(Instant::now()) {
                tally.count_latency(latency, messages);
            }
        });
        match tokio::time::timeout_at(window.end.into(), counted).await {
            Ok(acked) => acked?,
            Err(_) => break,
        }
    }
    Ok(tally)
}
