//! Who was not let in, and which rules that follows.

use prometheus::{IntCounterVec, Opts, Registry};

use crate::metrics::{Metrics, register};

/// Why a client's call was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessRefusal {
    /// It did not show who it is.
    Unauthenticated,
    /// It may not do this.
    Denied,
}

/// Counters of a gateway's access control.
pub(super) struct AccessCounters {
    refused: IntCounterVec,
    rules_read: IntCounterVec,
}

impl AccessCounters {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let refused = IntCounterVec::new(
            Opts::new(
                "flotilla_access_refused_total",
                "Calls, and requests within them, that were not allowed, by reason.",
            ),
            &["reason"],
        )?;
        let rules_read = IntCounterVec::new(
            Opts::new(
                "flotilla_access_rules_read_total",
                "Times that changed access rules were read, by what came of it.",
            ),
            &["outcome"],
        )?;
        register(registry, &refused)?;
        register(registry, &rules_read)?;
        Ok(Self {
            refused,
            rules_read,
        })
    }
}

impl Metrics {
    pub fn access_refused(&self, refusal: AccessRefusal) {
        let reason = match refusal {
            AccessRefusal::Unauthenticated => "unauthenticated",
            AccessRefusal::Denied => "denied",
        };
        self.0.access.refused.with_label_values(&[reason]).inc();
    }

    pub fn access_rules_read(&self, is_applied: bool) {
        let outcome = if is_applied { "applied" } else { "refused" };
        self.0.access.rules_read.with_label_values(&[outcome]).inc();
    }
}
