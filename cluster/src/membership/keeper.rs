//! Brings the members of the groups that this node leads where the metadata wants them, then the lead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::ids::NodeId;
use flotilla_raft::Raft;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::task::JoinHandle;

use super::change::{Present, Step, Wanted, next_step};
use super::chores::Chores;
use super::roster::Roster;
use super::steward::holders;
use super::voters;
use crate::error::ClusterError;
use crate::group::{Group, unavailable};
use crate::presence::OFFSET_MAX_US;

/// Between looks at the groups.
const PERIOD: Duration = Duration::from_millis(300);
/// For one change of members: it is looked at again afterwards, so that giving up costs nothing.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Entries that a new voter may still have to fetch: writes wait for it from then on.
const BEHIND_MAX: u64 = 32;
/// The lead moves this seldom, so that a node that came back is not hit by all of its shards at once.
const BALANCE_PERIOD: Duration = Duration::from_secs(1);
/// And no sooner after the last change: the preferred leader may be about to fail again.
const LEAD_MIN: Duration = Duration::from_secs(10);
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);

/// Works for all groups of a node; does nothing for those it does not lead.
pub(crate) struct Keeper {
    roster: Arc<Roster>,
    /// Steps that are being taken, by group.
    steps: BTreeMap<u32, JoinHandle<()>>,
    /// Since when this node leads a group.
    leads_since: BTreeMap<u32, Instant>,
    balanced: Instant,
    chores: Chores,
}

impl Keeper {
    pub fn new(roster: Arc<Roster>) -> Self {
        Self {
            roster,
            steps: BTreeMap::new(),
            leads_since: BTreeMap::new(),
            balanced: Instant::now(),
            chores: Chores::default(),
        }
    }

    /// To be aborted with the node.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            if !self.roster.is_complete() {
                continue;
            }
            self.steps.retain(|_, step| !step.is_finished());
            for group in self.roster.groups.clone() {
                self.look_at(&group);
            }
            if self.balanced.elapsed() >= BALANCE_PERIOD && !self.roster.board.is_leaving() {
                self.balanced = Instant::now();
                self.balance();
            }
        }
    }

    fn look_at(&mut self, group: &Arc<Group>) {
        let id = group.replica.group.0;
        let Some(lead) = group.firm_lead() else {
            if self.leads_since.remove(&id).is_some() {
                self.chores.drop_group(id);
            }
            return;
        };
        self.leads_since.entry(id).or_insert_with(Instant::now);
        if self.steps.contains_key(&id) {
            return;
        }
        if let Some(chore) = self.chores.next(&self.roster.view(), group) {
            let telling = self.chores.tell(group.clone(), chore);
            self.steps.insert(id, tokio::spawn(telling));
            return;
        }
        let present = present(&self.roster, &lead.raft);
        let Some(wanted) = wanted(&self.roster, group, &present) else {
            return;
        };
        let Some(step) = next_step(&present, &wanted) else {
            return;
        };
        if let Step::AwaitCatchUp(node) = step {
            tracing::debug!(group = id, %node, "a new replica is catching up");
            return;
        }
        let (roster, group) = (self.roster.clone(), group.clone());
        let task = tokio::spawn(async move {
            match take(&roster, &group, &lead.raft, step.clone()).await {
                Ok(()) => tracing::info!(group = id, ?step, "members changed"),
                // A change before it may not be agreed on yet.
                Err(error) => {
                    tracing::debug!(group = id, ?step, %error, "members could not be changed yet");
                }
            }
        });
        self.steps.insert(id, task);
    }

    /// Gives one group to the node that should lead it.
    fn balance(&mut self) {
        for group in &self.roster.groups[1..] {
            let id = group.replica.group.0;
            let since = self.leads_since.get(&id);
            if since.is_none_or(|since| since.elapsed() < LEAD_MIN) || self.steps.contains_key(&id)
            {
                continue;
            }
            let Some(to) = self.better_leader(group) else {
                continue;
            };
            let group = group.clone();
            let task = tokio::spawn(async move {
                let deadline = Instant::now() + TRANSFER_TIMEOUT;
                match group.transfer_to(to, deadline).await {
                    Ok(()) => tracing::info!(group = id, %to, "the preferred node leads"),
                    Err(error) => {
                        tracing::debug!(group = id, %to, %error, "the preferred node does not lead yet");
                    }
                }
            });
            self.steps.insert(id, task);
            // Not at once again if it did not work.
            self.leads_since.insert(id, Instant::now());
            return;
        }
    }

    fn better_leader(&self, group: &Group) -> Option<NodeId> {
        let board = &self.roster.board;
        let replicas = self.roster.replicas(group.replica.shard)?;
        let preferred = *replicas.first()?;
        if preferred == board.node || !board.may_lead(preferred) {
            return None;
        }
        // One whose clock is off would give the lead away again.
        let offset_us = board.heard(preferred)?.wall_offset_us?;
        let voters = group.voters();
        let is_settled = voters == replicas.iter().copied().collect();
        (is_settled && offset_us.abs() < OFFSET_MAX_US).then_some(preferred)
    }
}

