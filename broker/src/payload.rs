//! Reading messages back: from slots of entries to [`Message`]s, and past damaged ones.

use std::ops::Range;

use bytes::Bytes;
use flotilla_cluster::{ClusterError, Shard};
use flotilla_model::ids::LogIndex;
use flotilla_model::message::Message;
use flotilla_model::outcome::MessageRef;
use futures::{StreamExt, TryStreamExt, stream};

/// Reads of one request that run at the same time.
const READS_AT_ONCE: usize = 8;

/// A message as it was found.
#[derive(Debug)]
pub(crate) enum Found {
    /// Whole.
    Message {
        message: Message,
        /// Encoded.
        bytes: u32,
    },
    /// It cannot be had now.
    Unreadable(Unreadable),
}

/// Why a message cannot be had.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// Its bytes were released meanwhile: by retention, a purge or a deletion.
    Gone,
    /// Its bytes do not match their checksum, or are no message: on all nodes that hold it.
    Damaged(String),
    /// Its bytes are damaged here, and another node that may have them whole did not answer.
    OutOfReach(String),
}

/// Neighbouring slots of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotRun {
    pub index: LogIndex,
    pub slots: Range<u32>,
}

/// Joins the references that lie side by side, in their order.
pub(crate) fn runs_of(references: impl IntoIterator<Item = MessageRef>) -> Vec<SlotRun> {
    let mut runs: Vec<SlotRun> = Vec::new();
    for reference in references {
        match runs.last_mut() {
            Some(run) if run.index == reference.index && run.slots.end == reference.slot => {
                run.slots.end += 1;
            }
            _ => runs.push(SlotRun {
                index: reference.index,
                slots: reference.slot..reference.slot + 1,
            }),
        }
    }
    runs
}

/// Reads all the runs, one [`Found`] per slot, in order.
///
/// Fails only if the shard cannot be read at all now; damage is told message by message.
pub(crate) async fn read(shard: &Shard, runs: Vec<SlotRun>) -> Result<Vec<Found>, ClusterError> {
    if let [run] = runs.as_slice() {
        return read_run(shard, run.clone()).await;
    }
    let parts: Vec<Vec<Found>> = stream::iter(runs)
        .map(|run| read_run(shard, run))
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await?;
    Ok(parts.into_iter().flatten().collect())
}

async fn read_run(shard: &Shard, run: SlotRun) -> Result<Vec<Found>, ClusterError> {
    match read_together(shard, run.index, run.slots.clone()).await? {
        Ok(found) => return Ok(found),
        Err(why) if run.slots.len() == 1 => return Ok(vec![Found::Unreadable(why)]),
        Err(_) => {}
    }
    // Something in the run cannot be read: find out what, and save the rest.
    let mut found = Vec::with_capacity(run.slots.len());
    for slot in run.slots {
        match read_together(shard, run.index, slot..slot + 1).await? {
            Ok(one) => found.extend(one),
            Err(why) => found.push(Found::Unreadable(why)),
        }
    }
    Ok(found)
}

/// Neighbouring slots, or why they cannot all be had.
async fn read_together(
    shard: &Shard,
    index: LogIndex,
    slots: Range<u32>,
) -> Result<Result<Vec<Found>, Unreadable>, ClusterError> {
    let why = match shard.read_slots(index, slots.clone()).await {
        Ok(read) if read.len() == slots.len() => {
            return Ok(Ok(read.into_iter().map(decode).collect()));
        }
        Ok(_) => Unreadable::Damaged("the entry has fewer slots".to_owned()),
        Err(ClusterError::Absent { .. }) => Unreadable::Gone,
        Err(error @ ClusterError::Corrupt { .. }) => Unreadable::Damaged(error.to_string()),
        Err(error @ ClusterError::Unread { .. }) => Unreadable::OutOfReach(error.to_string()),
        Err(error) => return Err(error),
    };
    Ok(Err(why))
}

fn decode(slot: Bytes) -> Found {
    let bytes = slot.len() as u32;
    match Message::decode(slot) {
        Ok(message) => Found::Message { message, bytes },
        Err(error) => Found::Unreadable(Unreadable::Damaged(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, slot: u32) -> MessageRef {
        MessageRef {
            index: LogIndex(index),
            slot,
            bytes: 1,
        }
    }

    #[test]
    fn only_neighbours_in_one_entry_are_read_together() {
        let runs = runs_of([at(1, 4), at(1, 5), at(2, 6), at(2, 5), at(2, 6), at(2, 8)]);
        let expected: Vec<SlotRun> = [(1, 4..6), (2, 6..7), (2, 5..7), (2, 8..9)]
            .into_iter()
            .map(|(index, slots)| SlotRun {
                index: LogIndex(index),
                slots,
            })
            .collect();
        assert_eq!(runs, expected);
    }
}
