//! The actor that knows all listeners of the node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;
use flotilla_model::name::{Kind, Name};
use flotilla_model::pattern::{Pattern, PatternTrie};
use futures::stream;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::error::BrokerError;
use crate::api::signal::{Signal, SignalDelivery, SubscribeSignals};
use crate::core::Core;
use crate::hub::listener::{Bounds, Listener, Sent};
use crate::hub::names::{Seen, SeenNames};
use crate::wake::Woken;

/// Publishes a batch; answers with the listeners that the publisher should wait for.
#[derive(Message)]
#[rtype(result = "Vec<Arc<Listener>>")]
pub(crate) struct Send(pub Vec<Signal>);

/// Adds a listener; it is live when this is answered.
#[derive(Clone, Message)]
#[rtype(result = "Result<Arc<Listener>, BrokerError>")]
pub(crate) struct Listen(pub SubscribeSignals);

/// Lists names that were used lately.
#[derive(Message)]
#[rtype(result = "Vec<(Arc<Name>, Seen, u64)>")]
pub(crate) struct ListNames {
    pub after: Option<Name>,
    pub limit: usize,
}

/// Ends all subscriptions.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Listener(u64),
    Group(u64),
}

/// Listeners that share.
struct Group {
    key: GroupKey,
    members: Vec<u64>,
    turn: usize,
}

type GroupKey = (String, String, String);

struct Place {
    listener: Arc<Listener>,
    namespace: String,
    pattern: Pattern,
    group: Option<u64>,
}

/// The actor of all signals.
pub(crate) struct HubActor {
    core: Arc<Core>,
    bounds: Bounds,
    bell: Arc<HubBell>,
    last_id: u64,
    places: HashMap<u64, Place>,
    spaces: HashMap<String, PatternTrie<Target>>,
    groups: HashMap<u64, Group>,
    group_ids: HashMap<GroupKey, u64>,
    names: SeenNames,
    closing: bool,
}

