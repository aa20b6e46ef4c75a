//! Entries on the wire: a small head, and the bodies byte for byte as they are stored.

use std::io;

use bytes::{BufMut, Bytes};
use flotilla_storage::{EntryBody, LogEntry};
use openraft::raft::AppendEntriesRequest;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use serde::{Deserialize, Serialize};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

use super::wire::proto::{AppendAnswer, AppendRequest, Caller};
use crate::codec;
use crate::types::{Groups, LogId, Vote};

type Request = AppendEntriesRequest<Groups>;

/// Number of the field with the bodies in `AppendRequest`.
const BODIES_FIELD: u32 = 4;

#[derive(Serialize, Deserialize)]
struct Head {
    vote: Vote,
    prev_log_id: Option<LogId>,
    leader_commit: Option<LogId>,
    entries: Vec<EntryHead>,
}

#[derive(Serialize, Deserialize)]
struct EntryHead {
    index: u64,
    term: u64,
    leader: u64,
    kind: u8,
}

/// A request on its way out.
pub(super) struct OutgoingAppend {
    /// All but the bodies.
    message: AppendRequest,
    bodies: Vec<EntryBody>,
}

impl OutgoingAppend {
    /// The first request of a stream says who asks and for which group.
    pub fn new(request: Request, opening: Option<(Caller, u32)>) -> io::Result<Self> {
        let mut heads = Vec::with_capacity(request.entries.len());
        let mut bodies = Vec::with_capacity(request.entries.len());
        for entry in request.entries {
            let entry = codec::to_log_entry(entry)?;
            heads.push(EntryHead {
                index: entry.index,
                term: entry.term,
                leader: entry.leader,
                kind: entry.kind,
            });
            bodies.push(entry.body);
        }
        let head = codec::encode(&Head {
            vote: request.vote,
            prev_log_id: request.prev_log_id,
            leader_commit: request.leader_commit,
            entries: heads,
        })?;
        let (caller, group) = opening.map_or((None, 0), |(caller, group)| (Some(caller), group));
        Ok(Self {
            message: AppendRequest {
                caller,
                group,
                head,
                bodies: Vec::new(),
            },
            bodies,
        })
    }

    fn encoded_len(&self) -> usize {
        let bodies: usize = self
            .bodies
            .iter()
            .map(|body| key_len(BODIES_FIELD) + encoded_len_varint(body.len() as u64) + body.len())
            .sum();
        self.message.encoded_len() + bodies
    }

    /// The same bytes as of an `AppendRequest` with the bodies in it. Written by hand because a body
    /// lies in memory in several parts, which would first have to be put together.
    fn encode(&self, buffer: &mut impl BufMut) -> Result<(), prost::EncodeError> {
        self.message.encode(buffer)?;
        for body in &self.bodies {
            encode_key(BODIES_FIELD, WireType::LengthDelimited, buffer);
            encode_varint(body.len() as u64, buffer);
            for part in body.parts() {
                buffer.put_slice(part);
            }
        }
        Ok(())
    }
}

/// A request as it came in.
pub(super) fn decode(message: AppendRequest) -> io::Result<Request> {
    let head: Head = codec::decode("head of entries", &message.head)?;
    if head.entries.len() != message.bodies.len() {
        return Err(invalid(format!(
            "{} entries are announced and {} were sent",
            head.entries.len(),
            message.bodies.len()
        )));
    }
    let entries = head.entries.into_iter().zip(message.bodies);
    let entries = entries.map(|(head, body)| {
        let body = EntryBody::parse(body).map_err(io::Error::other)?;
        // Once it is written under a checksum of its own, damage from the way here would pass for ours.
        body.verify().map_err(io::Error::other)?;
        codec::from_log_entry(LogEntry {
            index: head.index,
            term: head.term,
            leader: head.leader,
            kind: head.kind,
            body,
        })
    });
    Ok(Request {
        vote: head.vote,
        prev_log_id: head.prev_log_id,
        leader_commit: head.leader_commit,
        entries: entries.collect::<io::Result<_>>()?,
    })
}

