//! Receiving and peeking where another node leads the queue's shard.
//!
//! Until the receiver's node has said that it has the messages, the leader gives them back when the
//! conversation breaks; until the leader has confirmed that, the receiver's node does. So whatever
//! gets lost on the way, messages are neither handed out twice nor kept by nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_model::ids::{LeaseId, NodeId};
use flotilla_model::name::Name;

use crate::api::queue::{QueueDelivery, Received};
use crate::core::Core;
use crate::fault::Fault;
use crate::peers::conversation::{Broken, Incoming, Outgoing};
use crate::peers::wire::{
    self, Accepted, Opening, ToReceiver, WireDelivery, WireError, WireReceive,
};
use crate::queue::actor::Wait;
use crate::queue::attempts::Attempts;
use crate::queue::deliver::{Answer, LeaseGuard};
use crate::queue::local;

/// Receives from another node.
pub(crate) async fn receive_there(
    core: &Arc<Core>,
    node: NodeId,
    queue: &Name,
    wait: &Wait,
    attempts: &Attempts<'_>,
) -> Result<Answer, Fault> {
    let opening = Opening::Receive(WireReceive {
        queue: queue.clone(),
        session: wait.session,
        messages_max: wait.messages_max,
        bytes_max: wait.bytes_max,
        wait: wait.deadline.saturating_duration_since(Instant::now()),
        fill: wait.fill,
        visibility_ms: wait.visibility_ms,
    });
    let (outgoing, mut incoming) = core.converse(node, &opening).await?;
    attempts.asks(node);
    let (answer, messages) = incoming.next::<ToReceiver>().await?;
    attempts.heard();
    let (lease, expired, spoilt, heads) = match answer {
        ToReceiver::Answer {
            lease,
            expired,
            spoilt,
            messages,
        } => (lease, expired, spoilt, messages),
        ToReceiver::Over(fault) => return Err(fault.into()),
        ToReceiver::Confirmed => return Err(Fault::Moved),
    };
    let guard = (!heads.is_empty())
        .then(|| LeaseGuard::new(Arc::clone(core), queue.clone(), wait.session, lease));
    let messages = unpack(lease, heads, messages).map_err(Broken::from)?;
    if guard.is_some() {
        outgoing.send(&Accepted).await?;
        match incoming.next::<ToReceiver>().await? {
            (ToReceiver::Confirmed, _) => {}
            _ => return Err(Fault::Moved),
        }
    }
    Ok(Answer {
        received: Received {
            lease,
            messages,
            expired,
        },
        spoilt,
        guard,
        room: None,
    })
}

/// Peeks at another node.
pub(crate) async fn peek_there(
    core: &Core,
    node: NodeId,
    queue: &Name,
    messages_max: u32,
    bytes_max: u64,
    wait: Duration,
) -> Result<Vec<QueueDelivery>, Fault> {
    let opening = Opening::Peek {
        queue: queue.clone(),
        messages_max,
        bytes_max,
        wait,
    };
    let (_outgoing, mut incoming) = core.converse(node, &opening).await?;
    match incoming.next::<ToReceiver>().await? {
        (
            ToReceiver::Answer {
                lease,
                messages: heads,
                ..
            },
            messages,
        ) => Ok(unpack(lease, heads, messages).map_err(Broken::from)?),
        (ToReceiver::Over(fault), _) => Err(fault.into()),
        (ToReceiver::Confirmed, _) => Err(Fault::Moved),
    }
}

fn unpack(
    lease: LeaseId,
    heads: Vec<WireDelivery>,
    mut messages: Bytes,
) -> Result<Vec<QueueDelivery>, WireError> {
    heads
        .into_iter()
        .map(|head| {
            Ok(QueueDelivery {
                lease,
                sequence: head.sequence,
                published: head.published,
                receive_count: head.receive_count,
                expires: head.expires,
                policy: head.policy,
                moved_from: head.moved_from,
                message: wire::message(&mut messages, head.bytes)?,
            })
        })
        .collect()
}

/// The leader's side of a receive.
pub(crate) async fn serve_receive(
    core: &Arc<Core>,
    outgoing: Outgoing,
    mut incoming: Incoming,
    request: WireReceive,
) -> Result<(), Broken> {
    let wait = Wait {
        session: request.session,
        messages_max: request.messages_max,
        bytes_max: request.bytes_max,
        deadline: local::deadline(request.wait),
        fill: request.fill,
        visibility_ms: request.visibility_ms,
    };
    let answer = tokio::select! {
        answer = local::receive_here(core, &request.queue, &wait) => answer,
        () = incoming.end() => return Ok(()),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(fault) => return outgoing.send(&ToReceiver::Over(fault.into())).await,
    };
    send_answer(&outgoing, &answer.received, answer.spoilt).await?;
    if answer.guard.is_some() {
        incoming.next::<Accepted>().await?;
        answer.accept();
        outgoing.send(&ToReceiver::Confirmed).await?;
    }
    Ok(())
}

/// The leader's side of a peek.
pub(crate) async fn serve_peek(
    core: &Arc<Core>,
    outgoing: Outgoing,
    mut incoming: Incoming,
    (queue, messages_max, bytes_max, wait): (Name, u32, u64, Duration),
) -> Result<(), Broken> {
    let until = local::deadline(wait);
    let peeked = tokio::select! {
        peeked = local::peek_here(core, &queue, messages_max, bytes_max, until) => peeked,
        () = incoming.end() => return Ok(()),
    };
    match peeked {
        Ok(messages) => {
            let shown = Received {
                lease: LeaseId(0),
                messages,
                expired: 0,
            };
            send_answer(&outgoing, &shown, false).await
        }
        Err(fault) => outgoing.send(&ToReceiver::Over(fault.into())).await,
    }
}

async fn send_answer(outgoing: &Outgoing, received: &Received, spoilt: bool) -> Result<(), Broken> {
    let mut bytes = 0;
    let heads = received.messages.iter().map(|delivery| {
        let length = delivery.message.encoded_len();
        bytes += length;
        WireDelivery {
            sequence: delivery.sequence,
            published: delivery.published,
            receive_count: delivery.receive_count,
            expires: delivery.expires,
            policy: delivery.policy.clone(),
            moved_from: delivery.moved_from.clone(),
            bytes: length as u32,
        }
    });
    let head = ToReceiver::Answer {
        lease: received.lease,
        expired: received.expired,
        spoilt,
        messages: heads.collect(),
    };
    let messages = received.messages.iter().map(|delivery| &delivery.message);
    outgoing.send_with(&head, messages, bytes).await
}
