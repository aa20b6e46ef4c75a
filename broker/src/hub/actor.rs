//! The actor that matches signals to listeners, of this node and of all others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;
use flotilla_model::ids::NodeId;
use flotilla_model::message::Message as Payload;
use flotilla_model::name::{Kind, Name};
use futures::stream;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::error::BrokerError;
use crate::api::signal::{Signal, SignalDelivery, SubscribeSignals};
use crate::core::Core;
use crate::hub::buffer::{Bounds, Buffer};
use crate::hub::interest::Key;
use crate::hub::listener::{Away, Listener, Sent};
use crate::hub::names::{Seen, SeenNames};
use crate::hub::subscription::SignalSubscription;
use crate::hub::table::{Table, Told};
use crate::wake::Woken;

/// The buffers that a publisher should wait for.
pub(crate) type Slow = Vec<Arc<Buffer<Sent>>>;

/// Publishes a batch.
#[derive(Message)]
#[rtype(result = "Slow")]
pub(crate) struct Send(pub Vec<Signal>);

/// Adds a listener; it is live on this node when this is answered, and everywhere once all peers
/// know the version of interest that comes with it. An answer that nobody takes ends the subscription.
#[derive(Clone, Message)]
#[rtype(result = "Result<(SignalSubscription, u64), BrokerError>")]
pub(crate) struct Listen(pub SubscribeSignals);

/// Lists names that were used lately, on this node.
#[derive(Message)]
#[rtype(result = "Vec<(Arc<Name>, Seen, u64)>")]
pub(crate) struct ListNames {
    pub after: Option<Name>,
    pub limit: usize,
}

/// Lists a name from now on that nothing was sent to yet.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Introduce(pub Arc<Name>);

/// Lists a name no longer; false if it was not listed.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct Forget(pub Name);

/// Another node told of its listeners.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Tell(pub Told);

/// Another node's conversation ended: nobody can be reached there.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Gone {
    pub node: NodeId,
    pub conversation: u64,
}

/// Signals that another node sent for listeners of this one; answers as [`Send`] does.
#[derive(Message)]
#[rtype(result = "Slow")]
pub(crate) struct Arrived(pub Vec<Arrival>);

/// A signal from another node.
pub(crate) struct Arrival {
    pub signal: Signal,
    pub to_all: bool,
    pub groups: Vec<Key>,
}

/// Ends all subscriptions.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// What a batch becomes: what each listener of this node gets, and each other node.
#[derive(Default)]
struct Parcels {
    here: HashMap<u64, Vec<Sent>>,
    away: BTreeMap<NodeId, Vec<Sent>>,
}

/// Where listeners that go leave their number.
#[derive(Default)]
pub(crate) struct HubBell {
    bell: Notify,
    gone: Mutex<Vec<u64>>,
}

impl HubBell {
    pub fn gone(&self, listener: u64) {
        self.gone.lock().push(listener);
        self.bell.notify_one();
    }
}

/// The actor of all signals.
pub(crate) struct HubActor {
    core: Arc<Core>,
    bounds: Bounds,
    bell: Arc<HubBell>,
    table: Table<Listener>,
    names: SeenNames,
    closing: bool,
}

impl HubActor {
    pub fn new(core: Arc<Core>) -> Self {
        let config = &core.config;
        Self {
            bounds: Bounds::of(config),
            bell: Arc::default(),
            table: Table::default(),
            names: SeenNames::new(config.signal_names_max, config.signal_name_idle),
            closing: false,
            core,
        }
    }

    fn listen(
        &mut self,
        request: SubscribeSignals,
    ) -> Result<(SignalSubscription, u64), BrokerError> {
        if self.closing {
            return Err(BrokerError::ShuttingDown);
        }
        let listeners_max = self.core.config.signal_listeners_max;
        if self.table.listeners() >= listeners_max {
            return Err(BrokerError::Busy {
                what: format!("{listeners_max} listen to signals already"),
            });
        }
        let SubscribeSignals {
            namespace,
            pattern,
            group,
        } = request;
        let (key, pattern) = Key::checked(Kind::Signal, namespace, pattern, group)?;
        let id = self.table.next_id();
        let listener = Arc::new(Listener::new(id, self.bounds, Arc::clone(&self.bell)));
        self.table.join(Arc::clone(&listener), key.clone(), pattern);
        if let Some(name) = key.exact_name() {
            self.names.note(&name, 0, 0, Instant::now());
        }
        let version = self.core.hubs.change(|interest| interest.join(key));
        self.show_listeners();
        Ok((SignalSubscription::new(listener), version))
    }

