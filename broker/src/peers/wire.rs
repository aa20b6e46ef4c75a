//! Frames between brokers.
//!
//! ```text
//!  version │ length of the head │ head (bincode) │ messages, one after the other
//!   1 byte        4 bytes
//! ```

use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::{BufMut, Bytes, BytesMut};
use flotilla_model::command::QueuePolicy;
use flotilla_model::ids::{LeaseId, ObjectId, Offset, Sequence, SessionId, WallTime};
use flotilla_model::message::Message;
use flotilla_model::name::{Kind, Name};

use crate::api::queue::Fill;
use crate::api::request::CallId;
use crate::api::topic::SubscribeTopic;
use crate::hub::interest::Key;
use crate::hub::request::absence::Absence;
use crate::peers::error::WireFault;
use crate::topic::buffer::Resume;
use crate::topic::requests::Attached;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;
/// Most memory that the lists of a head may claim while it is decoded.
const HEAD_MEMORY_MAX: usize = 64 << 20;

/// What a conversation is about: its first frame.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum Opening {
    Subscribe {
        request: SubscribeTopic,
        resume: Option<Resume>,
    },
    Receive(WireReceive),
    Peek {
        queue: Name,
        messages_max: u32,
        bytes_max: u64,
        wait: Duration,
    },
    Hub,
    Requests,
}

/// A wait for messages of a queue.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct WireReceive {
    pub queue: Name,
    pub session: SessionId,
    pub messages_max: u32,
    pub bytes_max: u64,
    pub wait: Duration,
    pub fill: Fill,
    pub visibility_ms: Option<u64>,
}

/// What the leader says to a subscription.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum ToReader {
    Attached {
        attached: Attached,
        epoch: u64,
    },
    Batch {
        epoch: u64,
        object: ObjectId,
        items: Vec<WireItem>,
    },
    /// Nothing more comes.
    Over(WireFault),
}

/// A message of a topic.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct WireItem {
    pub offset: Offset,
    pub at: WallTime,
    pub bytes: u32,
}

/// What a subscription says to the leader.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum FromReader {
    /// So many messages more are done, in the order of delivery.
    Done { epoch: u64, count: u64 },
    /// The subscription ends; the leader ends the conversation.
    Leave,
}

/// What the leader says to a receiver.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum ToReceiver {
    Answer {
        lease: LeaseId,
        expired: u64,
        spoilt: bool,
        messages: Vec<WireDelivery>,
    },
    /// The receiver's session answers for the lease from now on.
    Confirmed,
    Over(WireFault),
}

/// A receiver's word that it has the answer.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Accepted;

/// A message of a queue.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct WireDelivery {
    pub sequence: Sequence,
    pub published: WallTime,
    pub receive_count: u32,
    pub expires: Option<WallTime>,
    pub policy: QueuePolicy,
    pub moved_from: Option<Name>,
    pub bytes: u32,
}

/// What a node tells another of its listeners, and what it sends them.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum ToHub {
    /// The listeners under these keys by now; 0: none any more.
    Interest {
        /// Nothing that was told before counts.
        anew: bool,
        entries: Vec<(WireKey, u32)>,
        /// All changes up to this one are told with this frame, if there is one.
        version: Option<u64>,
    },
    Signals(Vec<WireSignal>),
}

/// A [`Key`] of signals.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct WireKey {
    namespace: String,
    pattern: String,
    group: Option<String>,
}

impl From<Key> for WireKey {
    fn from(key: Key) -> Self {
        Self {
            namespace: key.namespace,
            pattern: key.pattern,
            group: key.group,
        }
    }
}

impl WireKey {
    pub fn of(self, kind: Kind) -> Key {
        Key {
            kind,
            namespace: self.namespace,
            pattern: self.pattern,
            group: self.group,
        }
    }
}

/// A signal for the listeners of another node.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct WireSignal {
    pub name: Name,
    /// For all who listen alone.
    pub to_all: bool,
    /// For one member of each of these.
    pub groups: Vec<WireKey>,
    pub bytes: u32,
}

/// What a node tells another of what is served here, and the requests and replies it sends there.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum ToRequests {
    /// As [`ToHub::Interest`].
    Interest {
        anew: bool,
        entries: Vec<(Key, u32)>,
        version: Option<u64>,
    },
    Requests(Vec<WireRequest>),
    Replies(Vec<WireReply>),
    /// Nobody waits any more for what was asked under these numbers.
    Over(Vec<CallId>),
}

