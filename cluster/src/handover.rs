//! Leading a group, ceasing to, and handing it to another node without a gap.
//!
//! ```text
//!   take no more entries --> the other voter has all there are --> Raft: it may elect itself now
//!        ^                                   |
//!        +------ it does not get there ------+
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::ids::NodeId;
use flotilla_raft::Raft;
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::VoteRequest;

use crate::error::ClusterError;
use crate::group::{Group, unavailable};
use crate::leadership::Lead;
use crate::observer::Role;
use crate::presence::Board;
use crate::roles::{LeaderId, Standing};
use crate::types::{LogId, Vote};

/// Writers wait so long at most for the last entries to reach a voter.
const CATCH_UP_WAIT: Duration = Duration::from_millis(150);
/// A voter with more entries to fetch than this is not asked to lead yet: what is in flight, and a little.
const BEHIND_MAX: u64 = 16;
/// Before a voter that was not up to date is looked at again.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// From the moment a voter may elect itself until it must have done so. It takes a round of messages and
/// a sync; the others elect someone by themselves a little later.
const ELECTION_WAIT: Duration = Duration::from_secs(1);
/// Groups handed over at a time.
const AT_A_TIME: usize = 8;
/// Before the same group is handed on again for the same reason.
const YIELD_PAUSE: Duration = Duration::from_secs(5);

/// A leadership, and whether it takes entries.
#[derive(Default)]
pub(crate) struct Leadership {
    lead: Option<Lead>,
    is_closed: bool,
    /// When it was last given up for a better leader.
    yielded: Option<Instant>,
}

impl Group {
    pub(crate) fn begin_to_lead(&self, lead: Lead) {
        let mut leadership = self.leadership.lock();
        leadership.lead = Some(lead);
        leadership.is_closed = false;
        self.publish_lead(&leadership);
        self.node.board.hurry.notify_one();
    }

    /// Takes no entries any more.
    pub(crate) fn step_down(&self) {
        {
            let mut leadership = self.leadership.lock();
            leadership.lead = None;
            leadership.is_closed = false;
            self.publish_lead(&leadership);
        }
        if *self.replica.role.borrow() == Role::Leader {
            self.replica.set_role(Role::Follower);
        }
        self.replica.clock.follow();
    }

    /// Takes no entries for a moment, or again.
    fn close(&self, is_closed: bool) {
        let mut leadership = self.leadership.lock();
        leadership.is_closed = is_closed;
        self.publish_lead(&leadership);
    }

    fn publish_lead(&self, leadership: &Leadership) {
        let lead = match leadership.is_closed {
            true => None,
            false => leadership.lead.clone(),
        };
        self.lead.send_replace(lead);
    }

    /// The leadership, if a majority is behind it at this moment: nobody else can have taken over.
    pub(crate) fn firm_lead(&self) -> Option<Lead> {
        let lead = self.lead.borrow().clone()?;
        if self.voters().len() == 1 {
            return Some(lead);
        }
        let lease = Duration::from_millis(lead.raft.config().election_timeout_max);
        let acknowledged = lead.raft.metrics().borrow_watched().last_quorum_acked;
        let is_firm = match acknowledged {
            Some(at) => at.into_inner().elapsed() < lease,
            None => false,
        };
        is_firm.then_some(lead)
    }

    /// The nodes whose majority decides.
    pub(crate) fn voters(&self) -> BTreeSet<NodeId> {
        let Some(raft) = self.raft() else {
            return BTreeSet::new();
        };
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.membership().voter_ids();
        voters.map(NodeId).collect()
    }

    /// Entries that a voter has still to fetch from this leader; `None` if that is not known.
    fn behind(raft: &Raft, node: NodeId) -> Option<u64> {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?.get(&node.0)?.as_ref()?.index;
        Some(metrics.last_log_index?.saturating_sub(matched))
    }

    /// The Raft that leads here, if a member lacks entries. It may be waiting before it tries again.
    pub(crate) fn raft_that_awaits(&self, node: NodeId) -> Option<Raft> {
        let lead = self.lead.borrow().clone()?;
        (Self::behind(&lead.raft, node) != Some(0)).then_some(lead.raft)
    }

    /// Makes another voter the leader. Entries wait meanwhile, a few milliseconds; if it does not
    /// become the leader they are taken here again.
    pub(crate) async fn transfer_to(
        &self,
        to: NodeId,
        deadline: Instant,
    ) -> Result<(), ClusterError> {
        let refuse = |reason: String| Err(ClusterError::Unavailable { reason });
        let lead = self.lead.borrow().clone();
        let Some(Lead { raft, id, .. }) = lead else {
            return Err(ClusterError::NotLeader {
                hint: *self.replica.leader.borrow(),
            });
        };
        if to == self.node.identity.node {
            return Ok(());
        }
        if !self.voters().contains(&to) {
            return refuse(format!("node {to} is no voter of the group"));
        }
        if !self.node.board.may_lead(to) {
            return refuse(format!("node {to} does not answer, or is about to stop"));
        }
        if Self::behind(&raft, to).is_none_or(|behind| behind > BEHIND_MAX) {
            return refuse(format!("node {to} is not up to date"));
        }
        let _open_again = Reopen(self);
        self.close(true);
        let until = deadline.min(Instant::now() + CATCH_UP_WAIT);
        let mut metrics = raft.metrics();
        while Self::behind(&raft, to) != Some(0) {
            let changed = tokio::time::timeout_at(until.into(), metrics.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return refuse(format!("node {to} did not catch up"));
            }
        }
        raft.trigger()
            .transfer_leader(to.0)
            .await
            .map_err(|error| unavailable(&error))?;
        let until = deadline.min(Instant::now() + ELECTION_WAIT);
        let mut metrics = raft.server_metrics();
        loop {
            let now = Standing::of(&raft);
            if now.leads != Some(id) && now.leader == Some(to) {
                return Ok(());
            }
            let changed = tokio::time::timeout_at(until.into(), metrics.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                abdicate(&raft, id, to).await;
                return refuse(format!("node {to} did not become the leader in time"));
            }
        }
    }

