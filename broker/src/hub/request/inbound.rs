//! What another node's hub of requests says: who serves there, requests for those who serve here, and
//! replies to those who asked here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_model::message::Text;

use crate::api::request::{REQUEST_TIMEOUT_MAX, Reply};
use crate::core::Core;
use crate::hub::request::afar::Arrival;
use crate::hub::request::calls::Letter;
use crate::hub::request::parcel::ReplyParcel;
use crate::hub::table::Told;
use crate::peers::conversation::{Broken, Incoming, Outgoing};
use crate::peers::wire::{self, HubKnows, ToRequests, WireOutcome, WireReply, WireRequest};

/// Serves a conversation until it ends.
pub(crate) async fn serve(
    core: &Arc<Core>,
    node: NodeId,
    outgoing: Outgoing,
    mut incoming: Incoming,
) -> Result<(), Broken> {
    let conversation = core.next_conversation();
    let _end = End {
        core,
        node,
        conversation,
    };
    loop {
        let (said, messages) = incoming.next::<ToRequests>().await?;
        match said {
            ToRequests::Interest {
                anew,
                entries,
                version,
            } => {
                let told = Told {
                    node,
                    conversation,
                    anew,
                    entries,
                };
                core.requests.told(core, told);
                if let Some(version) = version {
                    core.requests.links.know(node, conversation);
                    outgoing.send(&HubKnows { version }).await?;
                }
            }
            ToRequests::Requests(requests) => {
                let batch = unpack_requests(requests, messages)?;
                core.requests.arrived(core, node, batch);
            }
            ToRequests::Replies(replies) => {
                let batch = unpack_replies(replies, messages)?;
                core.requests.answered(core, node, batch);
            }
        }
    }
}

fn unpack_requests(
    requests: Vec<WireRequest>,
    mut messages: Bytes,
) -> Result<Vec<Arrival>, Broken> {
    let mut batch = Vec::with_capacity(requests.len());
    for request in requests {
        let message = wire::message(&mut messages, request.bytes)?;
        if request.name.check().is_err() {
            continue;
        }
        let left = Duration::from_millis(request.timeout_left_ms);
        batch.push(Arrival {
            call: request.call,
            letter: Letter {
                name: Arc::new(request.name),
                message: Arc::new(message),
                bytes: u64::from(request.bytes) + request.extra.len() as u64,
                extra: request.extra.into(),
            },
            to_all: request.to_all,
            groups: request.groups,
            timeout_left: left.min(REQUEST_TIMEOUT_MAX),
        });
    }
    Ok(batch)
}

fn unpack_replies(
    replies: Vec<WireReply>,
    mut messages: Bytes,
) -> Result<Vec<ReplyParcel>, Broken> {
    let mut batch = Vec::with_capacity(replies.len());
    for reply in replies {
        let outcome = match reply.outcome {
            WireOutcome::Replied {
                executed,
                error,
                extra,
                bytes,
            } => Ok(Reply {
                executed,
                error: Text::from(error),
                message: wire::message(&mut messages, bytes)?,
                extra: extra.into(),
            }),
            WireOutcome::Not(absence) => Err(absence),
        };
        batch.push(ReplyParcel {
            call: reply.call,
            seal: reply.seal,
            outcome,
        });
    }
    Ok(batch)
}

/// Lets go of what a node told when its conversation ends, however that comes.
struct End<'a> {
    core: &'a Core,
    node: NodeId,
    conversation: u64,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.core
            .requests
            .links
            .forget(self.node, self.conversation);
        self.core
            .requests
            .gone(self.core, self.node, self.conversation);
    }
}
