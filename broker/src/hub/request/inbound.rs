//! What another node's hub of requests says: who serves there, requests for those who serve here, and
//! replies to those who asked here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_cluster::PeerIdentity;
use flotilla_model::message::Text;

use crate::api::request::{REQUEST_TIMEOUT_MAX, Reply};
use crate::core::Core;
use crate::hub::hearing::Hearing;
use crate::hub::request::afar::Arrival;
use crate::hub::request::letter::Contents;
use crate::hub::request::parcel::{Parcel, ReplyParcel};
use crate::peers::conversation::{Broken, Incoming, Outgoing};
use crate::peers::wire::{self, ToRequests, WireOutcome, WireReply, WireRequest};

/// Serves a conversation until it ends.
pub(crate) async fn serve(
    core: &Arc<Core>,
    from: PeerIdentity,
    outgoing: Outgoing,
    mut incoming: Incoming,
) -> Result<(), Broken> {
    let node = from.node;
    let hearing = Hearing::<Parcel>::begin(core, node, outgoing);
    core.requests.met(core, from);
    loop {
        let (said, messages) = incoming.next::<ToRequests>().await?;
        match said {
            ToRequests::Interest {
                anew,
                entries,
                version,
            } => hearing.interest(anew, entries, version).await?,
            ToRequests::Requests(requests) => {
                let batch = unpack_requests(requests, messages)?;
                core.requests.arrived(core, node, batch);
            }
            ToRequests::Replies(replies) => {
                let batch = unpack_replies(replies, messages)?;
                core.requests.answered(core, node, batch);
            }
            ToRequests::Over(calls) => core.requests.called_off(core, node, &calls),
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
            contents: Contents::new(
                Arc::new(request.name),
                Arc::new(message),
                request.extra.into(),
                u64::from(request.bytes),
            ),
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
