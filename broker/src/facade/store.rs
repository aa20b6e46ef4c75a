//! From a batch of messages to commands of shards, and into those: publishes and enqueues alike.
//!
//! Neighbouring items of one name become one command, and the items of one shard one submission, cut
//! where an entry would grow too large.

use std::sync::Arc;

use bytes::BytesMut;
use flotilla_model::batch::{BATCH_BYTES_MAX, BATCH_SLOTS_MAX, cost};
use flotilla_model::command::{Command, EnqueueRun};
use flotilla_model::ids::ShardId;
use flotilla_model::message::Message;
use flotilla_model::name::{Kind, Name};
use flotilla_model::outcome::Outcome;

use crate::api::error::BrokerError;
use crate::api::queue::{Enqueue, Enqueued};
use crate::api::topic::{Publish, Published};
use crate::convert::unexpected;
use crate::core::{Core, check_kind};
use crate::facade::submitted::{Chunk, Place, Submitted};
use crate::ingress::{SUBMISSION_WORKS_MAX, Work};
use crate::name_limits::Refused;

/// Messages are encoded into blocks of this size, or of the batch's if that is smaller.
const BLOCK_BYTES: usize = 64 * 1024;
/// What a command weighs beside its name, roughly: only chunks of many small ones meet it.
const COMMAND_BYTES: usize = 128;

/// A message that is to be stored, and the command that does it.
pub(super) trait Item {
    /// What becomes of it.
    type Stored;
    const KIND: Kind;

    fn name(&self) -> &Name;
    fn message(&self) -> &Message;
    /// A command for this item alone.
    fn command(&self) -> Command;
    /// Adds it to a command of the same name, as the last one.
    fn join(&self, command: &mut Command);
    /// Its part of the command's outcome.
    fn stored(outcome: &Outcome, place: u32) -> Result<Self::Stored, BrokerError>;
}

impl Item for Publish {
    type Stored = Published;
    const KIND: Kind = Kind::Topic;

    fn name(&self) -> &Name {
        &self.topic
    }

    fn message(&self) -> &Message {
        &self.message
    }

    fn command(&self) -> Command {
        Command::Append {
            topic: self.topic.clone(),
            count: 1,
            dedup: self.dedup.map(|id| (0, id)).into_iter().collect(),
        }
    }

    fn join(&self, command: &mut Command) {
        if let Command::Append { count, dedup, .. } = command {
            dedup.extend(self.dedup.map(|id| (*count, id)));
            *count += 1;
        }
    }

    fn stored(outcome: &Outcome, place: u32) -> Result<Published, BrokerError> {
        match (outcome, outcome.offset_at(place)) {
            (Outcome::Appended { at, duplicates, .. }, Some(offset)) => Ok(Published {
                offset,
                at: *at,
                duplicate: duplicates
                    .binary_search_by_key(&place, |(place, _)| *place)
                    .is_ok(),
            }),
            (other, _) => Err(unexpected(other)),
        }
    }
}

impl Item for Enqueue {
    type Stored = Enqueued;
    const KIND: Kind = Kind::Queue;

    fn name(&self) -> &Name {
        &self.queue
    }

    fn message(&self) -> &Message {
        &self.message
    }

    fn command(&self) -> Command {
        Command::Enqueue {
            queue: self.queue.clone(),
            runs: vec![self.run()],
            dedup: self.dedup.map(|id| (0, id)).into_iter().collect(),
        }
    }

    fn join(&self, command: &mut Command) {
        if let Command::Enqueue { runs, dedup, .. } = command {
            if let Some(id) = self.dedup {
                let place = runs.iter().map(|run| run.count).sum();
                dedup.push((place, id));
            }
            match runs.last_mut() {
                Some(run) if run.policy == self.policy => run.count += 1,
                _ => runs.push(self.run()),
            }
        }
    }

    fn stored(outcome: &Outcome, place: u32) -> Result<Enqueued, BrokerError> {
        match outcome {
            Outcome::Enqueued { at, duplicates } => Ok(Enqueued {
                at: *at,
                duplicate: duplicates.binary_search(&place).is_ok(),
            }),
            other => Err(unexpected(other)),
        }
    }
}

impl Enqueue {
    fn run(&self) -> EnqueueRun {
        EnqueueRun {
            count: 1,
            policy: self.policy.clone(),
            moved: None,
        }
    }
}

