//! A subscription whose topic is led by another node.
//!
//! The leader keeps a buffer as it does for its own clients, and what would be taken out there
//! travels; the node of the client holds the buffer that the client sees. The client's credit is
//! counted at the leader, so that neither side needs any other bound.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_model::ids::{NodeId, Offset};
use parking_lot::Mutex;

use crate::api::error::BrokerError;
use crate::api::topic::{SubscribeTopic, TopicDelivery};
use crate::core::Core;
use crate::fault::Fault;
use crate::peers::conversation::{Broken, Incoming, Outgoing};
use crate::peers::wire::{self, FromReader, Opening, ToReader, WireError, WireItem};
use crate::topic::buffer::{Buffer, Resume, Taken, Turn};
use crate::topic::requests::Attached;
use crate::topic::run::Item;
use crate::topic::subscription::{attach_here, new_buffer};
use crate::wake::Wake;

/// Message bytes of one frame, about; a larger message goes alone.
const BATCH_BYTES: usize = 256 * 1024;
/// How long the leader may take to end a conversation that the subscription leaves.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// A subscription's place at another node.
pub(crate) struct RemoteFeed {
    outgoing: Outgoing,
    incoming: Incoming,
    wake: Arc<Wake>,
    epochs: Mutex<Epochs>,
}

/// Which epoch of the leader's buffer the client's buffer is fed from.
#[derive(Clone, Copy)]
struct Epochs {
    leader: u64,
    client: u64,
}

/// Subscribes at another node, which feeds the buffer from then on.
pub(crate) async fn attach_there(
    core: &Core,
    node: NodeId,
    request: &SubscribeTopic,
    buffer: &Buffer,
    resume: Option<Resume>,
) -> Result<(RemoteFeed, Attached), Fault> {
    let opening = Opening::Subscribe {
        request: request.clone(),
        resume,
    };
    let (outgoing, mut incoming) = core.converse(node, &opening).await?;
    let (first, _) = incoming.next::<ToReader>().await?;
    let (attached, leader) = match first {
        ToReader::Attached { attached, epoch } => (attached, epoch),
        ToReader::Over(fault) => return Err(fault.into()),
        ToReader::Batch { .. } => return Err(Fault::Moved),
    };
    if leader != 0 {
        buffer.reset(attached.next);
    }
    let wake = Arc::new(Wake::default());
    buffer.attach(Arc::clone(&wake), attached.object, attached.next, true);
    let client = buffer.epoch();
    let feed = RemoteFeed {
        outgoing,
        incoming,
        wake,
        epochs: Mutex::new(Epochs { leader, client }),
    };
    Ok((feed, attached))
}

impl RemoteFeed {
    /// Feeds the buffer until the leader ends it or the reader does.
    pub async fn run(self, core: &Core, buffer: &Buffer) -> Turn {
        let Self {
            outgoing,
            mut incoming,
            wake,
            epochs,
        } = self;
        let turn = tokio::select! {
            turn = read(&mut incoming, buffer, &epochs) => turn,
            turn = report(core, &outgoing, &wake, buffer, &epochs) => turn,
        };
        if turn == Turn::Over {
            // What was done last must arrive before the conversation is gone.
            if outgoing.send(&FromReader::Leave).await.is_ok() {
                let _ = tokio::time::timeout(LEAVE_MAX, incoming.end()).await;
            }
        } else {
            buffer.leave();
        }
        turn
    }
}

async fn read(incoming: &mut Incoming, buffer: &Buffer, epochs: &Mutex<Epochs>) -> Turn {
    loop {
        let (head, messages) = match incoming.next::<ToReader>().await {
            Ok(frame) => frame,
            Err(broken) => return broken_off(&broken),
        };
        match head {
            ToReader::Batch {
                epoch,
                object,
                items,
            } => {
                let items = match unpack(items, messages) {
                    Ok(items) => items,
                    Err(error) => return broken_off(&error.into()),
                };
                let mut epochs = epochs.lock();
                if epoch != epochs.leader {
                    let first = items
                        .first()
                        .map_or(Offset::FIRST, |item| item.delivery.offset);
                    buffer.reset(first);
                    *epochs = Epochs {
                        leader: epoch,
                        client: buffer.epoch(),
                    };
                }
                buffer.push(object, &items);
            }
            ToReader::Over(fault) => match Fault::from(fault) {
                Fault::Moved => return Turn::Left,
                Fault::Failed(error) => {
                    buffer.end(error);
                    return Turn::Over;
                }
            },
            ToReader::Attached { .. } => return Turn::Left,
        }
    }
}

