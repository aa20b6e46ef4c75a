//! The hub's way to every other node: what is to be told and sent there, and a task that does it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use flotilla_model::ids::NodeId;
use flotilla_model::message::Message;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::core::Core;
use crate::hub::interest::{Changes, Interest, Key};
use crate::hub::listener::{Bounds, Listener, Sent};
use crate::peers::conversation::{Broken, Incoming, Outgoing};
use crate::peers::wire::{HubKnows, Opening, ToHub, WireSignal};

/// How long a listener waits for the nodes that do not know of it yet, and a publisher for nodes whose
/// listeners are not known yet.
const CONFIRM_MAX: Duration = Duration::from_secs(1);
/// Between attempts to reach a node.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of one frame, about.
const FRAME_BYTES: usize = 256 * 1024;
/// Signals that may be on their way to another node before publishers wait.
const AWAY_MESSAGES_SOFT: usize = 1_024;

/// All links of the hub.
pub(crate) struct HubLinks {
    interest: Mutex<Interest>,
    /// The version of the interest.
    version: watch::Sender<u64>,
    links: Mutex<BTreeMap<NodeId, Link>>,
    /// Rung when a peer's knowledge or presence changed.
    news: watch::Sender<()>,
    bounds: Bounds,
}

struct Link {
    outlet: Arc<Listener>,
    /// The version of our interest that it knows.
    told: Option<u64>,
    /// The conversation that its own interest is known from, as long as that goes on.
    known: Option<u64>,
    /// It is there, as far as the cluster knows.
    is_up: bool,
    /// When that was found out last, or when the node was first heard of.
    changed: Instant,
    task: JoinHandle<()>,
}

impl Link {
    /// It may come to be heard, or to be known, at any moment.
    fn is_new(&self) -> bool {
        self.changed.elapsed() < CONFIRM_MAX
    }

    /// Nobody need wait for it.
    fn is_away(&self) -> bool {
        !self.is_up && !self.is_new()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HubLinks {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            interest: Mutex::default(),
            version: watch::Sender::new(0),
            links: Mutex::default(),
            news: watch::Sender::new(()),
            bounds: Bounds {
                messages_soft: bounds.messages_soft.max(AWAY_MESSAGES_SOFT),
                messages_max: bounds.messages_max.max(AWAY_MESSAGES_SOFT),
                ..bounds
            },
        }
    }

    /// Changes what this node listens to, and has it told to all peers.
    pub fn change<T>(&self, change: impl FnOnce(&mut Interest) -> T) -> T {
        let (changed, version) = {
            let mut interest = self.interest.lock();
            (change(&mut interest), interest.version())
        };
        self.version.send_replace(version);
        changed
    }

    /// What waits for a node.
    pub fn outlet(&self, node: NodeId) -> Option<Arc<Listener>> {
        let links = self.links.lock();
        links.get(&node).map(|link| Arc::clone(&link.outlet))
    }

    /// The interest of a node is known here, from a conversation that goes on.
    pub fn know(&self, node: NodeId, conversation: u64) {
        self.with(node, |link| link.known = Some(conversation));
    }

    /// A conversation ended: what it told counts no more.
    pub fn forget(&self, node: NodeId, conversation: u64) {
        self.with(node, |link| {
            link.known = link.known.filter(|known| *known != conversation)
        });
    }

    /// The nodes that are up, as far as is known.
    pub fn reachable(&self) -> Vec<NodeId> {
        let links = self.links.lock();
        let up = links.iter().filter(|(_, link)| link.is_up);
        up.map(|(node, _)| *node).collect()
    }

    fn told(&self, node: NodeId, version: Option<u64>) {
        self.with(node, |link| link.told = version);
    }

    fn with(&self, node: NodeId, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.lock().get_mut(&node) {
            change(link);
        }
        self.news.send_replace(());
    }

    /// Waits until every node that can be reached knows the interest up to a version, for a short time.
    pub async fn confirm(&self, version: u64) {
        self.wait(Instant::now() + CONFIRM_MAX, |link| {
            link.is_away() || link.told.is_some_and(|told| told >= version)
        })
        .await;
    }

    /// Waits until the listeners of every node that came lately are known, for a short time.
    pub async fn all_known(&self) {
        let is_known = |link: &Link| link.known.is_some() || !link.is_new();
        self.wait(Instant::now() + CONFIRM_MAX, is_known).await;
    }