/// A request for the responders of another node.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct WireRequest {
    /// The sender's number of it.
    pub call: CallId,
    pub name: Name,
    /// For all who serve alone.
    pub to_all: bool,
    /// For one member of each of these.
    pub groups: Vec<Key>,
    /// How long the sender still waits.
    pub timeout_left_ms: u64,
    pub extra: Vec<u8>,
    pub bytes: u32,
}

/// What became of a request.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct WireReply {
    /// The number at the node that this goes to.
    pub call: CallId,
    /// Of one that was given to nobody but the node that it was made by.
    pub seal: Option<[u8; 16]>,
    pub outcome: WireOutcome,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum WireOutcome {
    Replied {
        executed: bool,
        error: String,
        extra: Vec<u8>,
        bytes: u32,
    },
    Not(Absence),
}

/// The changes of interest that were taken in.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct HubKnows {
    pub version: u64,
}

/// Why a frame could not be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("a frame of version {found}, this build knows {VERSION}")]
    Version { found: u8 },
    #[error("a frame is malformed: {what}")]
    Malformed { what: String },
}

fn malformed(what: impl ToString) -> WireError {
    WireError::Malformed {
        what: what.to_string(),
    }
}

/// A frame of a head and the messages it describes.
pub(crate) fn frame<'a>(
    head: &impl Encode,
    messages: impl IntoIterator<Item = &'a Message>,
    message_bytes: usize,
) -> Result<Bytes, WireError> {
    let head = bincode::encode_to_vec(head, bincode::config::standard()).map_err(malformed)?;
    let length = u32::try_from(head.len()).map_err(malformed)?;
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + head.len() + message_bytes);
    frame.put_u8(VERSION);
    frame.put_u32_le(length);
    frame.put_slice(&head);
    for message in messages {
        message.encode(&mut frame);
    }
    Ok(frame.freeze())
}

/// The head of a frame, and what follows it.
pub(crate) fn unframe<T: Decode<()>>(mut frame: Bytes) -> Result<(T, Bytes), WireError> {
    match frame.first() {
        Some(&VERSION) => {}
        Some(&found) => return Err(WireError::Version { found }),
        None => return Err(malformed("it is empty")),
    }
    let Some(length) = frame.get(1..HEADER_BYTES) else {
        return Err(malformed("it is cut short"));
    };
    let length = length
        .iter()
        .rev()
        .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    let mut head = frame.split_off(HEADER_BYTES);
    if length > head.len() {
        return Err(malformed("its head is cut short"));
    }
    let messages = head.split_off(length);
    let config = bincode::config::standard().with_limit::<HEAD_MEMORY_MAX>();
    let (value, used) = bincode::decode_from_slice(&head, config).map_err(malformed)?;
    if used != length {
        return Err(malformed("bytes of its head are left over"));
    }
    Ok((value, messages))
}

/// Takes the next message of so many bytes off the front.
pub(crate) fn message(messages: &mut Bytes, bytes: u32) -> Result<Message, WireError> {
    let length = bytes as usize;
    if length > messages.len() {
        return Err(malformed("a message is cut short"));
    }
    Message::decode(messages.split_to(length)).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (FromReader, Message) {
        let message = Message {
            body: Bytes::from_static(b"payload"),
            ..Message::default()
        };
        (FromReader::Done { epoch: 3, count: 9 }, message)
    }

    #[test]
    fn a_frame_says_what_was_put_in() {
        let (head, sent) = sample();
        let bytes = sent.encoded_len();
        let frame = frame(&head, [&sent, &sent], 2 * bytes).expect("encodes");
        let (head, mut rest) = unframe::<FromReader>(frame).expect("decodes");
        assert!(matches!(head, FromReader::Done { epoch: 3, count: 9 }));
        for _ in 0..2 {
            assert_eq!(message(&mut rest, bytes as u32).expect("a message"), sent);
        }
        assert!(rest.is_empty());
        assert!(message(&mut rest, 1).is_err());
    }

    #[test]
    fn a_frame_that_is_cut_or_of_another_version_is_refused() {
        let (head, _) = sample();
        let whole = frame(&head, [], 0).expect("encodes");
        for length in 0..whole.len() {
            assert!(unframe::<FromReader>(whole.slice(..length)).is_err());
        }
        let mut other = whole.to_vec();
        other[0] = VERSION + 1;
        let refused = unframe::<FromReader>(Bytes::from(other));
        assert!(matches!(refused, Err(WireError::Version { .. })));
    }
}
