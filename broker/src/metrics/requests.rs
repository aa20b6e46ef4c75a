//! What becomes of requests.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::api::request::{Answer, RequestDelivery};
use crate::metrics::{Metrics, reason_label, register};

/// Counters of requests and commands together.
pub(super) struct RequestCounters {
    answered: IntCounterVec,
    replied: IntCounter,
    replies_dropped: IntCounter,
    responders: IntGauge,
    under_way: IntGauge,
}

impl RequestCounters {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let answered = IntCounterVec::new(
            Opts::new(
                "flotilla_requests_answered_total",
                "Answers to requesters of this node, by what came of the request.",
            ),
            &["outcome"],
        )?;
        let replies_dropped = IntCounter::new(
            "flotilla_replies_dropped_total",
            "Replies that came too late, from somebody who was not asked, or too fast for the way to another node.",
        )?;
        let responders = IntGauge::new("flotilla_responders", "Live responders to requests.")?;
        let under_way = IntGauge::new(
            "flotilla_requests_under_way",
            "Requests asked or served on this node that are not over.",
        )?;
        register(registry, &answered)?;
        register(registry, &replies_dropped)?;
        register(registry, &responders)?;
        register(registry, &under_way)?;
        Ok(Self {
            replied: answered.get_metric_with_label_values(&["replied"])?,
            answered,
            replies_dropped,
            responders,
            under_way,
        })
    }
}

impl Metrics {
    pub fn requests_answered<'a>(&self, answers: impl Iterator<Item = &'a Answer>) {
        let counters = &self.0.requests;
        let mut replied = 0;
        for answer in answers {
            match &answer.outcome {
                Ok(reply) if reply.executed => replied += 1,
                Ok(_) => counters.answered.with_label_values(&["refused"]).inc(),
                Err(error) => {
                    let outcome = [reason_label(error)];
                    counters.answered.with_label_values(&outcome).inc();
                }
            }
        }
        counters.replied.inc_by(replied);
    }

    pub fn requests_delivered(&self, deliveries: &[RequestDelivery]) {
        let same_name =
            |a: &RequestDelivery, b: &RequestDelivery| a.name.as_ref() == b.name.as_ref();
        for run in deliveries.chunk_by(same_name) {
            let name = &run[0].name;
            let bytes = run.iter().map(|one| one.message.body.len() as u64).sum();
            self.delivered(name.kind(), name, run.len() as u64, bytes);
        }
    }

    /// Replies that came to those who asked.
    pub fn replies(&self) -> u64 {
        let counters = &self.0.requests;
        counters.replied.get() + counters.answered.with_label_values(&["refused"]).get()
    }

    pub fn reply_dropped(&self) {
        self.0.requests.replies_dropped.inc();
    }

    pub fn set_responders(&self, count: usize) {
        self.0.requests.responders.set(count as i64);
    }

    pub fn set_requests_under_way(&self, count: usize) {
        self.0.requests.under_way.set(count as i64);
    }
}