fn present(roster: &Roster, raft: &Raft) -> Present {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let configs = membership.get_joint_config();
    let last = metrics.last_log_index.unwrap_or(0);
    let replication = metrics.replication.iter().flatten();
    let caught_up = replication.filter_map(|(node, matched)| {
        let matched = matched.as_ref()?.index;
        (matched + BEHIND_MAX >= last).then_some(NodeId(*node))
    });
    let voters: BTreeSet<NodeId> = configs
        .last()
        .into_iter()
        .flatten()
        .copied()
        .map(NodeId)
        .collect();
    let nodes: BTreeSet<NodeId> = membership.nodes().map(|(node, _)| NodeId(*node)).collect();
    let voted: BTreeSet<NodeId> = configs.iter().flatten().copied().map(NodeId).collect();
    let board = &roster.board;
    let known = &nodes
        | &roster
            .view()
            .nodes
            .iter()
            .map(|node| node.id)
            .collect::<BTreeSet<_>>();
    Present {
        learners: &nodes - &voted,
        voters,
        is_joint: configs.len() > 1,
        caught_up: caught_up.collect(),
        up: known
            .into_iter()
            .filter(|node| board.is_up(*node))
            .collect(),
        leader: board.node,
    }
}

/// Shards have the voters of their placement. Everyone who does not vote on metadata learns it.
fn wanted(roster: &Roster, group: &Group, present: &Present) -> Option<Wanted> {
    if group.replica.group.0 != 0 {
        return Some(Wanted {
            voters: roster.replicas(group.replica.shard)?.into_iter().collect(),
            learners: BTreeSet::new(),
        });
    }
    let holders = holders(roster);
    let voters = voters::metadata_members(&holders, &present.voters);
    let all: BTreeSet<NodeId> = holders.iter().map(|holder| holder.spot.node).collect();
    Some(Wanted {
        learners: &all - &voters,
        voters,
    })
}

async fn take(
    roster: &Roster,
    group: &Arc<Group>,
    raft: &Raft,
    step: Step,
) -> Result<(), ClusterError> {
    let change = async {
        let outcome = match step {
            Step::AddLearner(node) => {
                let peer = roster.peer(node).unwrap_or_default();
                raft.add_learner(node.0, peer, false).await
            }
            Step::SetVoters(voters) => {
                let voters: BTreeSet<u64> = voters.into_iter().map(|node| node.0).collect();
                raft.change_membership(voters, false).await
            }
            Step::RemoveLearner(node) => {
                let nodes = ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
                raft.change_membership(nodes, true).await
            }
            Step::HandOver(heirs) => return hand_over(group, heirs).await,
            Step::AwaitCatchUp(_) => return Ok(()),
        };
        outcome.map(|_| ()).map_err(|error| unavailable(&error))
    };
    tokio::time::timeout(STEP_TIMEOUT, change)
        .await
        .map_err(|_| ClusterError::Unavailable {
            reason: "it was not agreed on in time".to_owned(),
        })?
}

async fn hand_over(group: &Arc<Group>, heirs: BTreeSet<NodeId>) -> Result<(), ClusterError> {
    let deadline = Instant::now() + TRANSFER_TIMEOUT;
    let mut outcome = Ok(());
    for heir in heirs {
        outcome = group.transfer_to(heir, deadline).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
