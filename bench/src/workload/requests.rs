//! Requests that one responder answers with what came in them.

use super::flight::Flight;
use super::publish::keep_full;
use super::{body, names};
use crate::BenchError;
use crate::measure::{Sample, Timing, Window, measured};
use crate::target::{Family, Running};
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests {
    pub message_bytes: usize,
    pub in_flight: usize,
}

impl Requests {
    pub async fn run(self, running: &dyn Running, timing: Timing) -> Result<Sample, BenchError> {
        let names = names("service", 1);
        running.prepare(Family::Requests, &names).await?;
        let mut responder = running.responder(&names[0]).await?;
        let requester = running.producer(Family::Requests, names.clone()).await?;
        let body = body::filler(self.message_bytes);
        let flight = Flight::new(requester, self.in_flight, names.len(), body);
        let window = Window::after(timing);
        let mut drivers = JoinSet::new();
        drivers.spawn(keep_full(flight, window));
        let mut answering = JoinSet::new();
        answering.spawn(async move { responder.serve().await });
        let (tally, cost) = tokio::select! {
            measured = measured(running, window, drivers) => measured?,
            // It answers until it is dropped, unless it fails.
            Some(Ok(ended)) = answering.join_next() => {
                ended?;
                return Err(BenchError::Refused {
                    doing: "to answer requests".to_owned(),
                    text: "the responder has ended".to_owned(),
                });
            }
        };
        Ok(Sample {
            messages: tally.messages,
            seconds: window.seconds(),
            latency: tally.latency(),
            lost: 0,
            cost,
        })
    }
}
