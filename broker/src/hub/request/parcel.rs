//! Requests and replies on their way to another node.

use std::sync::Arc;
use std::time::Instant;

use flotilla_model::ids::NodeId;
use flotilla_model::message::Message;

use crate::api::request::{CallId, Reply};
use crate::core::Core;
use crate::hub::buffer::Weighed;
use crate::hub::interest::Key;
use crate::hub::links::{Cargo, HubLinks};
use crate::hub::listener::Away;
use crate::hub::request::absence::Absence;
use crate::hub::request::letter::Letter;
use crate::hub::table::Told;
use crate::hub::talk;
use crate::peers::conversation::{Broken, Outgoing};
use crate::peers::wire::{Opening, ToRequests, WireOutcome, WireReply, WireRequest};

/// A request, what became of one, or that nobody waits for that any more.
pub(crate) enum Parcel {
    Request(RequestParcel),
    Reply(ReplyParcel),
    /// By the number that it was sent with.
    Over(CallId),
}

/// A request for responders of another node.
pub(crate) struct RequestParcel {
    pub call: CallId,
    pub letter: Letter,
    pub away: Away,
    pub deadline: Instant,
}

/// What became of a request that another node sent.
pub(crate) struct ReplyParcel {
    /// The number at the node that this goes to.
    pub call: CallId,
    /// Of a reply by token: that the number was given out there.
    pub seal: Option<[u8; 16]>,
    pub outcome: Result<Reply, Absence>,
}

impl Weighed for Parcel {
    fn bytes(&self) -> u64 {
        match self {
            Self::Request(request) => request.letter.bytes + request.away.bytes(),
            // That there is no reply weighs nothing: it must fit where the reply was too much.
            Self::Reply(reply) => reply.outcome.as_ref().map_or(0, Reply::bytes),
            Self::Over(_) => 0,
        }
    }
}

impl Cargo for Parcel {
    type Head = ToRequests;
    const WHAT: &'static str = "requests";

    fn opening() -> Opening {
        Opening::Requests
    }

    fn links(core: &Core) -> &HubLinks<Self> {
        &core.requests.links
    }

    fn interest(anew: bool, entries: Vec<(Key, u32)>, version: Option<u64>) -> ToRequests {
        ToRequests::Interest {
            anew,
            entries,
            version,
        }
    }

    async fn send(batch: Vec<Self>, outgoing: &Outgoing) -> Result<(), Broken> {
        for part in talk::parts(&batch) {
            let now = Instant::now();
            let (mut requests, mut asked) = (Vec::new(), Vec::new());
            let (mut replies, mut said) = (Vec::new(), Vec::new());
            let mut over = Vec::new();
            for parcel in part {
                match parcel {
                    Parcel::Request(request) if request.deadline > now => {
                        requests.push(wire_request(request, now));
                        asked.push(request.letter.message.as_ref());
                    }
                    // Nobody waits for the reply any more.
                    Parcel::Request(_) => {}
                    Parcel::Reply(reply) => {
                        replies.push(wire_reply(reply));
                        said.extend(reply.outcome.as_ref().ok().map(|reply| &reply.message));
                    }
                    Parcel::Over(call) => over.push(*call),
                }
            }
            send_frame(ToRequests::Requests(requests), asked, outgoing).await?;
            send_frame(ToRequests::Replies(replies), said, outgoing).await?;
            // What is called off comes after what was asked.
            send_frame(ToRequests::Over(over), Vec::new(), outgoing).await?;
        }
        Ok(())
    }

    fn broken(core: &Arc<Core>, node: NodeId) {
        core.requests.unreachable(core, node);
    }

    async fn told(core: &Core, told: Told) -> Result<(), Broken> {
        core.requests.told(core, told);
        Ok(())
    }

    fn gone(core: &Core, node: NodeId, conversation: u64) {
        core.requests.gone(core, node, conversation);
    }
}

async fn send_frame(
    head: ToRequests,
    messages: Vec<&Message>,
    outgoing: &Outgoing,
) -> Result<(), Broken> {
    let is_empty = match &head {
        ToRequests::Interest { .. } => false,
        ToRequests::Requests(requests) => requests.is_empty(),
        ToRequests::Replies(replies) => replies.is_empty(),
        ToRequests::Over(calls) => calls.is_empty(),
    };
    if is_empty {
        return Ok(());
    }
    let bytes = messages.iter().map(|message| message.encoded_len()).sum();
    outgoing.send_with(&head, messages, bytes).await
}

fn wire_request(request: &RequestParcel, now: Instant) -> WireRequest {
    let left = request.deadline.saturating_duration_since(now).as_millis();
    let letter = &request.letter;
    let groups = request.away.groups.iter();
    WireRequest {
        call: request.call,
        name: letter.name.as_ref().clone(),
        to_all: request.away.to_all,
        groups: groups.map(|key| key.as_ref().clone()).collect(),
        // A part of a millisecond is one: less than that would be no time at all.
        timeout_left_ms: u64::try_from(left).unwrap_or(u64::MAX).max(1),
        extra: letter.extra.to_vec(),
        bytes: letter.message.encoded_len() as u32,
    }
}

fn wire_reply(reply: &ReplyParcel) -> WireReply {
    WireReply {
        call: reply.call,
        seal: reply.seal,
        outcome: match &reply.outcome {
            Ok(reply) => WireOutcome::Replied {
                executed: reply.executed,
                error: reply.error.to_string(),
                extra: reply.extra.to_vec(),
                bytes: reply.message.encoded_len() as u32,
            },
            Err(absence) => WireOutcome::Not(*absence),
        },
    }
}
