//! Looks for damage of this node's replicas, and makes those that are damaged anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flotilla_model::ids::NodeId;
use flotilla_storage::{GroupId, LogHealth, NodeLog, StorageError};
use tokio::sync::Mutex;

use super::fetch::fetch;
use super::message::{Opening, Words, broken, reason_of};
use super::report::MendingMetrics;
use crate::error::ClusterError;
use crate::group::Group;
use crate::net::{Lane, Links, ServiceId};
use crate::observer::Role;
use crate::replica::Counters;

/// How often this node looks for damage that was found since.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// After an attempt that failed, longer each time.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// For another node to take over.
const HAND_OVER_WAIT: Duration = Duration::from_secs(5);

/// Counts of a node.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub compared: AtomicU64,
    pub compared_last_s: AtomicU64,
    pub found_damaged: AtomicU64,
    pub found_differing: AtomicU64,
    pub mended: AtomicU64,
    pub mending_failed: AtomicU64,
}

pub(crate) struct Mender {
    pub(super) groups: Vec<Arc<Group>>,
    pub(super) links: Links,
    pub(super) log: NodeLog,
    pub(super) own: NodeId,
    pub(super) counts: Counts,
    /// Which replicas of other nodes are being told that they have lost something.
    telling: parking_lot::Mutex<BTreeSet<(GroupId, NodeId)>>,
    /// One replica at a time: each is fetched whole. Holds when each was last made anew.
    turn: Mutex<BTreeMap<GroupId, Instant>>,
}

/// Why a replica is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Damage was found in it: nothing is to be done if somebody did so meanwhile.
    Damage,
    /// It is not what the others are.
    Difference,
    /// It lacks what it acknowledged to its leader, and nothing here tells of it.
    Loss,
}

/// How badly a replica is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// Bytes that were stored once cannot be read.
    Bytes,
    /// Votes or entries may be lost, or the state is.
    Word,
}

impl Mender {
    pub fn new(groups: Vec<Arc<Group>>, links: Links, log: NodeLog, own: NodeId) -> Arc<Self> {
        Arc::new(Self {
            groups,
            links,
            log,
            own,
            counts: Counts::default(),
            telling: parking_lot::Mutex::default(),
            turn: Mutex::default(),
        })
    }

