//! What leaders tell of their groups' members: only they know them for sure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_storage::GroupId;
use futures::future::{BoxFuture, join_all};
use openraft::async_runtime::watch::WatchReceiver;

use super::roster::Roster;
use crate::error::{ClusterError, chain};
use crate::group::Group;
use crate::net::{Lane, PeerIdentity, PeerService, ServiceId, Talk};
use crate::packing;

/// For one node's report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// A group's members, from its leader.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct GroupReport {
    pub group: u32,
    pub term: u64,
    pub voters: Vec<NodeId>,
    /// No change of members is under way.
    pub is_settled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Question {
    /// Of all groups that the node leads.
    Members,
    /// Of one group, with the leadership confirmed by a majority.
    Confirmed { group: u32 },
}

/// All nodes that a confirmed leader counts on, or has counted on until a change of members is committed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Members {
    pub nodes: Vec<NodeId>,
}

/// Answers for the groups that this node leads.
pub(crate) struct ReportService {
    pub groups: Vec<Arc<Group>>,
}

impl PeerService for ReportService {
    fn call(
        &self,
        _from: PeerIdentity,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let groups = self.groups.clone();
        Box::pin(async move {
            let question = packing::unpack("a question about members", &request);
            let answer = match question.map_err(|error| error.to_string())? {
                Question::Members => packing::pack(&own(&groups)),
                Question::Confirmed { group } => {
                    let group = groups.get(group as usize).ok_or("there is no such group")?;
                    let members = confirmed(group).await;
                    packing::pack(&members.map_err(|error| chain(&error))?)
                }
            };
            answer.map_err(|error| error.to_string())
        })
    }

    fn talk(&self, _from: PeerIdentity, _talk: Talk) -> BoxFuture<'static, ()> {
        // There are only questions: dropping the conversation tells so.
        Box::pin(async {})
    }
}

fn own(groups: &[Arc<Group>]) -> Vec<GroupReport> {
    groups.iter().filter_map(|group| of(group)).collect()
}

/// The members of a group that this node leads, as of a moment after the call.
async fn confirmed(group: &Group) -> Result<Members, ClusterError> {
    let raft = group.lead.borrow().as_ref().map(|lead| lead.raft.clone());
    let raft = raft.ok_or(ClusterError::NotLeader {
        hint: group.shard.leader(),
    })?;
    group.shard.confirm_leadership().await?;
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let configs = [
        &metrics.membership_config,
        &metrics.committed_membership_config,
    ];
    let nodes = configs
        .iter()
        .flat_map(|config| config.membership().nodes())
        .map(|(node, _)| NodeId(*node));
    Ok(Members {
        nodes: nodes.collect(),
    })
}

/// Asks the leader of a group for its members.
pub(super) async fn ask_leader(
    roster: &Roster,
    leader: NodeId,
    group: GroupId,
) -> Result<Members, ClusterError> {
    let unavailable = |reason: String| ClusterError::Unavailable { reason };
    let question = packing::pack(&Question::Confirmed { group: group.0 })
        .map_err(|error| unavailable(error.to_string()))?;
    let answer = roster
        .links
        .peers()
        .call(
            leader,
            Lane::Bulk,
            ServiceId::METADATA,
            question,
            REPORT_TIMEOUT,
        )
        .await
        .map_err(|error| unavailable(error.to_string()))?;
    packing::unpack("members of a group", &answer).map_err(|error| unavailable(error.to_string()))
}

/// A group that this node leads.
fn of(group: &Group) -> Option<GroupReport> {
    let lead = group.firm_lead()?;
    let metrics = lead.raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    Some(GroupReport {
        group: group.replica.group.0,
        term: lead.id.term,
        voters: membership.voter_ids().map(NodeId).collect(),
        is_settled: membership.get_joint_config().len() == 1,
    })
}

/// The members of all groups whose leaders answer, by group.
pub(crate) async fn collect(roster: &Roster) -> BTreeMap<u32, GroupReport> {
    let view = roster.view();
    let peers = roster.links.peers();
    let others = view
        .nodes
        .iter()
        .map(|node| node.id)
        .filter(|node| *node != roster.board.node && roster.board.is_up(*node));
    let asked = others.map(|node| {
        let peers = &peers;
        async move {
            let question = packing::pack(&Question::Members).ok()?;
            let answer = peers
                .call(
                    node,
                    Lane::Bulk,
                    ServiceId::METADATA,
                    question,
                    REPORT_TIMEOUT,
                )
                .await
                .inspect_err(|error| tracing::debug!(%node, %error, "no report of its groups"))
                .ok()?;
            packing::unpack::<Vec<GroupReport>>("a report of members", &answer).ok()
        }
    });
    let mut newest: BTreeMap<u32, GroupReport> = BTreeMap::new();
    let others = join_all(asked).await.into_iter().flatten().flatten();
    for report in own(&roster.groups).into_iter().chain(others) {
        let known = newest.get(&report.group);
        if known.is_none_or(|known| known.term < report.term) {
            newest.insert(report.group, report);
        }
    }
    newest
}