impl HubActor {
    pub fn new(core: Arc<Core>) -> Self {
        let config = &core.config;
        Self {
            bounds: Bounds {
                messages_soft: config.signal_buffer_messages.max(1),
                messages_max: config
                    .signal_messages_max
                    .max(config.signal_buffer_messages),
                bytes_max: config.signal_bytes_max,
            },
            bell: Arc::default(),
            last_id: 0,
            places: HashMap::new(),
            spaces: HashMap::new(),
            groups: HashMap::new(),
            group_ids: HashMap::new(),
            names: SeenNames::new(config.signal_names_max, config.signal_name_idle),
            closing: false,
            core,
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn listen(&mut self, request: SubscribeSignals) -> Result<Arc<Listener>, BrokerError> {
        if self.closing {
            return Err(BrokerError::ShuttingDown);
        }
        let listeners_max = self.core.config.signal_listeners_max;
        if self.places.len() >= listeners_max {
            return Err(BrokerError::Busy {
                what: format!("{listeners_max} listen to signals already"),
            });
        }
        // The text of a pattern obeys the rules of a name.
        Name::new(&request.namespace, Kind::Signal, &request.pattern)?;
        let pattern =
            Pattern::parse(&request.pattern).map_err(|error| BrokerError::InvalidRequest {
                what: error.to_string(),
            })?;
        let id = self.next_id();
        let listener = Arc::new(Listener::new(id, self.bounds, Arc::clone(&self.bell)));
        let group = request.group.map(|group| {
            self.join(
                (request.namespace.clone(), request.pattern, group),
                &pattern,
                id,
            )
        });
        if group.is_none() {
            let space = self.spaces.entry(request.namespace.clone()).or_default();
            space.insert(&pattern, Target::Listener(id));
        }
        self.places.insert(
            id,
            Place {
                listener: Arc::clone(&listener),
                namespace: request.namespace,
                pattern,
                group,
            },
        );
        self.core.metrics.set_signal_listeners(self.places.len());
        Ok(listener)
    }

    fn join(&mut self, key: GroupKey, pattern: &Pattern, listener: u64) -> u64 {
        let id = match self.group_ids.get(&key) {
            Some(id) => *id,
            None => {
                let id = self.next_id();
                let space = self.spaces.entry(key.0.clone()).or_default();
                space.insert(pattern, Target::Group(id));
                self.group_ids.insert(key.clone(), id);
                let group = Group {
                    key,
                    members: Vec::new(),
                    turn: 0,
                };
                self.groups.insert(id, group);
                id
            }
        };
        if let Some(group) = self.groups.get_mut(&id) {
            group.members.push(listener);
        }
        id
    }

    fn leave(&mut self, listener: u64) {
        let Some(place) = self.places.remove(&listener) else {
            return;
        };
        let mut over = Some(Target::Listener(listener));
        if let Some(id) = place.group {
            over = None;
            if let Some(group) = self.groups.get_mut(&id) {
                group.members.retain(|member| *member != listener);
                if group.members.is_empty() {
                    self.group_ids.remove(&group.key);
                    self.groups.remove(&id);
                    over = Some(Target::Group(id));
                }
            }
        }
        if let (Some(target), Some(space)) = (over, self.spaces.get_mut(&place.namespace)) {
            space.remove(&place.pattern, &target);
            if space.is_empty() {
                self.spaces.remove(&place.namespace);
            }
        }
        self.core.metrics.set_signal_listeners(self.places.len());
    }

    fn sweep(&mut self) {
        let gone = std::mem::take(&mut *self.bell.gone.lock());
        for listener in gone {
            self.leave(listener);
        }
    }

    fn send(&mut self, batch: Vec<Signal>) -> Vec<Arc<Listener>> {
        let mut outgoing: HashMap<u64, Vec<Sent>> = HashMap::new();
        let now = Instant::now();
        for signal in batch {
            let bytes = signal.message.encoded_len() as u64;
            let name = Arc::new(signal.name);
            let delivery = SignalDelivery {
                name: Arc::clone(&name),
                message: signal.message,
            };
            let mut deliveries = 0;
            if let Some(space) = self.spaces.get(name.namespace()) {
                let (groups, places) = (&mut self.groups, &self.places);
                space.for_each_match(name.text(), |target| {
                    let listener = match target {
                        Target::Listener(id) => Some(*id),
                        Target::Group(id) => {
                            groups.get_mut(id).and_then(|group| pick(group, places))
                        }
                    };
                    if let Some(listener) = listener {
                        deliveries += 1;
                        let sent = Sent {
                            delivery: delivery.clone(),
                            bytes,
                        };
                        outgoing.entry(listener).or_default().push(sent);
                    }
                });
            }
            self.names.note(&name, 1, deliveries, now);
        }
        self.push(outgoing)
    }

    fn push(&mut self, outgoing: HashMap<u64, Vec<Sent>>) -> Vec<Arc<Listener>> {
        let mut slow = Vec::new();
        for (id, signals) in outgoing {
            let Some(place) = self.places.get(&id) else {
                continue;
            };
            let bytes: u64 = signals
                .iter()
                .map(|sent| sent.delivery.message.body.len() as u64)
                .sum();
            let pushed = place.listener.push(signals);
            self.core
                .metrics
                .signals_sent(pushed.taken, bytes, pushed.dropped);
            if pushed.dropped > 0 {
                let pattern = place.pattern.as_str();
                tracing::debug!(
                    pattern,
                    dropped = pushed.dropped,
                    "signals dropped for a slow listener"
                );
            }
            if pushed.over {
                slow.push(Arc::clone(&place.listener));
            }
        }
        slow
    }

    fn listeners_of(&self, name: &Name) -> u64 {
        let mut count = 0;
        if let Some(space) = self.spaces.get(name.namespace()) {
            space.for_each_match(name.text(), |target| {
                count += match target {
                    Target::Listener(_) => 1,
                    Target::Group(id) => self
                        .groups
                        .get(id)
                        .map_or(0, |group| group.members.len() as u64),
                };
            });
        }
        count
    }
}

/// The next member in turn that keeps up; if none does, the next in turn.
fn pick(group: &mut Group, places: &HashMap<u64, Place>) -> Option<u64> {
    let count = group.members.len();
    let first = group.turn;
    let in_turn = (0..count).map(|step| (first + step) % count);
    let keeps_up = |place: &usize| {
        let member = places.get(&group.members[*place]);
        member.is_some_and(|place| place.listener.has_room())
    };
    let chosen = in_turn.clone().find(keeps_up).or(in_turn.clone().next())?;
    group.turn = (chosen + 1) % count;
    Some(group.members[chosen])
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
        let error = self.core.gone(what);
        for place in self.places.values() {
            place.listener.end(error.clone());
        }
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

impl Handler<Listen> for HubActor {
    type Result = Result<Arc<Listener>, BrokerError>;

    fn handle(&mut self, message: Listen, _: &mut Context<Self>) -> Self::Result {
        self.sweep();
        self.listen(message.0)
    }
}

impl Handler<ListNames> for HubActor {
    type Result = MessageResult<ListNames>;

    fn handle(&mut self, message: ListNames, _: &mut Context<Self>) -> Self::Result {
        self.sweep();
        let found = self.names.after(message.after.as_ref(), message.limit);
        let counted = found.into_iter().map(|(name, seen)| {
            let listeners = self.listeners_of(&name);
            (name, seen, listeners)
        });
        MessageResult(counted.collect())
    }
}

impl Handler<Stop> for HubActor {
    type Result = ();

    fn handle(&mut self, _: Stop, _: &mut Context<Self>) {
        self.closing = true;
        for place in self.places.values() {
            place.listener.end(BrokerError::ShuttingDown);
        }
    }
}
