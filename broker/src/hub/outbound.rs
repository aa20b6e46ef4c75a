//! Signals on their way to another node.

use std::sync::Arc;

use flotilla_model::ids::NodeId;
use flotilla_model::message::Message;

use crate::core::Core;
use crate::hub::actor::{Gone, Tell};
use crate::hub::interest::Key;
use crate::hub::links::{Cargo, HubLinks};
use crate::hub::listener::Sent;
use crate::hub::table::Told;
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

    async fn told(core: &Core, told: Told) -> Result<(), Broken> {
        let telling = core.hub()?.send(Tell(told));
        telling.await.map_err(|_| Broken::Ended)
    }

    fn gone(core: &Core, node: NodeId, conversation: u64) {
        if let Ok(hub) = core.hub() {
            let telling = hub.send(Gone { node, conversation });
            // An actor that is gone has nothing to forget.
            core.runtime.spawn(async { telling.await.ok() });
        }
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

#[cfg(test)]
mod tests {
    use flotilla_model::name::{Kind, NAME_BYTES_MAX, Name};

    use super::*;
    use crate::api::signal::SignalDelivery;
    use crate::hub::listener::Away;
    use crate::peers::wire::{frame, unframe};

    fn sent(name: &Arc<Name>, groups: &[Arc<Key>]) -> Sent {
        let message = Message::default();
        Sent {
            bytes: message.encoded_len() as u64,
            delivery: SignalDelivery {
                name: Arc::clone(name),
                message: Arc::new(message),
            },
            away: Some(Arc::new(Away {
                to_all: true,
                groups: groups.to_vec(),
            })),
        }
    }

    /// How many signals the other side understands, of frames as they are sent.
    fn understood(batch: &[Sent]) -> usize {
        let parts = talk::parts(batch).map(|part| {
            let head = ToHub::Signals(part.iter().map(wire).collect());
            let framed = frame(&head, [], 0).expect("encodes");
            match unframe::<ToHub>(framed).expect("the other side understands it") {
                (ToHub::Signals(signals), _) => signals.len(),
                (other, _) => panic!("{other:?}"),
            }
        });
        parts.sum()
    }

    #[test]
    fn small_signals_with_the_longest_names_are_understood_elsewhere() {
        let name = Arc::new(Name::signal(&"n".repeat(NAME_BYTES_MAX)).expect("a name"));
        let batch = vec![sent(&name, &[]); 1_100];
        assert_eq!(understood(&batch), 1_100);
    }

    #[test]
    fn small_signals_for_many_groups_are_understood_elsewhere() {
        let name = Arc::new(Name::signal("a").expect("a name"));
        let key = Arc::new(Key {
            kind: Kind::Signal,
            namespace: "default".to_owned(),
            pattern: "*".to_owned(),
            group: Some("g".repeat(1_024)),
        });
        let batch = vec![sent(&name, &vec![key; 1_000]); 70];
        assert_eq!(understood(&batch), 70);
    }
}
