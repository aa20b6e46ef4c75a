//! Raft's own values as bytes in the log and the checkpoint store.
//!
//! Each begins with a format byte, so that a later build can read what this one wrote.

use std::io;

use bytes::Bytes;
use flotilla_storage::{EntryBody, LogEntry, LogPoint};
use openraft::EntryPayload;
use openraft::vote::RaftLeaderId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::{Batch, Entry, Groups, LogId};

const FORMAT: u8 = 1;

/// An entry that a new leader writes to find out what is committed.
const KIND_BLANK: u8 = 0;
/// Commands.
const KIND_BATCH: u8 = 1;
/// A change of the group's members; the head of its body is the membership.
const KIND_MEMBERSHIP: u8 = 2;
/// An entry that its sender cannot read, on its way to who has it. Never in a log.
const KIND_WITHHELD: u8 = 3;

pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Bytes> {
    let mut bytes = vec![FORMAT];
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard())
        .map_err(io::Error::other)?;
    Ok(Bytes::from(bytes))
}

pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> io::Result<T> {
    let invalid = |complaint: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {complaint}"))
    };
    match bytes.split_first() {
        Some((&FORMAT, rest)) => {
            bincode::serde::decode_from_slice(rest, bincode::config::standard())
                .map(|(value, _)| value)
                .map_err(|error| invalid(error.to_string()))
        }
        Some((version, _)) => Err(invalid(format!(
            "format {version} is not known, this build knows {FORMAT}"
        ))),
        None => Err(invalid("it is empty".to_owned())),
    }
}

pub(crate) fn log_id(index: u64, term: u64, leader: u64) -> LogId {
    type LeaderId = openraft::alias::LeaderIdOf<Groups>;
    LogId {
        leader_id: LeaderId::new(term, leader).to_committed(),
        index,
    }
}

/// The same as storage has it.
pub(crate) fn log_point(log_id: &LogId) -> LogPoint {
    LogPoint {
        index: log_id.index,
        term: log_id.leader_id.term,
        leader: log_id.leader_id.node_id,
    }
}

pub(crate) fn to_log_entry(entry: Entry) -> io::Result<LogEntry> {
    let (kind, body) = match entry.payload {
        EntryPayload::Blank => (KIND_BLANK, headed(Bytes::new())?),
        EntryPayload::Normal(batch) if batch.is_withheld() => (KIND_WITHHELD, batch.0),
        EntryPayload::Normal(Batch(body)) => (KIND_BATCH, body),
        EntryPayload::Membership(membership) => (KIND_MEMBERSHIP, headed(encode(&membership)?)?),
    };
    Ok(LogEntry {
        index: entry.log_id.index,
        term: entry.log_id.leader_id.term,
        leader: entry.log_id.leader_id.node_id,
        kind,
        body,
    })
}

pub(crate) fn from_log_entry(entry: LogEntry) -> io::Result<Entry> {
    let payload = match entry.kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_BATCH => EntryPayload::Normal(Batch(entry.body)),
        KIND_WITHHELD => EntryPayload::Normal(Batch::withheld()?),
        KIND_MEMBERSHIP => EntryPayload::Membership(decode("membership", &entry.body.head())?),
        kind => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "entry {} is of kind {kind}, which this build does not know",
                    entry.index
                ),
            ));
        }
    };
    Ok(Entry {
        log_id: log_id(entry.index, entry.term, entry.leader),
        payload,
    })
}

/// What may be written to the log.
pub(crate) fn storable(entry: LogEntry) -> io::Result<LogEntry> {
    match entry.kind {
        KIND_WITHHELD => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("entry {} came without its contents", entry.index),
        )),
        _ => Ok(entry),
    }
}

/// Whether an entry stands for one that its sender could not read.
pub(crate) fn is_withheld(entry: &Entry) -> bool {
    matches!(&entry.payload, EntryPayload::Normal(batch) if batch.is_withheld())
}

fn headed(head: Bytes) -> io::Result<EntryBody> {
    EntryBody::builder()
        .head(head)
        .build()
        .map_err(io::Error::other)
}