    fn sweep(&mut self) {
        let gone = std::mem::take(&mut *self.bell.gone.lock());
        if gone.is_empty() {
            return;
        }
        for listener in gone {
            if let Some(place) = self.table.leave(listener) {
                let key = place.key.as_ref().clone();
                self.core.hubs.change(|interest| interest.leave(key));
            }
        }
        self.show_listeners();
    }

    fn show_listeners(&self) {
        let listeners = self.table.listeners();
        self.core.metrics.set_signal_listeners(listeners);
    }

    fn send(&mut self, batch: Vec<Signal>) -> Slow {
        let mut parcels = Parcels::default();
        let now = Instant::now();
        let mut batch = batch.into_iter().peekable();
        while let Some(first) = batch.next() {
            let name = Arc::new(first.name);
            let mut run = vec![Sent::new(&name, first.message)];
            while let Some(next) = batch.next_if(|next| next.name == *name) {
                run.push(Sent::new(&name, next.message));
            }
            let deliveries = self.address(&name, &run, &mut parcels);
            self.names.note(&name, run.len() as u64, deliveries, now);
        }
        let mut slow = self.push(parcels.here);
        for (node, signals) in parcels.away {
            slow.extend(self.push_away(node, signals));
        }
        slow
    }

    /// Adds signals of one name to what goes to their listeners; returns how many deliveries those are.
    fn address(&mut self, name: &Name, mut run: &[Sent], parcels: &mut Parcels) -> u64 {
        let mut deliveries = 0;
        while !run.is_empty() {
            let found = self.table.find(name);
            let for_all = if found.takes_turns { 1 } else { run.len() };
            let (same, rest) = run.split_at(for_all);
            run = rest;
            deliveries += found.count * same.len() as u64;
            for listener in found.listeners {
                let signals = parcels.here.entry(listener).or_default();
                signals.extend_from_slice(same);
            }
            for (node, (to_all, groups)) in found.nodes {
                let away = Arc::new(Away { to_all, groups });
                let signals = parcels.away.entry(node).or_default();
                signals.extend(same.iter().map(|sent| Sent {
                    away: Some(Arc::clone(&away)),
                    ..sent.clone()
                }));
            }
        }
        deliveries
    }

    fn push(&mut self, outgoing: HashMap<u64, Vec<Sent>>) -> Slow {
        let mut slow = Vec::new();
        for (id, signals) in outgoing {
            let Some(place) = self.table.place(id) else {
                continue;
            };
            let bytes: u64 = signals
                .iter()
                .map(|sent| sent.delivery.message.body.len() as u64)
                .sum();
            let pushed = place.listener.buffer.push(signals);
            let dropped = pushed.dropped.len() as u64;
            self.core.metrics.signals_sent(pushed.taken, bytes, dropped);
            if dropped > 0 {
                tracing::debug!(
                    pattern = place.key.pattern,
                    dropped,
                    "signals dropped for a slow listener"
                );
            }
            if pushed.over {
                slow.push(Arc::clone(&place.listener.buffer));
            }
        }
        slow
    }

    /// Puts signals on their way to another node; what does not fit is dropped for that node alone.
    fn push_away(&self, node: NodeId, signals: Vec<Sent>) -> Option<Arc<Buffer<Sent>>> {
        let outlet = self.core.hubs.outlet(node)?;
        let pushed = outlet.push(signals);
        let dropped = pushed.dropped.len() as u64;
        if dropped > 0 {
            self.core.metrics.signals_dropped(dropped);
            tracing::debug!(%node, dropped, "signals dropped for a slow node");
        }
        pushed.over.then_some(outlet)
    }

