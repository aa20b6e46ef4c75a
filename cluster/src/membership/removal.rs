//! Gives disk space back: empties replicas that were placed elsewhere, and fills them when they return.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::report::{self, Members};
use super::roster::Roster;
use crate::error::{ClusterError, chain};
use crate::group::Group;
use crate::mending::Mender;

/// Between looks at the groups.
const PERIOD: Duration = Duration::from_secs(1);
/// A replica that is wanted back this soon has only the latest entries to fetch.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// After an attempt that failed.
const PAUSE: Duration = Duration::from_secs(5);
/// Builds of earlier levels do not know that a group can be vacant.
const LEVEL_MIN: u16 = 2;

/// Works for the groups of which this node is no member any more.
pub(crate) struct Removal {
    pub roster: Arc<Roster>,
    pub mender: Arc<Mender>,
    /// When each group is to be looked at again.
    pub due: BTreeMap<u32, Instant>,
}

impl Removal {
    /// To be aborted with the node.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let level = self.roster.view().cluster.feature_level;
            if level < LEVEL_MIN || !self.roster.is_complete() {
                continue;
            }
            let roster = self.roster.clone();
            for group in &roster.groups[1..] {
                if let Err(error) = self.look_at(group).await {
                    let (group, error) = (group.replica.group.0, chain(&error));
                    tracing::debug!(group, error, "a replica is left as it is for now");
                    self.due.insert(group, Instant::now() + PAUSE);
                }
            }
        }
    }

    async fn look_at(&mut self, group: &Arc<Group>) -> Result<(), ClusterError> {
        let id = group.replica.group;
        let own = self.roster.board.node;
        let placed = self.roster.replicas(group.replica.shard);
        let is_wanted = placed.is_some_and(|nodes| nodes.contains(&own));
        let has_work = match is_wanted {
            true => group.is_vacant()?,
            false => group.is_filled()?,
        };
        if !has_work {
            self.due.remove(&id.0);
            return Ok(());
        }
        let now = Instant::now();
        let wait = if is_wanted { Duration::ZERO } else { KEPT_FOR };
        if now < *self.due.entry(id.0).or_insert(now + wait) {
            return Ok(());
        }
        if is_wanted {
            return self.mender.fill(id).await;
        }
        // Before Raft is stopped for it: what is still needed is not to be disturbed.
        confirm_left(&self.roster, group).await?;
        let _no_mending = self.mender.hold().await;
        group.vacate(confirm_left(&self.roster, group)).await?;
        tracing::info!(
            group = id.0,
            "a replica that moved to another node is emptied"
        );
        Ok(())
    }
}

/// Makes sure that the group's leader does not count on this node.
async fn confirm_left(roster: &Roster, group: &Group) -> Result<(), ClusterError> {
    let own = roster.board.node;
    let leader = *group.replica.leader.borrow();
    let unavailable = |reason: String| Err(ClusterError::Unavailable { reason });
    let Some(leader) = leader.filter(|leader| *leader != own) else {
        return unavailable("no other node leads the group".to_owned());
    };
    let Members { nodes } = report::ask_leader(roster, leader, group.replica.group).await?;
    match nodes.contains(&own) {
        true => unavailable("this node is still a member of the group".to_owned()),
        false => Ok(()),
    }
}