    /// Mends what is found damaged, as long as the node runs.
    pub async fn run(self: Arc<Self>) {
        let mut waits: BTreeMap<GroupId, (Instant, Duration)> = BTreeMap::new();
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            self.clone().tell_of_losses();
            if self.log.health() != LogHealth::Healthy {
                continue;
            }
            for group in self.damaged() {
                let now = Instant::now();
                let waiting = waits.get(&group).copied();
                if waiting.is_some_and(|(until, _)| now < until) {
                    continue;
                }
                let mended = self.mend(group, None, Cause::Damage).await;
                if mended.is_ok() && self.damage_of(group).is_none() {
                    waits.remove(&group);
                } else {
                    let pause = waiting.map_or(PAUSE_MIN, |(_, pause)| (pause * 2).min(PAUSE_MAX));
                    waits.insert(group, (Instant::now() + pause, pause));
                }
            }
        }
    }

    /// The groups that are damaged here and could be mended from other nodes.
    fn damaged(&self) -> Vec<GroupId> {
        let mut groups: Vec<GroupId> = self.damage().into_keys().collect();
        groups.retain(|group| self.has_others(*group));
        groups
    }

    /// What is damaged here.
    fn damage(&self) -> BTreeMap<GroupId, Damage> {
        // Of a log that is closed nothing is known, and nothing can be mended.
        let hit = self.log.damaged_groups().unwrap_or_default();
        let groups = self.groups.iter().map(|group| group.replica.group);
        // Nothing that is missing of a group that was given up is missed.
        let groups = groups.filter(|group| !matches!(self.log.is_vacated(*group), Ok(Some(_))));
        let damage = groups.filter_map(|group| {
            let damage = match self.log.group_state(group) {
                Ok(state) if state.suspect => Some(Damage::Word),
                Err(StorageError::StateLost { .. }) => Some(Damage::Word),
                _ => hit.contains(&group).then_some(Damage::Bytes),
            };
            Some((group, damage?))
        });
        damage.collect()
    }

    fn damage_of(&self, group: GroupId) -> Option<Damage> {
        self.damage().get(&group).copied()
    }

    /// Whether another node is a voter of the group, as far as that can be known here.
    fn has_others(&self, group: GroupId) -> bool {
        let replica = &self.groups[group.0 as usize].replica;
        let voters = replica.voters();
        let leader = *replica.leader.borrow();
        voters
            .into_iter()
            .chain(leader)
            .any(|node| node != self.own)
    }

    /// Tells other nodes which of their replicas have lost what they acknowledged to this one.
    fn tell_of_losses(self: Arc<Self>) {
        for (group, node) in self.links.take_forgetful() {
            // One that was not told says again that it lacks entries.
            if !self.telling.lock().insert((group, node)) {
                continue;
            }
            let mender = self.clone();
            tokio::spawn(async move {
                if let Err(error) = mender.tell_of_loss(group, node).await {
                    tracing::warn!(group = group.0, %node, reason = reason_of(&error),
                        "a replica that has lost entries was not made anew");
                }
                mender.telling.lock().remove(&(group, node));
            });
        }
    }

    async fn tell_of_loss(&self, group: GroupId, node: NodeId) -> Result<(), ClusterError> {
        let peers = self.links.peers();
        let talk = peers.talk(node, Lane::Bulk, ServiceId::REPLICAS).await;
        let mut words = Words::from(talk.map_err(broken)?);
        words.have_mended(&Opening::Lost { group: group.0 }).await
    }

    /// Makes the replica of a group anew from another node, one of these if they are named.
    pub async fn mend(
        &self,
        number: GroupId,
        from: Option<&[NodeId]>,
        cause: Cause,
    ) -> Result<(), ClusterError> {
        let asked = Instant::now();
        let mut turn = self.turn.lock().await;
        let was_mended = turn
            .get(&number)
            .is_some_and(|mended| *mended + PAUSE_MIN > asked);
        if cause != Cause::Difference && was_mended && self.damage_of(number).is_none() {
            return Ok(());
        }
        let begin = Instant::now();
        let outcome = self.try_mend(number, from, cause).await;
        match &outcome {
            Ok(from) => {
                turn.insert(number, Instant::now());
                self.counts.mended.fetch_add(1, Ordering::Relaxed);
                let elapsed_ms = begin.elapsed().as_millis() as u64;
                tracing::warn!(group = number.0, %from, elapsed_ms, "a damaged replica was made anew");
            }
            Err(error) => {
                self.counts.mending_failed.fetch_add(1, Ordering::Relaxed);
                let reason = reason_of(error);
                tracing::warn!(
                    group = number.0,
                    reason,
                    "a damaged replica could not be made anew yet"
                );
            }
        }
        outcome.map(|_| ())
    }

    async fn try_mend(
        &self,
        number: GroupId,
        from: Option<&[NodeId]>,
        cause: Cause,
    ) -> Result<NodeId, ClusterError> {
        let group = self
            .groups
            .get(number.0 as usize)
            .ok_or_else(|| broken("there is no such group"))?;
        if !self.has_others(number) {
            return Err(broken("no other node holds the group"));
        }
        let must_lead = cause == Cause::Loss
            || self.damage_of(number) == Some(Damage::Word)
            || group.replica.failure().is_some()
            || group.is_vacant()?;
        let mut last_run = None;
        let mut was_running = false;
        if must_lead {
            self.give_up_leadership(group, None).await?;
            // Before the leader is asked: it is not to be confirmed by this node.
            let stopped = group.stop().await;
            last_run = Some(stopped.run);
            was_running = stopped.was_running;
        }
        let mut failure = broken("no leader is known");
        let mut sources = self.sources(group, must_lead);
        sources.retain(|node| from.is_none_or(|from| from.contains(node)));
        for from in sources {
            match fetch(&self.links, from, group, must_lead).await {
                Ok(fetched) => {
                    // Not sooner: while nobody has what is damaged here, the others may be no better leaders.
                    self.give_up_leadership(group, Some(from)).await?;
                    group.rebuild(fetched, last_run).await?;
                    return Ok(from);
                }
                Err(error) => failure = error,
            }
        }
        if was_running {
            group.restart().await?;
        }
        Err(failure)
    }

    /// Whom to ask: the leader first, and only it if it must be.
    fn sources(&self, group: &Group, must_lead: bool) -> Vec<NodeId> {
        let leader = *group.replica.leader.borrow();
        let mut sources: Vec<NodeId> = leader.into_iter().collect();
        if !must_lead {
            let voters = group.replica.voters().into_iter();
            sources.extend(voters.filter(|node| Some(*node) != leader));
        }
        sources.retain(|node| *node != self.own);
        sources
    }

    /// Lets another node lead: this one, if it can.
    async fn give_up_leadership(
        &self,
        group: &Group,
        to: Option<NodeId>,
    ) -> Result<(), ClusterError> {
        let deadline = Instant::now() + HAND_OVER_WAIT;
        let leads = *group.replica.role.borrow() == Role::Leader;
        if let Some(to) = to
            && leads
            && let Err(error) = group.transfer_to(to, deadline).await
        {
            tracing::debug!(group = group.replica.group.0, %to, %error, "another node is to lead");
        }
        group.hand_over(deadline).await;
        match *group.replica.role.borrow() {
            Role::Leader => Err(broken("no other node takes over the leadership")),
            _ => Ok(()),
        }
    }

    /// Brings the state of a group here that was given up.
    pub async fn fill(&self, number: GroupId) -> Result<(), ClusterError> {
        let _turn = self.turn.lock().await;
        let begin = Instant::now();
        let from = self.try_mend(number, None, Cause::Difference).await?;
        let elapsed_ms = begin.elapsed().as_millis() as u64;
        tracing::info!(group = number.0, %from, elapsed_ms, "a replica that was given up is back");
        Ok(())
    }

    /// Keeps this node from mending.
    pub async fn hold(&self) -> tokio::sync::MutexGuard<'_, BTreeMap<GroupId, Instant>> {
        self.turn.lock().await
    }

    /// The numbers of the node.
    pub fn metrics(&self) -> MendingMetrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let read = self.groups.iter().map(|group| {
            let counters: &Counters = &group.replica.counters;
            load(&counters.read_elsewhere)
        });
        MendingMetrics {
            compared: load(&self.counts.compared),
            compared_last_s: load(&self.counts.compared_last_s),
            found_damaged: load(&self.counts.found_damaged),
            found_differing: load(&self.counts.found_differing),
            mended: load(&self.counts.mended),
            mending_failed: load(&self.counts.mending_failed),
            damaged: self.damage().len() as u64,
            read_elsewhere: read.sum(),
        }
    }
}
