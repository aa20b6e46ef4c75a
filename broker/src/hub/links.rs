//! A hub's way to every other node: what is to be told and sent there, and a task that does it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bincode::Encode;
use flotilla_model::ids::NodeId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::core::Core;
use crate::hub::buffer::{Bounds, Buffer, Weighed};
use crate::hub::interest::{Interest, Key};
use crate::hub::table::Told;
use crate::hub::talk;
use crate::peers::conversation::{Broken, Outgoing};
use crate::peers::wire::Opening;

/// How long a listener waits for the nodes that do not know of it yet, and a publisher for nodes whose
/// listeners are not known yet.
const CONFIRM_MAX: Duration = Duration::from_secs(1);

/// What a hub sends to other nodes, besides what is listened to.
pub(crate) trait Cargo: Weighed + Send + Sync + Sized + 'static {
    /// How frames begin.
    type Head: Encode + Send + Sync;
    /// For logs.
    const WHAT: &'static str;

    fn opening() -> Opening;
    fn links(core: &Core) -> &HubLinks<Self>;
    fn interest(anew: bool, entries: Vec<(Key, u32)>, version: Option<u64>) -> Self::Head;
    /// Sends a batch, in frames of bounded size.
    fn send(
        batch: Vec<Self>,
        outgoing: &Outgoing,
    ) -> impl Future<Output = Result<(), Broken>> + Send;
    /// A conversation ended: what was under way to the node may be lost.
    fn broken(core: &Arc<Core>, node: NodeId);
    /// Another node told of its interest.
    fn told(core: &Core, told: Told) -> impl Future<Output = Result<(), Broken>> + Send;
    /// The conversation ended in which another node told it.
    fn gone(core: &Core, node: NodeId, conversation: u64);
}

/// All links of a hub.
pub(crate) struct HubLinks<C> {
    pub(super) interest: Mutex<Interest>,
    /// The version of the interest.
    pub(super) version: watch::Sender<u64>,
    links: Mutex<BTreeMap<NodeId, Link<C>>>,
    /// Rung when a peer's knowledge or presence changed.
    news: watch::Sender<()>,
    bounds: Bounds,
}

struct Link<C> {
    outlet: Arc<Buffer<C>>,
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

impl<C> Link<C> {
    /// It may come to be heard, or to be known, at any moment.
    fn is_new(&self) -> bool {
        self.changed.elapsed() < CONFIRM_MAX
    }

    /// Nobody need wait for it.
    fn is_away(&self) -> bool {
        !self.is_up && !self.is_new()
    }
}

impl<C> Drop for Link<C> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<C: Cargo> HubLinks<C> {
    /// `bounds` are of what waits for one node.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            interest: Mutex::default(),
            version: watch::Sender::new(0),
            links: Mutex::default(),
            news: watch::Sender::new(()),
            bounds,
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
    pub fn outlet(&self, node: NodeId) -> Option<Arc<Buffer<C>>> {
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

    pub(super) fn told(&self, node: NodeId, version: Option<u64>) {
        self.with(node, |link| link.told = version);
    }

    fn with(&self, node: NodeId, change: impl FnOnce(&mut Link<C>)) {
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
        let is_known = |link: &Link<C>| link.known.is_some() || !link.is_new();
        self.wait(Instant::now() + CONFIRM_MAX, is_known).await;
    }

    async fn wait(&self, until: Instant, is_done: impl Fn(&Link<C>) -> bool) {
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
                let outlet = Arc::new(Buffer::new(self.bounds));
                let run = talk::run(Arc::downgrade(core), *node, Arc::clone(&outlet));
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
