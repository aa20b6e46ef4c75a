//! The links of one node: what it says to its peers, and who answers them here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_storage::GroupId;
use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tonic::Status;

use super::connection::{Connection, Dialer};
use super::doorway::STRANGERS_MAX;
use super::groups::{AttachedGroup, NODE_BYTES_MAX};
use super::identity::LocalIdentity;
use super::lane::Lane;
use super::line::Line;
use super::network::Network;
use super::peers::{PeerError, PeerIdentity, PeerService, Peers, ServiceId};
use super::server::Incoming;
use super::slot::Slot;
use super::talk::{Talk, late_frames};
use super::traffic::{LinkMetrics, Traffic};
use super::wire::CALL_BYTES_MAX;
use super::wire::proto::link_client::LinkClient;
use super::wire::proto::{CallRequest, Caller, TalkFrame};
use crate::pace::Pace;

/// What may be asked of one peer at a time: 64 MiB of questions, and 1,024 of them.
const CALLS_UNIT_BYTES: usize = 64 << 10;
const CALLS_UNITS: usize = 1_024;
/// Snapshots on their way in, and on their way out: each reads or writes a disk all the time.
const SNAPSHOTS_MAX: usize = 4;
/// Unless something else is said.
const SNAPSHOT_BYTES_PER_SECOND: u64 = 64 << 20;

/// Owns the connections of a node. Clones are handles of the same.
#[derive(Clone)]
pub(crate) struct Links {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub runtime: Handle,
    pub me: watch::Receiver<LocalIdentity>,
    dialer: Dialer,
    peers: RwLock<HashMap<NodeId, Arc<PeerLinks>>>,
    pub services: RwLock<HashMap<ServiceId, Arc<dyn PeerService>>>,
    /// Nodes with which nothing is exchanged.
    cut: RwLock<BTreeSet<NodeId>>,
    pub incoming: Mutex<Incoming>,
    pub groups: RwLock<HashMap<GroupId, AttachedGroup>>,
    /// Replicas of peers that have lost what they acknowledged: at most one for each group and peer.
    pub forgetful: Mutex<BTreeSet<(GroupId, NodeId)>>,
    /// Entry bytes received and not yet answered.
    pub entry_room: Arc<Semaphore>,
    /// Callers of no or another cluster that are being answered.
    pub strangers: Arc<Semaphore>,
    pub snapshots_in: Arc<Semaphore>,
    pub snapshots_out: Semaphore,
    pub snapshot_pace: Pace,
    pub traffic: Arc<Traffic>,
}

/// The lanes to one peer.
struct PeerLinks {
    address: String,
    lanes: [Arc<Slot>; Lane::COUNT],
    calls: Arc<Semaphore>,
    line: Mutex<Option<Arc<Line>>>,
    /// The newest version of the protocol that the peer speaks; 0 before it was heard.
    newest: AtomicU32,
}

impl Links {
    /// Connections are made through `network`, and served on `runtime`.
    pub fn new(
        runtime: Handle,
        network: Arc<dyn Network>,
        me: watch::Receiver<LocalIdentity>,
    ) -> Self {
        let traffic: Arc<Traffic> = Arc::default();
        let dialer = Dialer {
            runtime: runtime.clone(),
            me: me.clone(),
            network,
            traffic: traffic.clone(),
        };
        Self {
            inner: Arc::new(Inner {
                runtime,
                me,
                dialer,
                peers: RwLock::default(),
                services: RwLock::default(),
                cut: RwLock::default(),
                incoming: Mutex::default(),
                groups: RwLock::default(),
                forgetful: Mutex::default(),
                entry_room: Arc::new(Semaphore::new(NODE_BYTES_MAX)),
                strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
                snapshots_in: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
                snapshots_out: Semaphore::new(SNAPSHOTS_MAX),
                snapshot_pace: Pace::new(SNAPSHOT_BYTES_PER_SECOND),
                traffic,
            }),
        }
    }

    /// What went over the links since the start.
    pub fn metrics(&self) -> LinkMetrics {
        self.inner.traffic.metrics()
    }

