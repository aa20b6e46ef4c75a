//! Signals to one or many listeners, each of which gets all of them. What counts is what was received,
//! by all listeners together.
//!
//! Signals may be lost where a listener falls behind, so the sender holds back while too many are not yet
//! received by the slowest one. What is missing all the same is given up after a moment, and told.

use super::flow::Flow;
use super::{body, names};
use crate::BenchError;
use crate::measure::{Sample, Tally, Timing, Window, measured};
use crate::target::{Consumer, Family, Outgoing, Producer, Running, Source};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many signals may be sent and not yet received by the slowest listener.
const OUTSTANDING_MAX: u64 = 4_096;
/// How many the sender is told that it may have under way: what it gathers in one batch depends on it.
const IN_FLIGHT: usize = 1_024;
/// Signals that nobody received for so long are lost.
const LOST_AFTER: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    pub message_bytes: usize,
    /// Each with a connection of its own.
    pub listeners: usize,
}

impl Signals {
    pub async fn run(self, running: &dyn Running, timing: Timing) -> Result<Sample, BenchError> {
        let names = names("signal", 1);
        running.prepare(Family::Signals, &names).await?;
        let mut listeners = Vec::new();
        for _ in 0..self.listeners {
            let signals = Source::Signals { name: &names[0] };
            listeners.push(running.consumer(signals).await?);
        }
        let producer = running.producer(Family::Signals, names.clone()).await?;
        let body = body::filler(self.message_bytes);
        let window = Window::after(timing);
        let flow = Arc::new(Flow::new(self.listeners));
        let lost = Arc::new(AtomicU64::new(0));
        let mut drivers = JoinSet::new();
        drivers.spawn(send(producer, body, flow.clone(), lost.clone(), window));
        for (number, listener) in listeners.into_iter().enumerate() {
            drivers.spawn(listen(listener, number, flow.clone(), window));
        }
        let (tally, cost) = measured(running, window, drivers).await?;
        Ok(Sample {
            messages: tally.messages,
            seconds: window.seconds(),
            latency: None,
            lost: lost.load(Ordering::Relaxed),
            cost,
        })
    }
}

/// Sends, and counts nothing but what the slowest listener has lost.
async fn send(
    mut producer: Box<dyn Producer>,
    body: Bytes,
    flow: Arc<Flow>,
    lost: Arc<AtomicU64>,
    window: Window,
) -> Result<Tally, BenchError> {
    let batch = producer.batch(IN_FLIGHT).clamp(1, IN_FLIGHT);
    let outgoing = vec![Outgoing { name: 0, body }; batch];
    let mut sent = 0;
    while Instant::now() < window.end {
        let outstanding = sent - (flow.slowest() + lost.load(Ordering::Relaxed)).min(sent);
        if outstanding + batch as u64 <= OUTSTANDING_MAX {
            producer.send(&outgoing).await?;
            sent += batch as u64;
            continue;
        }
        let deadline = Instant::now() + LOST_AFTER;
        if !flow.changed(deadline.min(window.end)).await && Instant::now() >= deadline {
            lost.fetch_add(outstanding, Ordering::Relaxed);
        }
    }
    Ok(Tally::new())
}

async fn listen(
    mut listener: Box<dyn Consumer>,
    number: usize,
    flow: Arc<Flow>,
    window: Window,
) -> Result<Tally, BenchError> {
    let mut tally = Tally::new();
    let mut bodies = Vec::new();
    while Instant::now() < window.end {
        let next = listener.next(&mut bodies);
        match tokio::time::timeout_at(window.end.into(), next).await {
            Ok(received) => received?,
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
