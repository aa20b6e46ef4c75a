//! The whole history against all promises.

use super::event::{History, Moment, QueueHistory, Send};
use super::queue::Checked;
use super::topic;
use crate::checker::{Name, Violation};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A broken promise, and of which topic or queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub channel: String,
    pub violation: Violation,
}

/// Every broken promise.
pub fn check(history: &History) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut add = |channel: &str, violations: Vec<Violation>| {
        broken.extend(violations.into_iter().map(|violation| Broken {
            channel: channel.to_owned(),
            violation,
        }));
    };
    for (name, topic) in &history.topics {
        add(name, topic::check(topic));
    }
    for (name, queue) in &history.queues {
        let checked = Checked {
            queue,
            dead_sends: history.dead_sends(name),
            dead: history.dead_letters(queue),
            faults: &history.faults,
        };
        add(name, checked.violations());
    }
    broken
}

/// How much there was to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub acknowledged: usize,
    /// Sends whose answer was an error or never came.
    pub unknown: usize,
    /// Deliveries of events.
    pub read: usize,
    /// Deliveries of queue messages while the load ran.
    pub received: usize,
    /// Answers with queue messages whose settlement was confirmed.
    pub settled: usize,
    pub drained: usize,
}

/// Counts.
pub fn figures(history: &History) -> Figures {
    let mut figures = Figures::default();
    let topics = history.topics.values();
    let queues = history.queues.values();
    let sends = topics.clone().flat_map(|topic| &topic.sends);
    for send in sends.chain(queues.clone().flat_map(|queue| &queue.sends)) {
        match send.acknowledged {
            true => figures.acknowledged += 1,
            false => figures.unknown += 1,
        }
    }
    figures.read = topics.map(|topic| topic.reads.len()).sum();
    for queue in queues {
        let settled = queue.settles.iter().filter(|end| end.confirmed.is_some());
        figures.received += queue.receipts.len();
        figures.settled += settled.count();
        figures.drained += queue.drained.len();
    }
    figures
}

impl History {
    /// What was sent to queues whose dead letters go to this one.
    fn dead_sends(&self, name: &str) -> Vec<&Send> {
        let sources = self.queues.values();
        sources
            .filter(|queue| queue.dead_letter.as_deref() == Some(name))
            .flat_map(|queue| &queue.sends)
            .collect()
    }

    /// What was received of a queue's dead letters, with the first moment.
    fn dead_letters(&self, queue: &QueueHistory) -> BTreeMap<Name, Moment> {
        let sent: BTreeSet<Name> = queue.sends.iter().map(|send| send.name).collect();
        let letters = queue.dead_letter.as_ref();
        let letters = letters.and_then(|name| self.queues.get(name));
        let mut dead = BTreeMap::new();
        let receipts = letters
            .into_iter()
            .flat_map(|letters| letters.receipts.iter().chain(&letters.drained));
        // Other queues may have the same one for their dead letters.
        for receipt in receipts.filter(|receipt| sent.contains(&receipt.name)) {
            let first = dead.entry(receipt.name).or_insert(receipt.at);
            *first = receipt.at.min(*first);
        }
        dead
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.channel, self.violation)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} messages acknowledged, {} unknown; {} events read, {} messages received, \
             {} answers settled, {} messages drained",
            self.acknowledged, self.unknown, self.read, self.received, self.settled, self.drained,
        )
    }
}