    fn arrived(&mut self, batch: Vec<Arrival>) -> Slow {
        let mut outgoing: HashMap<u64, Vec<Sent>> = HashMap::new();
        for arrival in batch {
            let Signal { name, message } = arrival.signal;
            let sent = Sent::new(&Arc::new(name), message);
            let name = &sent.delivery.name;
            for listener in self.table.find_here(name, arrival.to_all, &arrival.groups) {
                outgoing.entry(listener).or_default().push(sent.clone());
            }
        }
        self.push(outgoing)
    }

    fn end_all(&self, error: &BrokerError) {
        for place in self.table.places() {
            place.listener.buffer.end(error.clone());
        }
    }
}

impl Sent {
    fn new(name: &Arc<Name>, message: Arc<Payload>) -> Self {
        Self {
            bytes: message.encoded_len() as u64,
            delivery: SignalDelivery {
                name: Arc::clone(name),
                message,
            },
            away: None,
        }
    }
}

impl Actor for HubActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(self.core.config.mailbox_capacity);
        let bell = Arc::clone(&self.bell);
        context.add_stream(stream::unfold(bell, |bell| async move {
            bell.bell.notified().await;
            Some((Woken, bell))
        }));
    }
}

impl Drop for HubActor {
    fn drop(&mut self) {
        let what = "the signals' actor";
        self.core.lose(what);
        self.end_all(&self.core.gone(what));
    }
}

impl StreamHandler<Woken> for HubActor {
    fn handle(&mut self, _: Woken, _: &mut Context<Self>) {
        self.sweep();
    }
}

impl Handler<Send> for HubActor {
    type Result = MessageResult<Send>;

    fn handle(&mut self, message: Send, _: &mut Context<Self>) -> Self::Result {
        self.sweep();
        MessageResult(self.send(message.0))
    }
}

impl Handler<Arrived> for HubActor {
    type Result = MessageResult<Arrived>;

    fn handle(&mut self, message: Arrived, _: &mut Context<Self>) -> Self::Result {
        self.sweep();
        MessageResult(self.arrived(message.0))
    }
}

impl Handler<Tell> for HubActor {
    type Result = ();

    fn handle(&mut self, message: Tell, _: &mut Context<Self>) {
        let keys_max = self.core.config.signal_listeners_max;
        self.table.told(message.0, keys_max);
    }
}

impl Handler<Gone> for HubActor {
    type Result = ();

    fn handle(&mut self, message: Gone, _: &mut Context<Self>) {
        self.table.gone(message.node, message.conversation);
    }
}

impl Handler<Listen> for HubActor {
    type Result = Result<(SignalSubscription, u64), BrokerError>;

    fn handle(&mut self, message: Listen, _: &mut Context<Self>) -> Self::Result {
        self.sweep();
        self.listen(message.0)
    }
}

impl Handler<ListNames> for HubActor {
    type Result = MessageResult<ListNames>;

    fn handle(&mut self, message: ListNames, _: &mut Context<Self>) -> Self::Result {
        self.sweep();
        let found = self
            .names
            .after(Kind::Signal, message.after.as_ref(), message.limit);
        let counted = found.into_iter().map(|(name, seen)| {
            let listeners = self.table.count(&name);
            (name, seen, listeners)
        });
        MessageResult(counted.collect())
    }
}

impl Handler<Introduce> for HubActor {
    type Result = ();

    fn handle(&mut self, message: Introduce, _: &mut Context<Self>) {
        self.names.note(&message.0, 0, 0, Instant::now());
    }
}

impl Handler<Forget> for HubActor {
    type Result = bool;

    fn handle(&mut self, message: Forget, _: &mut Context<Self>) -> bool {
        self.names.drop_name(&message.0)
    }
}

impl Handler<Stop> for HubActor {
    type Result = ();

    fn handle(&mut self, _: Stop, _: &mut Context<Self>) {
        self.closing = true;
        self.end_all(&BrokerError::ShuttingDown);
    }
}
