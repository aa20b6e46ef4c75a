//! Clients: they send, read, receive and settle at any node, and write down what they were told.

mod consumer;
mod producer;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use flotilla_cluster::ClusterError;
use flotilla_model::command::QueuePolicy;
use flotilla_model::name::Name;
use flotilla_model::outcome::Outcome;

pub use self::consumer::{Consumer, acknowledge, receive};
pub use self::producer::{Producer, Target};
pub use self::reader::{Reader, read_topic};
use crate::host::Site;
use crate::machine::Random;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// A queue and how its messages are treated.
#[derive(Clone)]
pub struct Queue {
    pub name: Name,
    pub policy: QueuePolicy,
}

/// What an answer means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// It was not done.
    Refused,
    Unknown,
}

/// What a client of a node knows after a call. A dead node has told nothing.
pub(super) fn answer(
    site: &Site,
    outcome: &Result<Arc<[Outcome]>, ClusterError>,
    is_done: impl Fn(&Outcome) -> bool,
) -> Answer {
    if site.is_dead() {
        return Answer::Unknown;
    }
    match outcome {
        Ok(outcomes) => match outcomes.first() {
            Some(outcome) if is_done(outcome) => Answer::Done,
            Some(_) => Answer::Refused,
            None => Answer::Unknown,
        },
        Err(ClusterError::OutcomeUnknown { .. }) => Answer::Unknown,
        Err(_) => Answer::Refused,
    }
}

pub(super) async fn pause(random: &mut Random, ms_max: u64) {
    tokio::time::sleep(Duration::from_millis(random.below(ms_max))).await;
}