    /// The handle for the floors above.
    pub fn peers(&self) -> Peers {
        Peers {
            links: self.clone(),
        }
    }

    /// What answers a kind of question here. Until then it is answered as if the node were not there.
    pub fn register(&self, service: ServiceId, answers: Arc<dyn PeerService>) {
        self.inner.services.write().insert(service, answers);
    }

    /// Where the nodes are, as `host:port`. A node that is not named has no link; the connections of one
    /// that moved are made anew.
    pub fn set_addresses(&self, addresses: BTreeMap<NodeId, String>) {
        let mut peers = self.inner.peers.write();
        peers.retain(|node, peer| {
            let stays = addresses.get(node) == Some(&peer.address);
            if !stays {
                peer.reset();
            }
            stays
        });
        for (node, address) in addresses {
            peers
                .entry(node)
                .or_insert_with(|| PeerLinks::new(address, &self.inner.dialer));
        }
    }

    /// The nodes that have addresses.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.inner.peers.read().keys().copied().collect()
    }

    /// Exchanges nothing with a node any more, or again.
    pub fn cut(&self, node: NodeId, is_cut: bool) {
        if !is_cut {
            self.inner.cut.write().remove(&node);
            return;
        }
        self.inner.cut.write().insert(node);
        if let Some(peer) = self.inner.peers.read().get(&node) {
            peer.reset();
        }
        self.inner.incoming.lock().cut(node);
    }

    /// A node was heard: failed attempts to reach it say nothing any more.
    pub fn hurry(&self, node: NodeId) {
        if let Some(peer) = self.inner.peers.read().get(&node) {
            peer.lanes.iter().for_each(|slot| slot.hurry());
        }
    }

    pub(super) fn is_cut(&self, node: NodeId) -> bool {
        self.inner.cut.read().contains(&node)
    }

    /// Ends all connections and forgets who answers. What is asked later finds nobody.
    pub fn close(&self) {
        self.set_addresses(BTreeMap::new());
        self.inner.services.write().clear();
        self.inner.groups.write().clear();
        self.inner.incoming.lock().cut_all();
    }

    /// Asks whoever is at an address, before ids are known.
    pub async fn call_address(
        &self,
        address: &str,
        service: ServiceId,
        request: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let asked = async {
            let dialer = &self.inner.dialer;
            let connection = dialer.open(address, Lane::Control).await.map_err(|error| {
                PeerError::unreachable(format!("{address}: {}", crate::error::chain(&error)))
            })?;
            self.ask(connection.client(), NodeId(0), service, request)
                .await
        };
        within(timeout, asked).await
    }

    pub(super) async fn call(
        &self,
        to: NodeId,
        lane: Lane,
        service: ServiceId,
        request: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let asked = async {
            let peer = self.peer(to)?;
            let units = (request.len() / CALLS_UNIT_BYTES + 1).min(CALLS_UNITS) as u32;
            let _place = peer.calls.acquire_many(units).await;
            let client = self.connection(to, lane).await?.client();
            self.ask(client, to, service, request).await
        };
        within(timeout, asked).await
    }

    async fn ask(
        &self,
        mut client: LinkClient<Connection>,
        to: NodeId,
        service: ServiceId,
        body: Bytes,
    ) -> Result<Bytes, PeerError> {
        if body.len() > CALL_BYTES_MAX {
            return Err(PeerError::Refused {
                reason: format!(
                    "a question of {} bytes is above the limit of {CALL_BYTES_MAX}",
                    body.len()
                ),
            });
        }
        let request = CallRequest {
            caller: Some(self.caller(to)),
            service: u32::from(service.0),
            body,
        };
        let answer = client.call(request).await?.into_inner();
        match answer.refusal {
            Some(reason) => Err(PeerError::Refused { reason }),
            None => Ok(answer.body),
        }
    }

    pub(super) async fn talk(
        &self,
        to: NodeId,
        lane: Lane,
        service: ServiceId,
    ) -> Result<Talk, PeerError> {
        let mut client = self.connection(to, lane).await?.client();
        let opener = TalkFrame {
            caller: Some(self.caller(to)),
            service: u32::from(service.0),
            body: Bytes::new(),
        };
        // What comes from the other side is known only once the request, which holds what goes there,
        // was sent.
        let (incoming, frames) = tokio::sync::oneshot::channel();
        let (talk, outgoing) = Talk::over(late_frames(frames));
        let request = futures::stream::once(async move { opener }).chain(outgoing);
        let response = client.talk(request).await?.into_inner();
        let frames = response.map(|frame| Ok(frame?.body)).boxed();
        // The receiver is in `talk`.
        let _ = incoming.send(frames);
        Ok(talk)
    }

    pub(super) fn caller(&self, to: NodeId) -> Caller {
        let peers = self.inner.peers.read();
        let newest = peers.get(&to).and_then(|peer| peer.newest());
        self.inner.me.borrow().caller(to, newest)
    }

    fn peer(&self, node: NodeId) -> Result<Arc<PeerLinks>, PeerError> {
        if self.is_cut(node) {
            return Err(PeerError::unreachable(format!("node {node} is cut off")));
        }
        let peer = self.inner.peers.read().get(&node).cloned();
        peer.ok_or_else(|| PeerError::unreachable(format!("node {node} has no known address")))
    }

    /// The connection of a lane to a peer.
    pub(super) async fn connection(
        &self,
        node: NodeId,
        lane: Lane,
    ) -> Result<Connection, PeerError> {
        let peer = self.peer(node)?;
        let slot = &peer.lanes[lane.number()];
        slot.connection(&peer.address).await
    }

    /// The line to a peer's groups.
    pub(super) async fn line(&self, node: NodeId) -> Result<Arc<Line>, PeerError> {
        let peer = self.peer(node)?;
        let open = |line: &&Arc<Line>| !line.is_closed();
        if let Some(line) = peer.line.lock().as_ref().filter(open) {
            return Ok(line.clone());
        }
        let connection = self.connection(node, Lane::Control).await?;
        let mut present = peer.line.lock();
        // Another question may have opened it meanwhile.
        if let Some(line) = present.as_ref().filter(open) {
            return Ok(line.clone());
        }
        let line = Line::open(&self.inner.runtime, &connection, self.caller(node));
        *present = Some(line.clone());
        Ok(line)
    }

    /// Who asks, if this node listens to it.
    pub(super) fn admit(
        &self,
        caller: Option<Caller>,
        service: Option<ServiceId>,
    ) -> Result<PeerIdentity, Status> {
        let newest = caller.as_ref().map_or(0, |caller| {
            // Builds of before do not say it, and have one version only.
            caller.version_newest.max(caller.version)
        });
        let peer = self.inner.me.borrow().admit(caller, service)?;
        if let Some(links) = self.inner.peers.read().get(&peer.node) {
            links.newest.store(newest, Ordering::Relaxed);
        }
        // A node that was removed may ask why nobody talks to it.
        if service != Some(ServiceId::FORMING) && self.is_cut(peer.node) {
            return Err(Status::unavailable(format!(
                "node {} is cut off from this one",
                peer.node
            )));
        }
        Ok(peer)
    }
}

impl PeerLinks {
    fn new(address: String, dialer: &Dialer) -> Arc<Self> {
        Arc::new(Self {
            address,
            lanes: [Lane::Control, Lane::Append, Lane::Bulk].map(|lane| Slot::new(lane, dialer)),
            calls: Arc::new(Semaphore::new(CALLS_UNITS)),
            line: Mutex::new(None),
            newest: AtomicU32::new(0),
        })
    }

    fn newest(&self) -> Option<u32> {
        Some(self.newest.load(Ordering::Relaxed)).filter(|newest| *newest > 0)
    }

    fn reset(&self) {
        self.line.lock().take();
        for slot in &self.lanes {
            slot.reset();
        }
    }
}

async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, PeerError>>,
) -> Result<T, PeerError> {
    tokio::time::timeout(timeout, work)
        .await
        .unwrap_or(Err(PeerError::Timeout))
}
