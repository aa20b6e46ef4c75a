//! What is asked of the systems under test: one module for each kind of workload.
//!
//! ```text
//!   catalogue   which workloads a bench has
//!   publish     durable messages, as many under way as allowed           \
//!   queue       sent, leased and acknowledged at the same time            |  over
//!   requests    asked and answered                                       /   flight
//!   signals     to one, ten, a hundred listeners at once
//!   backlog     what is stored is read from its start
//!   pace        how late messages come at a fixed rate, whatever the system does
//!   recovery    how soon it serves again after a kill
//!   idle        what it costs to do nothing
//! ```

mod backlog;
mod body;
pub mod catalogue;
mod flight;
mod flow;
mod idle;
mod pace;
mod publish;
mod queue;
mod recovery;
mod requests;
mod signals;

use crate::BenchError;
use crate::measure::{Sample, Timing};
use crate::target::{Family, Nodes, Running};
use std::sync::Arc;

pub use backlog::Backlog;
pub use pace::Pace;
pub use publish::Publish;
pub use queue::QueueCycle;
pub use recovery::Recovery;
pub use requests::Requests;
pub use signals::Signals;

/// One workload with its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its name on the command line and in reports: `publish-1k-1024`.
    pub id: String,
    pub title: String,
    pub nodes: Nodes,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Publish(Publish),
    Backlog(Backlog),
    QueueCycle(QueueCycle),
    Pace(Pace),
    Signals(Signals),
    Requests(Requests),
    Recovery(Recovery),
    Idle,
}

/// Which figure of a run is the one that competitors are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Messages in a second.
    PerSecond,
    /// The median latency.
    LatencyMicroseconds,
    Seconds,
    /// Of one processor core.
    CorePercent,
}

impl Measure {
    pub fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::PerSecond => sample.per_second(),
            Self::LatencyMicroseconds => sample.latency.map_or(f64::NAN, |latency| latency.p50_us),
            Self::Seconds => sample.seconds,
            Self::CorePercent => 100.0 * sample.cost.server_cpu_seconds / sample.seconds,
        }
    }

    pub fn less_is_better(self) -> bool {
        match self {
            Self::PerSecond => false,
            Self::LatencyMicroseconds | Self::Seconds | Self::CorePercent => true,
        }
    }

    /// How many times as good the first value is as the second one.
    pub fn advantage(self, first: f64, second: f64) -> f64 {
        if self.less_is_better() {
            second / first
        } else {
            first / second
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::PerSecond => "messages/s",
            Self::LatencyMicroseconds => "µs, median",
            Self::Seconds => "s",
            Self::CorePercent => "% of a core",
        }
    }
}

impl Workload {
    pub fn family(&self) -> Family {
        match self.kind {
            Kind::Publish(_) | Kind::Backlog(_) | Kind::Recovery(_) | Kind::Idle => Family::Topics,
            Kind::QueueCycle(_) => Family::Queues,
            Kind::Pace(pace) => pace.family,
            Kind::Signals(_) => Family::Signals,
            Kind::Requests(_) => Family::Requests,
        }
    }

    pub fn measure(&self) -> Measure {
        match self.kind {
            Kind::Publish(_)
            | Kind::Backlog(_)
            | Kind::QueueCycle(_)
            | Kind::Signals(_)
            | Kind::Requests(_) => Measure::PerSecond,
            Kind::Pace(_) => Measure::LatencyMicroseconds,
            Kind::Recovery(_) => Measure::Seconds,
            Kind::Idle => Measure::CorePercent,
        }
    }

    /// Bytes of a message's body, where a workload has messages.
    pub fn message_bytes(&self) -> Option<usize> {
        match self.kind {
            Kind::Publish(publish) => Some(publish.message_bytes),
            Kind::Backlog(backlog) => Some(backlog.message_bytes),
            Kind::QueueCycle(cycle) => Some(cycle.message_bytes),
            Kind::Pace(pace) => Some(pace.message_bytes),
            Kind::Signals(signals) => Some(signals.message_bytes),
            Kind::Requests(requests) => Some(requests.message_bytes),
            Kind::Recovery(_) | Kind::Idle => None,
        }
    }

    /// Runs it once against a system that was just started.
    pub async fn run(
        &self,
        running: &mut dyn Running,
        timing: Timing,
    ) -> Result<Sample, BenchError> {
        match self.kind {
            Kind::Publish(publish) => publish.run(running, timing).await,
            Kind::Backlog(backlog) => backlog.run(running, timing).await,
            Kind::QueueCycle(cycle) => cycle.run(running, timing).await,
            Kind::Pace(pace) => pace.run(running, timing).await,
            Kind::Signals(signals) => signals.run(running, timing).await,
            Kind::Requests(requests) => requests.run(running, timing).await,
            Kind::Recovery(recovery) => recovery.run(running).await,
            Kind::Idle => idle::run(running, timing).await,
        }
    }
}

/// Names of one workload: `topic-0`, `topic-1`.
fn names(what: &str, count: usize) -> Arc<[String]> {
    (0..count)
        .map(|number| format!("{what}-{number}"))
        .collect()
}
