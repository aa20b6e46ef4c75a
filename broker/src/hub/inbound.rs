//! What another node's hub says: who listens there, and signals for those who listen here.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_model::name::Kind;

use crate::api::signal::Signal;
use crate::core::Core;
use crate::hub::actor::{Arrival, Arrived, Gone, Tell};
use crate::hub::table::Told;
use crate::peers::conversation::{Broken, Incoming, Outgoing};
use crate::peers::wire::{self, HubKnows, ToHub, WireSignal};

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
        let (said, messages) = incoming.next::<ToHub>().await?;
        match said {
            ToHub::Interest {
                anew,
                entries,
                version,
            } => {
                let told = Told {
                    node,
                    conversation,
                    anew,
                    entries: entries
                        .into_iter()
                        .map(|(key, count)| (key.of(Kind::Signal), count))
                        .collect(),
                };
                core.hub()?
                    .send(Tell(told))
                    .await
                    .map_err(|_| Broken::Ended)?;
                if let Some(version) = version {
                    core.hubs.know(node, conversation);
                    outgoing.send(&HubKnows { version }).await?;
                }
            }
            ToHub::Signals(signals) => {
                let batch = unpack(signals, messages)?;
                let slow = core.hub()?.send(Arrived(batch)).await;
                let deadline = Instant::now() + core.config.signal_wait_max;
                for listener in slow.map_err(|_| Broken::Ended)? {
                    core.wait_for_listener(&listener, deadline).await;
                }
            }
        }
    }
}

fn unpack(signals: Vec<WireSignal>, mut messages: Bytes) -> Result<Vec<Arrival>, Broken> {
    let mut batch = Vec::with_capacity(signals.len());
    for signal in signals {
        let message = Arc::new(wire::message(&mut messages, signal.bytes)?);
        if signal.name.check().is_err() {
            continue;
        }
        batch.push(Arrival {
            signal: Signal {
                name: signal.name,
                message,
            },
            to_all: signal.to_all,
            groups: signal
                .groups
                .into_iter()
                .map(|key| key.of(Kind::Signal))
                .collect(),
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
        self.core.hubs.forget(self.node, self.conversation);
        if let Ok(hub) = self.core.hub() {
            let telling = hub.send(Gone {
                node: self.node,
                conversation: self.conversation,
            });
            // An actor that is gone has nothing to forget.
            self.core.runtime.spawn(async { telling.await.ok() });
        }
    }
}