/// A request without entries, for the lane of heartbeats.
pub(super) fn encode_heartbeat(request: Request) -> io::Result<Bytes> {
    Ok(OutgoingAppend::new(request, None)?.message.head)
}

pub(super) fn decode_heartbeat(head: Bytes) -> io::Result<Request> {
    decode(AppendRequest {
        head,
        ..AppendRequest::default()
    })
}

fn invalid(complaint: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, complaint)
}

/// Writes requests without putting their bodies together first.
#[derive(Default)]
pub(super) struct AppendCodec;

impl Codec for AppendCodec {
    type Encode = OutgoingAppend;
    type Decode = AppendAnswer;
    type Encoder = Self;
    type Decoder = ProstDecoder<AppendAnswer>;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl Encoder for AppendCodec {
    type Item = OutgoingAppend;
    type Error = Status;

    fn encode(&mut self, item: OutgoingAppend, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Batch, Entry};

    fn body(slots: &[Vec<u8>]) -> EntryBody {
        EntryBody::builder()
            .head(Bytes::from_static(b"head"))
            .slots(slots.iter().cloned().map(Bytes::from))
            .build()
            .unwrap()
    }

    fn request(slots: Vec<Vec<Vec<u8>>>) -> Request {
        let mut entries: Vec<Entry> = slots
            .iter()
            .enumerate()
            .map(|(number, slots)| Entry {
                log_id: codec::log_id(7 + number as u64, 3, 2),
                payload: EntryPayload::Normal(Batch(body(slots))),
            })
            .collect();
        entries.push(Entry {
            log_id: codec::log_id(99, 3, 2),
            payload: EntryPayload::Blank,
        });
        Request {
            vote: Vote::new_committed(3, 2),
            prev_log_id: Some(codec::log_id(6, 2, 1)),
            leader_commit: Some(codec::log_id(5, 2, 1)),
            entries,
        }
    }

    proptest! {
        #[test]
        fn entries_arrive_as_they_were(
            slots in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5),
                0..5,
            ),
        ) {
            let sent = request(slots);
            let caller = Caller { version: 1, node: 4, ..Caller::default() };
            let outgoing = OutgoingAppend::new(sent.clone(), Some((caller.clone(), 9))).unwrap();
            let mut bytes = Vec::new();
            outgoing.encode(&mut bytes).unwrap();
            prop_assert_eq!(bytes.len(), outgoing.encoded_len());
            // What any other implementation would make of it, and write.
            let message = AppendRequest::decode(&bytes[..]).unwrap();
            prop_assert_eq!(&message.encode_to_vec(), &bytes);
            prop_assert_eq!(&message.caller, &Some(caller));
            prop_assert_eq!(message.group, 9);
            let received = decode(message).unwrap();
            prop_assert_eq!(received.vote, sent.vote);
            prop_assert_eq!(received.prev_log_id, sent.prev_log_id);
            prop_assert_eq!(received.leader_commit, sent.leader_commit);
            prop_assert_eq!(received.entries, sent.entries);
        }

        #[test]
        fn a_flipped_bit_is_never_taken_for_an_entry(bit in 0..800_usize) {
            let sent = request(vec![vec![vec![1; 40], vec![2; 60]]]);
            let outgoing = OutgoingAppend::new(sent, None).unwrap();
            let mut bytes = outgoing.bodies[0].to_bytes().to_vec();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let message = AppendRequest {
                bodies: vec![bytes.into(), outgoing.bodies[1].to_bytes()],
                ..outgoing.message
            };
            prop_assert!(decode(message).is_err());
        }
    }

    #[test]
    fn a_missing_body_is_noticed() {
        let outgoing = OutgoingAppend::new(request(vec![vec![]]), None).unwrap();
        assert!(decode(outgoing.message).is_err());
    }
}