/// Tells the leader what is done, as soon as it can be told.
async fn report(
    core: &Core,
    outgoing: &Outgoing,
    wake: &Wake,
    buffer: &Buffer,
    epochs: &Mutex<Epochs>,
) -> Turn {
    loop {
        tokio::select! {
            () = wake.heard() => {}
            () = core.until_closing() => buffer.end(BrokerError::ShuttingDown),
        }
        let progress = buffer.progress();
        let Epochs { leader, client } = *epochs.lock();
        if progress.count > 0 && progress.epoch == client {
            let done = FromReader::Done {
                epoch: leader,
                count: progress.count,
            };
            if let Err(broken) = outgoing.send(&done).await {
                return broken_off(&broken);
            }
        }
        if progress.closed || core.is_closing() {
            return Turn::Over;
        }
    }
}

fn broken_off(broken: &Broken) -> Turn {
    tracing::debug!(%broken, "a subscription has to find its leader again");
    Turn::Left
}

fn unpack(heads: Vec<WireItem>, mut messages: Bytes) -> Result<Vec<Item>, WireError> {
    heads
        .into_iter()
        .map(|head| {
            Ok(Item {
                delivery: TopicDelivery {
                    offset: head.offset,
                    at: head.at,
                    message: wire::message(&mut messages, head.bytes)?,
                },
                bytes: head.bytes,
            })
        })
        .collect()
}

/// Ends the subscription at the leader, however the conversation ended.
struct Closing(Arc<Buffer>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The leader's side.
pub(crate) async fn serve(
    core: &Arc<Core>,
    outgoing: Outgoing,
    mut incoming: Incoming,
    request: SubscribeTopic,
    resume: Option<Resume>,
) -> Result<(), Broken> {
    let buffer = Arc::new(new_buffer(core, &request));
    let closing = Closing(Arc::clone(&buffer));
    if let Some(resume) = &resume {
        buffer.hold(&resume.held);
    }
    let attached = match attach_here(core, &request, &buffer, resume).await {
        Ok(attached) => attached,
        Err(fault) => return outgoing.send(&ToReader::Over(fault.into())).await,
    };
    let epoch = buffer.epoch();
    outgoing
        .send(&ToReader::Attached { attached, epoch })
        .await?;
    let ended = tokio::select! {
        ended = send_all(&outgoing, &buffer) => ended,
        ended = hear_all(&mut incoming, &buffer) => ended,
    };
    drop(closing);
    ended
}

async fn send_all(outgoing: &Outgoing, buffer: &Buffer) -> Result<(), Broken> {
    loop {
        let taken = match buffer.take_away().await {
            Ok(taken) => taken,
            Err(fault) => return outgoing.send(&ToReader::Over(fault.into())).await,
        };
        let Taken {
            deliveries,
            object,
            epoch,
        } = taken;
        let Some(object) = object else {
            continue;
        };
        let mut rest = deliveries.as_slice();
        while !rest.is_empty() {
            let (items, bytes) = choose(rest);
            let (batch, later) = rest.split_at(items.len());
            rest = later;
            let head = ToReader::Batch {
                epoch,
                object,
                items,
            };
            let messages = batch.iter().map(|delivery| &delivery.message);
            outgoing.send_with(&head, messages, bytes).await?;
        }
    }
}

/// As many deliveries from the front as one frame should have, at least one.
fn choose(deliveries: &[TopicDelivery]) -> (Vec<WireItem>, usize) {
    let (mut items, mut bytes) = (Vec::new(), 0);
    for delivery in deliveries {
        let more = delivery.message.encoded_len();
        if bytes + more > BATCH_BYTES && !items.is_empty() {
            break;
        }
        bytes += more;
        items.push(WireItem {
            offset: delivery.offset,
            at: delivery.at,
            bytes: more as u32,
        });
    }
    (items, bytes)
}

async fn hear_all(incoming: &mut Incoming, buffer: &Buffer) -> Result<(), Broken> {
    loop {
        match incoming.next::<FromReader>().await?.0 {
            FromReader::Done { epoch, count } => buffer.finish(epoch, count),
            FromReader::Leave => return Ok(()),
        }
    }
}
