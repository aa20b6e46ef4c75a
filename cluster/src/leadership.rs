//! Who leads a group, as far as this node can tell.
//!
//! Two sources say it. Raft knows on members of the group. Other nodes' claims, which come with
//! presence and with refusals, reach nodes that hold no replica too, and members that Raft has not told
//! yet. The later term is right; of the same term there is only one leader.

use std::time::{Duration, Instant};

use flotilla_model::ids::NodeId;

use crate::types::Groups;
use flotilla_raft::Raft;

/// A claim that was not renewed for this long is forgotten.
const CLAIM_AGE_MAX: Duration = Duration::from_secs(2);

/// The Raft of a group that this node leads, in the term for which it took over.
#[derive(Clone)]
pub(crate) struct Lead {
    pub raft: Raft,
    /// What is written under it lands in this term or not at all: only this node's clock stamps it.
    pub id: openraft::alias::CommittedLeaderIdOf<Groups>,
    /// Tells this Raft from one that was started after it under the same term.
    pub run: u64,
}

impl Lead {
    /// Whether it is the same leadership, of the same Raft.
    pub fn is(&self, other: &Self) -> bool {
        self.id == other.id && self.run == other.run
    }
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    term: u64,
    node: NodeId,
    heard: Instant,
}

/// What the sources say.
#[derive(Debug, Default)]
pub(crate) struct LeaderView {
    raft_term: u64,
    raft_leader: Option<NodeId>,
    claim: Option<Claim>,
}

impl LeaderView {
    /// What Raft says: the leader of a term, or that it has none.
    pub fn raft(&mut self, term: u64, leader: Option<NodeId>) {
        self.raft_term = term;
        self.raft_leader = leader;
    }

    /// What another node says.
    pub fn claim(&mut self, term: u64, node: NodeId, heard: Instant) {
        if self.claim.is_none_or(|claim| claim.term <= term) {
            self.claim = Some(Claim { term, node, heard });
        }
    }

    /// Takes back the claims of a node that it does not repeat.
    pub fn disclaim(&mut self, node: NodeId) {
        self.claim.take_if(|claim| claim.node == node);
    }

    pub fn expire(&mut self, now: Instant) {
        self.claim
            .take_if(|claim| now.duration_since(claim.heard) > CLAIM_AGE_MAX);
    }

    /// The leader, and its term.
    pub fn leader(&self) -> Option<(u64, NodeId)> {
        let raft = self.raft_leader.map(|node| (self.raft_term, node));
        let claim = self.claim.map(|claim| (claim.term, claim.node));
        match (raft, claim) {
            (Some(raft), Some(claim)) if claim.0 > raft.0 => Some(claim),
            (Some(raft), _) => Some(raft),
            // Raft may be ahead of the claim only because an election is running, which may fail.
            (None, claim) => claim,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_term_is_believed_and_a_claim_is_forgotten_in_time() {
        let now = Instant::now();
        let mut view = LeaderView::default();
        assert_eq!(view.leader(), None);
        view.raft(3, Some(NodeId(1)));
        view.claim(2, NodeId(2), now);
        assert_eq!(view.leader(), Some((3, NodeId(1))));
        view.claim(4, NodeId(3), now);
        view.claim(2, NodeId(2), now);
        assert_eq!(view.leader(), Some((4, NodeId(3))));
        view.disclaim(NodeId(2));
        assert_eq!(view.leader(), Some((4, NodeId(3))));
        view.expire(now + CLAIM_AGE_MAX * 2);
        assert_eq!(view.leader(), Some((3, NodeId(1))));
    }
}
