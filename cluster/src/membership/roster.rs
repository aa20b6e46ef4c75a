//! What this node knows of the cluster's nodes and placements, kept up to date.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::command::Command;
use flotilla_model::ids::{NodeId, ShardId};
use flotilla_model::metadata::NodeState;
use flotilla_model::outcome::{Change, Outcome};
use flotilla_model::query::{self, ClusterRecord, MetadataView, NodeRecord};
use tokio::sync::{Notify, watch};

use super::nodes::{ClusterNode, describe};
use crate::error::{ClusterError, chain};
use crate::forming::PlannedNode;
use crate::group::Group;
use crate::net::Links;
use crate::observer::{Observer, Role};
use crate::presence::Board;
use crate::replica::AppliedMark;
use crate::types::Peer;

/// A snapshot changes the records without a word, and silence makes no sound.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// For this node's word about itself.
const REGISTER_DEADLINE: Duration = Duration::from_secs(10);
/// For the first records.
const COMPLETE_WAIT: Duration = Duration::from_secs(5);
/// After it was not heard.
const REGISTER_PAUSE: Duration = Duration::from_secs(2);

/// The metadata as this node has it: on a node that is cut off, as it was before.
pub(crate) struct Roster {
    /// Metadata first, then the shards.
    pub groups: Vec<Arc<Group>>,
    pub links: Links,
    pub board: Arc<Board>,
    /// How this node is presented.
    pub me: PlannedNode,
    /// Where peers are as long as no metadata tells.
    addresses: BTreeMap<NodeId, String>,
    view: watch::Sender<Arc<MetadataView>>,
    nodes: watch::Sender<Arc<[ClusterNode]>>,
    changed: Notify,
}

impl Roster {
    pub fn new(
        groups: Vec<Arc<Group>>,
        links: Links,
        board: Arc<Board>,
        me: PlannedNode,
        addresses: BTreeMap<NodeId, String>,
    ) -> Arc<Self> {
        Arc::new(Self {
            groups,
            links,
            board,
            me,
            addresses,
            view: watch::Sender::new(Arc::new(unknown())),
            nodes: watch::Sender::new(Arc::new([])),
            changed: Notify::new(),
        })
    }