    /// Lets a better leader take over, not waiting for that.
    pub(crate) fn yield_to(self: &Arc<Self>, to: NodeId) {
        {
            let mut leadership = self.leadership.lock();
            let recently = leadership
                .yielded
                .is_some_and(|at| at.elapsed() < YIELD_PAUSE);
            if leadership.lead.is_none() || leadership.is_closed || recently {
                return;
            }
            leadership.yielded = Some(Instant::now());
        }
        let group = self.clone();
        self.node.runtime.spawn(async move {
            let deadline = Instant::now() + ELECTION_WAIT;
            if let Err(error) = group.transfer_to(to, deadline).await {
                tracing::warn!(group = group.replica.group.0, %to, %error, "leadership could not be given up");
            }
        });
    }

    /// The other voters that could lead, those with the fewest entries to fetch first.
    fn successors(&self, raft: &Raft) -> Vec<(NodeId, Option<u64>)> {
        let own = self.node.identity.node;
        let mut voters: Vec<(NodeId, Option<u64>)> = self
            .voters()
            .into_iter()
            .filter(|node| *node != own && self.node.board.may_lead(*node))
            .map(|node| (node, Self::behind(raft, node)))
            .collect();
        if !voters.is_empty() {
            // Not all groups to the same node.
            let turn = self.replica.group.0 as usize % voters.len();
            voters.rotate_left(turn);
        }
        voters.sort_by_key(|(_, behind)| match behind {
            // What is on its way to all of them says nothing.
            Some(behind) => behind / BEHIND_MAX,
            None => u64::MAX,
        });
        voters
    }

    /// Serves until some voter has nearly everything, then hands it the rest and the lead.
    pub(crate) async fn hand_over(&self, deadline: Instant) {
        let lead = self.lead.borrow().clone();
        let Some(Lead { raft, id, .. }) = lead else {
            return;
        };
        while Standing::of(&raft).leads == Some(id) && Instant::now() < deadline {
            let successors = self.successors(&raft);
            let Some((to, behind)) = successors.first().copied() else {
                return;
            };
            if behind.is_some_and(|behind| behind <= BEHIND_MAX) {
                match self.transfer_to(to, deadline).await {
                    Ok(()) | Err(ClusterError::NotLeader { .. }) => return,
                    Err(error) => {
                        tracing::warn!(group = self.replica.group.0, %to, %error, "leadership is not handed over");
                    }
                }
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// Ends a leadership that was to go to a node that did not take it. Raft would neither use it again nor
/// give it up: it takes no entries and sends no heartbeats in a term that it once wanted to hand over.
/// So this node votes for the other one in the next term, which it was to stand in. If it comes
/// late, it has this vote; if not, anyone may stand in the term after, this node as well.
async fn abdicate(raft: &Raft, id: LeaderId, to: NodeId) {
    let last = raft.metrics().borrow_watched().last_log_index;
    if Standing::of(raft).leads != Some(id) {
        return;
    }
    // Since nothing is taken any more, the last entry stays that. What the other one has is looked at when
    // it asks.
    let last = last.map(|index| LogId {
        leader_id: id,
        index,
    });
    let mut request = VoteRequest::new(Vote::new(id.term + 1, to.0), last);
    request.leadership_transfer = true;
    match raft.vote(request).await {
        Ok(answer) if answer.vote_granted => {}
        Ok(answer) => tracing::warn!(?answer, "a leadership that nobody took goes on"),
        Err(error) => tracing::warn!(%error, "a leadership that nobody took goes on"),
    }
}

/// Whatever happens, a leader that is still one takes entries in the end.
struct Reopen<'a>(&'a Group);

impl Drop for Reopen<'_> {
    fn drop(&mut self) {
        self.0.close(false);
    }
}

/// Makes other nodes the leaders of all groups that this one leads, as far as there are any. To be
/// called before a node stops: it does not stand for election any more.
pub(crate) async fn hand_over(groups: &[Arc<Group>], board: &Board, deadline: Instant) {
    board.set_leaving(true);
    for group in groups {
        if let Some(raft) = group.raft().filter(|_| !group.replica.is_alone()) {
            raft.runtime_config().elect(false);
        }
    }
    for some in groups.chunks(AT_A_TIME) {
        let handed = some.iter().map(|group| group.hand_over(deadline));
        futures::future::join_all(handed).await;
    }
}
