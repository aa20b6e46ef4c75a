//! Signals on their way to another node.

use std::sync::Arc;

use flotilla_model::ids::NodeId;
use flotilla_model::message::Message;

use crate::core::Core;
use crate::hub::interest::Key;
use crate::hub::links::{Cargo, HubLinks};
use crate::hub::listener::Sent;
use crate::hub::talk;
use crate::peers::conversation::{Broken, Outgoing};
use crate::peers::wire::{Opening, ToHub, WireKey, WireSignal};

impl Cargo for Sent {
    type Head = ToHub;
    const WHAT: &'static str = "signals";

    fn opening() -> Opening {
        Opening::Hub
    }

    fn links(core: &Core) -> &HubLinks<Self> {
        &core.hubs
    }

    fn interest(anew: bool, entries: Vec<(Key, u32)>, version: Option<u64>) -> ToHub {
        let entries = entries.into_iter();
        ToHub::Interest {
            anew,
            entries: entries
                .map(|(key, count)| (WireKey::from(key), count))
                .collect(),
            version,
        }
    }

    async fn send(batch: Vec<Self>, outgoing: &Outgoing) -> Result<(), Broken> {
        for part in talk::parts(&batch) {
            let head = ToHub::Signals(part.iter().map(wire).collect());
            let messages: Vec<&Message> = part
                .iter()
                .map(|sent| sent.delivery.message.as_ref())
                .collect();
            let message_bytes = part.iter().map(|sent| sent.bytes as usize).sum();
            outgoing.send_with(&head, messages, message_bytes).await?;
        }
        Ok(())
    }

    fn broken(_: &Arc<Core>, _: NodeId) {
        // A signal that is lost on its way is lost.
    }
}

fn wire(sent: &Sent) -> WireSignal {
    let away = sent.away.iter();
    WireSignal {
        name: sent.delivery.name.as_ref().clone(),
        to_all: sent.away.as_ref().is_some_and(|away| away.to_all),
        groups: away
            .flat_map(|away| &away.groups)
            .map(|key| WireKey::from(key.as_ref().clone()))
            .collect(),
        bytes: sent.bytes as u32,
    }
}
