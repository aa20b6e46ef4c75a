//! Who receives from queues.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_cluster::{ClusterError, Shard};
use flotilla_model::command::{Command, Selection, Settlement};
use flotilla_model::ids::{LeaseId, LogIndex, SessionId};
use flotilla_model::name::Name;
use flotilla_model::outcome::{LeasedMessage, Outcome};
use flotilla_tests::history::{self, Receipt, Settle};
use flotilla_tests::workload::message;

use super::{Answer, PATIENCE, answer, pause};
use crate::host::Site;
use crate::machine::Random;
use crate::world::World;

/// How long a node tries to find the payload of what it was handed.
const PAYLOAD_PATIENCE: Duration = Duration::from_secs(2);
/// A message that nobody settles comes back after this long.
const VISIBILITY_MS: u64 = 6_000;

/// Receives from a queue and settles, until the load is over.
pub struct Consumer {
    pub world: World,
    pub number: u32,
    pub queue: Name,
    pub random: Random,
}

/// Messages in hand.
pub struct Hold {
    pub session: SessionId,
    pub lease: LeaseId,
    pub receipts: Vec<Receipt>,
    /// Messages whose payload could not be read.
    pub unread: usize,
}

impl Consumer {
    pub async fn run(mut self) {
        while !self.world.is_load_over() {
            pause(&mut self.random, 150).await;
            let Some(site) = self.world.pick(&mut self.random) else {
                continue;
            };
            let messages_max = self.random.between(1, 6) as u32;
            if let Some(hold) =
                receive(&self.world, &site, &self.queue, self.number, messages_max).await
                && !site.is_dead()
            {
                let receipts = hold.receipts.clone();
                let name = self.queue.text();
                self.world
                    .recorder()
                    .history()
                    .queue(name)
                    .receipts
                    .extend(receipts);
                self.finish(&site, hold).await;
            }
        }
    }

    async fn finish(&mut self, site: &Site, hold: Hold) {
        pause(&mut self.random, 300).await;
        // Not everything is settled: it comes back by itself.
        if self.random.once_in(12) || hold.receipts.is_empty() || hold.unread > 0 {
            return;
        }
        let (settlement, how) = match self.random.once_in(5) {
            true => (history::Settlement::Reject, Settlement::Return),
            false => (history::Settlement::Acknowledge, Settlement::Ack),
        };
        let invoked = self.world.recorder().now();
        let known = settle(site, &self.queue, &hold, how).await;
        let confirmed = match known {
            Answer::Done => Some(self.world.recorder().now()),
            // The lease was over, or an error said so: it did nothing.
            Answer::Refused => return,
            Answer::Unknown => None,
        };
        let settle = Settle {
            hold: hold.receipts[0].hold,
            settlement,
            invoked,
            confirmed,
        };
        let name = self.queue.text();
        self.world
            .recorder()
            .history()
            .queue(name)
            .settles
            .push(settle);
    }
}

/// Asks for messages, at a node that need not lead the queue's shard.
pub async fn receive(
    world: &World,
    site: &Site,
    queue: &Name,
    consumer: u32,
    messages_max: u32,
) -> Option<Hold> {
    let session = world.session(site);
    let command = Command::Lease {
        queue: queue.clone(),
        session,
        messages_max,
        bytes_max: 1 << 20,
        visibility_ms: Some(VISIBILITY_MS),
    };
    let shard = site.cluster.shard_for(queue);
    let deadline = Instant::now() + PATIENCE;
    let outcome = shard.propose(vec![command], Vec::new(), deadline).await;
    let outcomes = match outcome {
        Ok(outcomes) => outcomes,
        Err(error) => {
            world.tell(&format!(
                "{queue}: consumer {consumer} at node {} got nothing: {error}",
                site.number
            ));
            return None;
        }
    };
    let Some(Outcome::Leased {
        lease, messages, ..
    }) = outcomes.first()
    else {
        world.tell(&format!(
            "{queue}: consumer {consumer} at node {} got nothing: {outcomes:?}",
            site.number
        ));
        return None;
    };
    if messages.is_empty() {
        return None;
    }
    let at = world.recorder().now();
    let hold = world.recorder().next_hold();
    let mut receipts = Vec::new();
    for message in messages {
        if let Some(payload) = payload(world, queue, message).await {
            let (name, intact) = message::read(&payload);
            receipts.push(Receipt {
                hold,
                consumer,
                node: site.number,
                at,
                sequence: message.sequence.0,
                name,
                intact,
                receive_count: message.receive_count,
            });
        }
    }
    let sequences: Vec<u64> = messages.iter().map(|message| message.sequence.0).collect();
    world.tell(&format!(
        "{queue}: consumer {consumer} at node {} got {sequences:?} under lease {lease}",
        site.number
    ));
    Some(Hold {
        session,
        lease: *lease,
        unread: messages.len() - receipts.len(),
        receipts,
    })
}

/// The payload of a message, from the node that leads its shard, as the broker gets it.
async fn payload(world: &World, queue: &Name, message: &LeasedMessage) -> Option<Bytes> {
    let deadline = Instant::now() + PAYLOAD_PATIENCE;
    while Instant::now() < deadline {
        for site in world.sites() {
            let shard = site.cluster.shard_for(queue);
            if shard.is_leader()
                && let Ok(payload) = slot(shard, message.at.index, message.at.slot).await
            {
                return Some(payload);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

async fn slot(shard: &Shard, index: LogIndex, slot: u32) -> Result<Bytes, ClusterError> {
    let found = shard.read_slots(index, slot..slot + 1).await?;
    found.into_iter().next().ok_or(ClusterError::Stopped)
}

async fn settle(site: &Site, queue: &Name, hold: &Hold, how: Settlement) -> Answer {
    let command = Command::Settle {
        queue: queue.clone(),
        session: hold.session,
        lease: hold.lease,
        which: Selection::All,
        how,
    };
    let deadline = Instant::now() + PATIENCE;
    let shard = site.cluster.shard_for(queue);
    let outcome = shard.propose(vec![command], Vec::new(), deadline).await;
    let held = hold.receipts.len() as u32;
    // Done by halves would be worse than anything: then nothing is known of each message.
    match answer(site, &outcome, |outcome| {
        matches!(outcome, Outcome::Settled { .. })
    }) {
        Answer::Done if !settled_all(&outcome, held) => Answer::Unknown,
        known => known,
    }
}

fn settled_all(outcome: &Result<Arc<[Outcome]>, ClusterError>, held: u32) -> bool {
    let outcome = outcome.as_ref().ok().and_then(|outcomes| outcomes.first());
    matches!(outcome, Some(Outcome::Settled { count, .. }) if *count == held)
}

/// Acknowledges what was received; whether that is certain.
pub async fn acknowledge(site: &Site, queue: &Name, hold: &Hold) -> bool {
    settle(site, queue, hold, Settlement::Ack).await == Answer::Done
}
