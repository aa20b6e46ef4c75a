//! How long messages take from the moment when they were due to be sent to their receiver, at a fixed
//! rate.
//!
//! The rate does not depend on the system under test (an open loop): messages are due at fixed moments,
//! one bunch each millisecond, and carry the moment at which they were due. A system that stops for 100 ms
//! therefore shows 100 ms in the messages that were due meanwhile, and not in a single one. Those that never
//! come are among the late ones too.

use super::body::Stamps;
use super::names;
use crate::BenchError;
use crate::measure::{Sample, Tally, Timing, Window, measured};
use crate::target::{Consumer, Family, Outgoing, Producer, Running, Source};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// How far apart the moments are at which messages are due.
const TICK: Duration = Duration::from_millis(1);
/// How many messages may be sent and not acknowledged, before the system is said not to keep up.
const UNDER_WAY_MAX: usize = 16_000;
/// How long after its end messages of the window are waited for.
const LATE_LIMIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Topics, or signals.
    pub family: Family,
    pub message_bytes: usize,
    /// A multiple of 1,000.
    pub per_second: usize,
}

impl Pace {
    pub async fn run(self, running: &dyn Running, timing: Timing) -> Result<Sample, BenchError> {
        let names = names("pace", 1);
        running.prepare(self.family, &names).await?;
        let source = match self.family {
            Family::Signals => Source::Signals { name: &names[0] },
            _ => Source::Live { topic: &names[0] },
        };
        let consumer = running.consumer(source).await?;
        let producer = running.producer(self.family, names.clone()).await?;
        let stamps = Stamps::new(self.message_bytes);
        let bunch = (self.per_second as f64 * TICK.as_secs_f64())
            .round()
            .max(1.0) as usize;
        let window = Window::after(timing);
        let due = due_moments(window, timing);
        let expected = (timing.run.as_micros() / TICK.as_micros()) as u64 * bunch as u64;
        let (received, all_received) = oneshot::channel();
        let mut drivers = JoinSet::new();
        drivers.spawn(self.send(producer, stamps.clone(), bunch, due, all_received));
        drivers.spawn(async move {
            let tally = receive(consumer, stamps, expected, window).await;
            // The sender may have ended with an error, which counts then.
            let _ = received.send(());
            tally
        });
        let (tally, cost) = measured(running, window, drivers).await?;
        Ok(Sample {
            messages: tally.messages,
            seconds: window.seconds(),
            latency: tally.latency(),
            lost: expected.saturating_sub(tally.messages),
            cost,
        })
    }

    /// Sends what is due, whatever became of what was sent before. It keeps its connection until all is
    /// received: what is on its way may be lost with it.
    async fn send(
        self,
        mut producer: Box<dyn Producer>,
        stamps: Stamps,
        bunch: usize,
        mut due: mpsc::Receiver<Instant>,
        all_received: oneshot::Receiver<()>,
    ) -> Result<Tally, BenchError> {
        let mut under_way = 0;
        let mut outgoing = Vec::with_capacity(bunch);
        let answered = self.family != Family::Signals;
        loop {
            tokio::select! {
                biased;
                moment = due.recv() => {
                    let Some(moment) = moment else {
                        // An error is the receiver's, and told by it.
                        let _ = all_received.await;
                        return Ok(Tally::new());
                    };
                    let bodies = stamps.bodies(moment, bunch);
                    outgoing.extend(bodies.map(|body| Outgoing { name: 0, body }));
                    producer.send(&outgoing).await?;
                    outgoing.clear();
                    under_way += if answered { bunch } else { 0 };
                }
                acked = producer.acked(), if under_way > 0 => {
                    under_way -= acked?.min(under_way);
                }
            }
            if under_way > UNDER_WAY_MAX {
                return Err(BenchError::Behind {
                    per_second: self.per_second,
                    under_way,
                });
            }
        }
    }
}

/// Tells the moments of the warm-up and the window, each when it has come.
fn due_moments(window: Window, timing: Timing) -> mpsc::Receiver<Instant> {
    let all = (timing.warm_up + timing.run).as_micros() / TICK.as_micros();
    // It has room for all, so that a sender that is held up makes nobody late.
    let (sender, receiver) = mpsc::channel(all.max(1) as usize);
    std::thread::spawn(move || {
        wake_punctually();
        // Counted back from the end, so that the window holds whole moments.
        let mut moment =
            window.start - TICK * (timing.warm_up.as_micros() / TICK.as_micros()) as u32;
        while moment < window.end {
            std::thread::sleep(moment.saturating_duration_since(Instant::now()));
            if sender.try_send(moment).is_err() {
                // The run has ended.
                return;
            }
            moment += TICK;
        }
    });
    receiver
}

/// Asks the kernel not to gather this thread's timers with others' for up to 50 µs.
fn wake_punctually() {
    // SAFETY: prctl with these arguments touches no memory. If it fails, wake-ups are a little later, for
    // all systems alike.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
    }
}

/// Counts the messages that were due in the window, with how late they are.
async fn receive(
    mut consumer: Box<dyn Consumer>,
    stamps: Stamps,
    expected: u64,
    window: Window,
) -> Result<Tally, BenchError> {
    let deadline = window.end + LATE_LIMIT;
    let mut tally = Tally::new();
    let mut bodies = Vec::new();
    while tally.messages < expected {
        let next = consumer.next(&mut bodies);
        match tokio::time::timeout_at(deadline.into(), next).await {
            Ok(received) => received?,
            Err(_) => break,
        }
        let now = Instant::now();
        for body in bodies.drain(..) {
            if let Some(sent) = stamps.sent(&body)
                && window.contains(sent)
            {
                tally.count_latency(now.saturating_duration_since(sent), 1);
            }
        }
        consumer.ack().await?;
    }
    // Each is at least as late as the last one that was due: later than any figure that it could hide in.
    tally.note_latency(LATE_LIMIT, expected.saturating_sub(tally.messages));
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use bytes::Bytes;

    /// Gives out what it holds, and then nothing any more.
    struct Last(Vec<Bytes>);

    #[async_trait]
    impl Consumer for Last {
        async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
            if self.0.is_empty() {
                std::future::pending::<()>().await;
            }
            bodies.append(&mut self.0);
            Ok(())
        }

        async fn ack(&mut self) -> Result<(), BenchError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn messages_that_never_come_are_late_ones() {
        let stamps = Stamps::new(64);
        let start = Instant::now();
        let window = Window {
            start,
            end: start + Duration::from_millis(1),
        };
        let came = Last(stamps.bodies(start, 98).collect());
        let tally = receive(Box::new(came), stamps, 100, window).await;
        let tally = tally.expect("nothing is wrong with the consumer");
        assert_eq!(tally.messages, 98);
        let latency = tally.latency().expect("it was measured");
        assert!(latency.p50_us < 0.9e6, "{latency:?}");
        assert!(latency.p99_us > 0.9e6, "{latency:?}");
    }
}
