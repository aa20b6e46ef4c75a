//! The life of queue messages: sent, leased by one of several workers, acknowledged, all at once. What
//! counts is the acknowledgement.

use super::flight::Flight;
use super::flow::Flow;
use super::{body, names};
use crate::BenchError;
use crate::measure::{Sample, Tally, Timing, Window, measured};
use crate::target::{Consumer, Family, Running, Source};
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// How many messages may have been sent and not yet acknowledged by a worker.
const OUTSTANDING_MAX: usize = 8_192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueCycle {
    pub message_bytes: usize,
    /// Of the one producer.
    pub in_flight: usize,
    /// Each with a connection of its own.
    pub workers: usize,
}

impl QueueCycle {
    pub async fn run(self, running: &dyn Running, timing: Timing) -> Result<Sample, BenchError> {
        let names = names("queue", 1);
        running.prepare(Family::Queues, &names).await?;
        let mut workers = Vec::new();
        for _ in 0..self.workers {
            let queue = Source::Queue { queue: &names[0] };
            workers.push(running.consumer(queue).await?);
        }
        let producer = running.producer(Family::Queues, names.clone()).await?;
        let body = body::filler(self.message_bytes);
        let flight = Flight::new(producer, self.in_flight, names.len(), body);
        let window = Window::after(timing);
        let flow = Arc::new(Flow::new(self.workers));
        let mut drivers = JoinSet::new();
        drivers.spawn(produce(flight, flow.clone(), window));
        for (number, worker) in workers.into_iter().enumerate() {
            drivers.spawn(work(worker, number, flow.clone(), window));
        }
        let (tally, cost) = measured(running, window, drivers).await?;
        Ok(Sample {
            messages: tally.messages,
            seconds: window.seconds(),
            latency: None,
            lost: 0,
            cost,
        })
    }
}

/// Keeps the queue supplied, and counts nothing.
async fn produce(mut flight: Flight, flow: Arc<Flow>, window: Window) -> Result<Tally, BenchError> {
    let mut sent = 0;
    while Instant::now() < window.end {
        let room = (OUTSTANDING_MAX as u64).saturating_sub(sent - flow.total().min(sent)) as usize;
        let whole_batches = room / flight.batch() * flight.batch();
        sent += flight.fill(whole_batches).await? as u64;
        if flight.under_way() == 0 {
            flow.changed(window.end).await;
            continue;
        }
        let acked = flight.acked(|_, _| {});
        match tokio::time::timeout_at(window.end.into(), acked).await {
            Ok(acked) => acked?,
            Err(_) => break,
        }
    }
    Ok(Tally::new())
}

async fn work(
    mut worker: Box<dyn Consumer>,
    number: usize,
    flow: Arc<Flow>,
    window: Window,
) -> Result<Tally, BenchError> {
    let mut tally = Tally::new();
    let mut bodies = Vec::new();
    while Instant::now() < window.end {
        let cycle = async {
            worker.next(&mut bodies).await?;
            worker.ack().await
        };
        match tokio::time::timeout_at(window.end.into(), cycle).await {
            Ok(done) => done?,
            Err(_) => break,
        }
        let messages = bodies.len() as u64;
        bodies.clear();
        if window.contains(Instant::now()) {
            tally.count(messages);
        }
        flow.received(number, messages);
    }
    Ok(tally)
}