    pub fn view(&self) -> Arc<MetadataView> {
        self.view.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<Arc<MetadataView>> {
        self.view.subscribe()
    }

    pub fn nodes(&self) -> watch::Receiver<Arc<[ClusterNode]>> {
        self.nodes.subscribe()
    }

    pub fn metadata(&self) -> &Arc<Group> {
        // There is no node without it.
        &self.groups[0]
    }

    pub fn shard_count(&self) -> usize {
        self.groups.len() - 1
    }

    /// Whether every shard has a place: then all nodes that the cluster was formed of are recorded, too.
    pub fn is_complete(&self) -> bool {
        self.view().placements.len() >= self.shard_count()
    }

    /// Waits for the first records of a new cluster, not for ever: they need a leader.
    pub async fn wait_until_complete(&self) {
        let mut view = self.watch();
        let shards = self.shard_count();
        let complete = view.wait_for(|view| view.placements.len() >= shards);
        if tokio::time::timeout(COMPLETE_WAIT, complete).await.is_err() {
            tracing::warn!("the places of the shards are not known yet, starting all the same");
        }
    }

    /// A node that may still take part.
    pub fn node(&self, node: NodeId) -> Option<NodeRecord> {
        let view = self.view();
        let found = view.nodes.iter().find(|record| record.id == node);
        found
            .filter(|record| record.state != NodeState::Removed)
            .cloned()
    }

    pub fn peer(&self, node: NodeId) -> Option<Peer> {
        self.node(node).map(|record| Peer {
            name: record.name,
            address: record.address,
        })
    }

    /// Who is to hold a shard, the preferred leader first.
    pub fn replicas(&self, shard: ShardId) -> Option<Vec<NodeId>> {
        let view = self.view();
        let found = view.placements.iter().find(|place| place.shard == shard);
        found.map(|place| place.replicas.clone())
    }

    /// Runs one metadata command, wherever group 0 is led.
    pub async fn command(
        &self,
        command: Command,
        deadline: Instant,
    ) -> Result<Outcome, ClusterError> {
        let outcomes = self
            .metadata()
            .shard
            .propose(vec![command], Vec::new(), deadline)
            .await?;
        match outcomes.first() {
            Some(Outcome::Refused(refusal)) => Err(ClusterError::Refused {
                reason: refusal.to_string(),
            }),
            Some(outcome) => Ok(outcome.clone()),
            None => Err(ClusterError::OutcomeUnknown {
                reason: "the entry was applied without an outcome".to_owned(),
            }),
        }
    }

    /// Takes what is applied here.
    pub async fn refresh(&self) -> Result<(), ClusterError> {
        let view = self.metadata().replica.read(query::metadata).await?;
        self.take(view);
        Ok(())
    }

    /// Follows the metadata. To be aborted with the node.
    pub async fn run(self: Arc<Self>) {
        self.metadata()
            .replica
            .watch(Arc::new(Ear(Arc::downgrade(&self))));
        let mut seen = AppliedMark::default();
        let mut registered_at: Option<Instant> = None;
        loop {
            let applied = self.metadata().replica.progress.lock().applied.clone();
            if applied != seen || self.view().cluster.version == 0 {
                match self.refresh().await {
                    Ok(()) => seen = applied,
                    Err(error) => tracing::warn!(%error, "the metadata could not be read"),
                }
            }
            self.describe_nodes();
            let may_register = registered_at.is_none_or(|at| at.elapsed() >= REGISTER_PAUSE);
            if may_register && self.is_outdated() {
                registered_at = Some(Instant::now());
                let roster = self.clone();
                // Aside: what it tells may come with the next change of the metadata.
                tokio::spawn(async move { roster.register().await });
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(LOOK_PERIOD) => {}
            }
        }
    }

    fn take(&self, view: MetadataView) {
        // The nodes of a new cluster are recorded one by one, and each record needs a quorum: until all
        // are there, the plan tells where the others are.
        let mut addresses = match view.placements.len() >= self.shard_count() {
            true => BTreeMap::new(),
            false => self.addresses.clone(),
        };
        let present = view
            .nodes
            .iter()
            .filter(|node| node.state != NodeState::Removed && !node.address.is_empty());
        addresses.extend(present.map(|node| (node.id, node.address.clone())));
        self.links.set_addresses(addresses);
        for node in &view.nodes {
            if node.state == NodeState::Removed && node.id != self.board.node {
                // It may not know yet, and goes on as if it belonged to the cluster.
                self.links.cut(node.id, true);
            }
        }
        self.view.send_if_modified(|known| {
            let is_news = **known != view;
            if is_news {
                *known = Arc::new(view);
            }
            is_news
        });
    }

    fn describe_nodes(&self) {
        let nodes = describe(self);
        self.nodes.send_if_modified(|known| {
            let is_news = **known != *nodes;
            if is_news {
                *known = nodes.into();
            }
            is_news
        });
    }

    /// Whether what the cluster knows of this node is not what it is.
    fn is_outdated(&self) -> bool {
        let view = self.view();
        let own = view.nodes.iter().find(|node| node.disk == self.me.disk);
        own.is_some_and(|node| {
            let present = (&node.name, &node.address, &node.zone);
            node.state == NodeState::Gone
                || node.feature_level_max != self.me.feature_level_max
                || present != (&self.me.name, &self.me.address, &self.me.zone)
        })
    }

    async fn register(&self) {
        let deadline = Instant::now() + REGISTER_DEADLINE;
        let command = registration(&self.me, None);
        if let Err(error) = self.command(command, deadline).await {
            let error = chain(&error);
            tracing::warn!(error, "this node's address could not be recorded yet");
        }
    }
}

/// Before anything was read.
fn unknown() -> MetadataView {
    MetadataView {
        cluster: ClusterRecord {
            shard_count: 0,
            replicas: 0,
            feature_level: 0,
            next_node_id: NodeId(0),
            version: 0,
        },
        nodes: Vec::new(),
        placements: Vec::new(),
    }
}

/// The command that makes a node known.
pub(super) fn registration(node: &PlannedNode, wanted: Option<NodeId>) -> Command {
    Command::RegisterNode {
        disk: node.disk,
        name: node.name.clone(),
        address: node.address.clone(),
        zone: node.zone.clone(),
        feature_level_max: node.feature_level_max,
        wanted,
    }
}

/// Hears of changes. The group that tells it lives longer than the roster.
struct Ear(std::sync::Weak<Roster>);

impl Observer for Ear {
    fn applied(&self, _shard: ShardId, changes: &[Change]) {
        let is_metadata = |change: &Change| matches!(change, Change::Metadata);
        if let Some(roster) = self.0.upgrade()
            && changes.iter().any(is_metadata)
        {
            roster.changed.notify_one();
        }
    }

    fn role(&self, _shard: ShardId, _role: Role) {}
}
