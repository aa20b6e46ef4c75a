//! What another node's hub says: who listens there, and signals for those who listen here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_model::name::Kind;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use crate::api::signal::Signal;
use crate::core::Core;
use crate::hub::actor::{Arrival, Arrived};
use crate::hub::buffer::Buffer;
use crate::hub::hearing::Hearing;
use crate::hub::listener::Sent;
use crate::peers::conversation::{Broken, Incoming, Outgoing};
use crate::peers::wire::{self, ToHub, WireSignal};

/// Serves a conversation until it ends.
pub(crate) async fn serve(
    core: &Arc<Core>,
    node: NodeId,
    outgoing: Outgoing,
    mut incoming: Incoming,
) -> Result<(), Broken> {
    let hearing = Hearing::<Sent>::begin(core, node, outgoing);
    let mut waits = Waits::default();
    loop {
        let (said, messages) = tokio::select! {
            next = incoming.next::<ToHub>() => next?,
            () = waits.next() => continue,
        };
        match said {
            ToHub::Interest {
                anew,
                entries,
                version,
            } => {
                let entries = entries.into_iter();
                let entries = entries.map(|(key, count)| (key.of(Kind::Signal), count));
                hearing.interest(anew, entries.collect(), version).await?;
            }
            ToHub::Signals(signals) => {
                let batch = unpack(signals, messages)?;
                let slow = core.hub()?.send(Arrived(batch)).await;
                for listener in slow.map_err(|_| Broken::Ended)? {
                    waits.add(core, listener);
                }
            }
        }
    }
}

/// The waits for listeners that are behind. They hold up nothing else that the node says: each listener's
/// buffer has bounds of its own, beyond which it alone misses signals.
#[derive(Default)]
struct Waits {
    /// The buffers that are waited for, by their addresses: each is alive as long as its wait.
    listeners: HashSet<usize>,
    waits: FuturesUnordered<BoxFuture<'static, usize>>,
}

impl Waits {
    fn add(&mut self, core: &Arc<Core>, listener: Arc<Buffer<Sent>>) {
        let address = Arc::as_ptr(&listener) as usize;
        if !self.listeners.insert(address) {
            return;
        }
        let deadline = Instant::now() + core.config.signal_wait_max;
        let core = Arc::clone(core);
        let wait = async move {
            core.wait_for_listener(&listener, deadline).await;
            address
        };
        self.waits.push(wait.boxed());
    }

    /// Waits until one of them is over. May be dropped without losing any.
    async fn next(&mut self) {
        match self.waits.next().await {
            Some(address) => {
                self.listeners.remove(&address);
            }
            None => std::future::pending().await,
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