    async fn wait(&self, until: Instant, is_done: impl Fn(&Link) -> bool) {
        if self.links.lock().values().all(&is_done) {
            return;
        }
        let mut news = self.news.subscribe();
        loop {
            news.borrow_and_update();
            if self.links.lock().values().all(&is_done) {
                return;
            }
            // An error means that the time is over; the sender is in `self`.
            if tokio::time::timeout_at(until.into(), news.changed())
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Takes in which other nodes there are, and which of them are up.
    pub fn set_nodes(&self, core: &Arc<Core>, nodes: &BTreeMap<NodeId, bool>) {
        let mut links = self.links.lock();
        links.retain(|node, _| nodes.contains_key(node));
        for (node, is_up) in nodes {
            let link = links.entry(*node).or_insert_with(|| {
                let outlet = Arc::new(Listener::new(0, self.bounds, Arc::default()));
                let run = run(Arc::downgrade(core), *node, Arc::clone(&outlet));
                Link {
                    outlet,
                    told: None,
                    known: None,
                    is_up: *is_up,
                    changed: Instant::now(),
                    task: core.runtime.spawn(run),
                }
            });
            if !link.is_up && *is_up {
                link.changed = Instant::now();
            }
            link.is_up = *is_up;
        }
        drop(links);
        self.news.send_replace(());
    }
}

/// Keeps a conversation with a node, as long as there is the broker.
async fn run(core: Weak<Core>, node: NodeId, outlet: Arc<Listener>) {
    loop {
        let Some(core) = core.upgrade().filter(|core| !core.is_closing()) else {
            return;
        };
        let talking = async {
            let (outgoing, incoming) = core.converse(node, &Opening::Hub).await?;
            converse(&core, node, &outlet, outgoing, incoming).await
        };
        let ended = tokio::select! {
            ended = talking => ended,
            () = core.until_closing() => return,
        };
        core.hubs.told(node, None);
        if let Err(broken) = ended {
            tracing::debug!(%node, %broken, "signals do not reach a node");
        }
        drop(core);
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn converse(
    core: &Core,
    node: NodeId,
    outlet: &Listener,
    outgoing: Outgoing,
    mut incoming: Incoming,
) -> Result<(), Broken> {
    let hearing = async {
        loop {
            let (HubKnows { version }, _) = incoming.next::<HubKnows>().await?;
            core.hubs.told(node, Some(version));
        }
    };
    tokio::select! {
        ended = hearing => ended,
        ended = say(&core.hubs, outlet, &outgoing) => ended,
    }
}

async fn say(hubs: &HubLinks, outlet: &Listener, outgoing: &Outgoing) -> Result<(), Broken> {
    let mut versions = hubs.version.subscribe();
    let mut told = None;
    loop {
        versions.borrow_and_update();
        let changes = hubs.interest.lock().changes_since(told);
        if told != Some(changes.version) {
            told = Some(changes.version);
            tell(changes, outgoing).await?;
        }
        tokio::select! {
            changed = versions.changed() => changed.map_err(|_| Broken::Ended)?,
            signals = outlet.take_sent() => {
                send(signals.map_err(|_| Broken::Ended)?, outgoing).await?;
            }
        }
    }
}

/// Tells changes of interest, in frames of bounded size.
async fn tell(changes: Changes, outgoing: &Outgoing) -> Result<(), Broken> {
    let mut anew = changes.anew;
    let mut entries = changes.entries.into_iter().peekable();
    loop {
        let mut bytes = 0;
        let mut part: Vec<(Key, u32)> = Vec::new();
        while bytes < FRAME_BYTES
            && let Some((key, count)) = entries.next()
        {
            bytes +=
                key.pattern.len() + key.namespace.len() + key.group.as_ref().map_or(0, String::len);
            part.push((key, count));
        }
        let is_last = entries.peek().is_none();
        let head = ToHub::Interest {
            anew: std::mem::take(&mut anew),
            entries: part,
            version: is_last.then_some(changes.version),
        };
        outgoing.send(&head).await?;
        if is_last {
            return Ok(());
        }
    }
}

async fn send(signals: Vec<Sent>, outgoing: &Outgoing) -> Result<(), Broken> {
    let mut rest = signals.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|sent| {
            let first = bytes == 0;
            bytes += sent.bytes as usize;
            first || bytes <= FRAME_BYTES
        });
        let (batch, later) = rest.split_at(fits.count());
        rest = later;
        let heads = batch.iter().map(|sent| WireSignal {
            name: sent.delivery.name.as_ref().clone(),
            to_all: sent.away.as_ref().is_some_and(|away| away.to_all),
            groups: sent
                .away
                .iter()
                .flat_map(|away| &away.groups)
                .map(|key| key.as_ref().clone())
                .collect(),
            bytes: sent.bytes as u32,
        });
        let head = ToHub::Signals(heads.collect());
        let messages: Vec<&Message> = batch
            .iter()
            .map(|sent| sent.delivery.message.as_ref())
            .collect();
        let message_bytes = batch.iter().map(|sent| sent.bytes as usize).sum();
        outgoing.send_with(&head, messages, message_bytes).await?;
    }
    Ok(())
}
