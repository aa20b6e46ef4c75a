//! Messages whose bytes are damaged here, read from another replica.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use flotilla_model::ids::{LogIndex, NodeId};

use super::message::{Opening, Told, Words, broken, out_of_turn, reason_of};
use crate::blocking::blocking;
use crate::error::ClusterError;
use crate::group::Group;
use crate::net::{Lane, Peers, ServiceId};
use crate::replica::{Counters, Replica};

/// For the answer of one peer.
const PEER_WAIT_MAX: Duration = Duration::from_secs(5);

/// What other replicas have of messages that are damaged here.
pub(crate) enum Elsewhere {
    Found(Vec<Bytes>),
    /// They are damaged on all other replicas, too, or there are none.
    Nowhere,
    /// A replica that may have them whole did not answer.
    Unknown {
        reason: String,
    },
}

/// Asks the other voters of a group, one after the other, until one of them has the messages whole.
pub(crate) async fn read_elsewhere(
    peers: &Peers,
    own: NodeId,
    replica: &Replica,
    index: LogIndex,
    slots: Range<u32>,
) -> Elsewhere {
    let mut unknown = None;
    for node in replica.voters().into_iter().filter(|node| *node != own) {
        let asked = ask(peers, node, replica.group.0, index, slots.clone());
        let answer = tokio::time::timeout(PEER_WAIT_MAX, asked).await;
        match answer.unwrap_or_else(|_| Err(broken("no answer in time"))) {
            Ok(Some(messages)) => {
                Counters::add(&replica.counters.read_elsewhere, 1);
                return Elsewhere::Found(messages);
            }
            Ok(None) => {}
            Err(error) => {
                let reason = reason_of(&error);
                unknown.get_or_insert(format!("node {node} does not give it: {reason}"));
            }
        }
    }
    match unknown {
        Some(reason) => Elsewhere::Unknown { reason },
        None => Elsewhere::Nowhere,
    }
}

/// `None` if they are damaged there, too.
async fn ask(
    peers: &Peers,
    node: NodeId,
    group: u32,
    index: LogIndex,
    slots: Range<u32>,
) -> Result<Option<Vec<Bytes>>, ClusterError> {
    let talk = peers.talk(node, Lane::Bulk, ServiceId::REPLICAS).await;
    let mut words = Words::from(talk.map_err(broken)?);
    let count = slots.end.saturating_sub(slots.start);
    let opening = Opening::Read {
        group,
        index: index.0,
        first: slots.start,
        count,
    };
    words.say(&opening).await?;
    match words.answer().await? {
        Told::Messages => {}
        Told::Unsound { .. } => return Ok(None),
        told => return Err(out_of_turn(&told)),
    }
    let mut messages = Vec::new();
    for _ in 0..count {
        let message = words.raw().await?;
        messages.push(message.ok_or_else(|| broken("the other replica broke off"))?);
    }
    Ok(Some(messages))
}

/// Answers with messages of an entry that is applied here. They are checked on their way from the disk,
/// and an applied entry is the same everywhere.
pub(super) async fn answer(
    group: &Group,
    index: u64,
    slots: Range<u32>,
    words: &mut Words,
) -> Result<(), ClusterError> {
    let replica = &group.replica;
    if index > replica.applied_index() {
        return Err(broken("the entry is not applied here yet"));
    }
    let reader = group.node.readers.acquire().await;
    let _reader = reader.map_err(|_| ClusterError::Stopped)?;
    let (log, number, shard) = (replica.log.clone(), replica.group, replica.shard);
    let messages = blocking("reading messages", move || {
        log.read_slots(number, index, slots)
            .map_err(|error| ClusterError::of_read(shard, error))
    })
    .await;
    let messages = match messages {
        Ok(messages) => messages,
        Err(ClusterError::Corrupt { what, .. }) => {
            return words.say(&Told::Unsound { reason: what }).await;
        }
        Err(error) => return Err(error),
    };
    words.say(&Told::Messages).await?;
    for message in messages {
        words.sender.send(message).await.map_err(broken)?;
    }
    Ok(())
}