/// Hands a batch to its shards, waiting for room: batches that are handed over one after the other
/// are stored in that order.
pub(super) async fn submit<I: Item>(core: &Arc<Core>, batch: Vec<I>) -> Submitted<I::Stored> {
    let mut submitted = Submitted::new(core, I::KIND, I::stored, batch.len());
    let refused = core.admit_all(I::KIND, batch.iter().map(Item::name)).await;
    let chunks = chunks(core, &batch, &refused, &mut submitted.results);
    // The chunks have copies: whoever waits must not hold the messages twice.
    drop(batch);
    let mut refused: Vec<(ShardId, BrokerError)> = Vec::new();
    for mut chunk in chunks {
        // What comes after a refused part of the same shard must not overtake it.
        let before = refused.iter().find(|(shard, _)| *shard == chunk.shard);
        let handed_over = match before {
            Some((_, error)) => Err(error.clone()),
            None => {
                let works = std::mem::take(&mut chunk.works);
                core.ingress(chunk.shard).submit(works).await
            }
        };
        match handed_over {
            Ok(reply) => submitted.pending.push_back((chunk, reply)),
            Err(error) => {
                submitted.fail(&chunk, &error);
                refused.push((chunk.shard, error));
            }
        }
    }
    submitted
}

/// Refuses the items of a batch that has too many.
pub(super) fn check_count(core: &Core, over: bool) -> Result<(), BrokerError> {
    if over {
        let allowed = core.config.batch_items_max;
        return Err(BrokerError::InvalidRequest {
            what: format!("a batch may have at most {allowed} messages"),
        });
    }
    Ok(())
}

fn chunks<I: Item>(
    core: &Core,
    batch: &[I],
    refused: &Refused,
    results: &mut [Result<I::Stored, BrokerError>],
) -> Vec<Chunk> {
    let over = batch.len() > core.config.batch_items_max;
    let mut chunks: Vec<Chunk> = Vec::new();
    // The chunk that a shard's next message goes to.
    let mut open: Vec<Option<usize>> = vec![None; core.ingresses.len()];
    let mut shard = None;
    let mut buffer = BytesMut::new();
    for (place, item) in batch.iter().enumerate() {
        let name = item.name();
        let bytes = item.message().encoded_len();
        let checked = core.check_open().and_then(|()| {
            check_kind(name, I::KIND)?;
            refused.check(name)?;
            core.check_size(bytes as u64)?;
            check_count(core, over)
        });
        if let Err(error) = checked {
            core.metrics.refused(I::KIND, &error);
            results[place] = Err(error);
            continue;
        }
        // Neighbours often share their name, and finding a shard costs a digest.
        let same = place > 0 && batch[place - 1].name() == name;
        let shard = *match &mut shard {
            Some(shard) if same => shard,
            other => other.insert(core.cluster.shard_of(name)),
        };
        if buffer.capacity() - buffer.len() < bytes {
            let left = batch[place..]
                .iter()
                .map(|item| item.message().encoded_len());
            let block = left.take(BLOCK_BYTES / bytes.max(1) + 1).sum::<usize>();
            buffer = BytesMut::with_capacity(block.clamp(bytes, BLOCK_BYTES.max(bytes)));
        }
        item.message().encode(&mut buffer);
        let slot = buffer.split().freeze();
        let open = &mut open[shard.0 as usize - 1];
        let chunk = match open.filter(|chunk| has_room(&chunks[*chunk], item, bytes)) {
            Some(chunk) => chunk,
            None => {
                chunks.push(Chunk::new(shard));
                *open.insert(chunks.len() - 1)
            }
        };
        add(&mut chunks[chunk], item, place, slot);
    }
    chunks
}

fn has_room(chunk: &Chunk, item: &impl Item, bytes: usize) -> bool {
    // An upper bound of what its command weighs, which it may share with others.
    let name = item.name();
    let command = name.namespace().len() + name.text().len() + COMMAND_BYTES;
    chunk.slots < BATCH_SLOTS_MAX
        && chunk.bytes + bytes + command <= BATCH_BYTES_MAX
        && chunk.works.len() < SUBMISSION_WORKS_MAX
}

fn add<I: Item>(chunk: &mut Chunk, item: &I, place: usize, slot: bytes::Bytes) {
    chunk.slots += 1;
    chunk.bytes += slot.len();
    let same_name = |work: &Work| match &work.command {
        Command::Append { topic, .. } => topic == item.name(),
        Command::Enqueue { queue, .. } => queue == item.name(),
        _ => false,
    };
    match chunk.works.last_mut().filter(|work| same_name(work)) {
        Some(work) => {
            item.join(&mut work.command);
            work.slots.push(slot);
        }
        None => {
            let command = item.command();
            chunk.bytes += cost(&command);
            chunk.names.push(item.name().clone());
            chunk.works.push(Work {
                command,
                slots: vec![slot],
            });
        }
    }
    let work = chunk.works.len() - 1;
    chunk.places.push(Place {
        item: place,
        work,
        within: chunk.works[work].slots.len() as u32 - 1,
        body_bytes: item.message().body.len() as u64,
    });
}
