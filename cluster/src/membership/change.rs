//! The next step that brings a group's members where they are wanted: no network, no clock.

use std::collections::BTreeSet;

use flotilla_model::ids::NodeId;

/// A group's members, as its leader sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Present {
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// A change of voters is half done.
    pub is_joint: bool,
    /// They have, or nearly have, all entries.
    pub caught_up: BTreeSet<NodeId>,
    /// They answer, the leader among them.
    pub up: BTreeSet<NodeId>,
    pub leader: NodeId,
}

/// Who a group's members are to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    AddLearner(NodeId),
    SetVoters(BTreeSet<NodeId>),
    RemoveLearner(NodeId),
    /// The leader is to go: one of these leads instead.
    HandOver(BTreeSet<NodeId>),
    /// A new voter has entries to fetch.
    AwaitCatchUp(NodeId),
}

pub(super) fn next_step(present: &Present, wanted: &Wanted) -> Option<Step> {
    if present.is_joint {
        // Its leader fell: nobody else ends it.
        return Some(Step::SetVoters(present.voters.clone()));
    }
    if wanted.voters.is_empty() {
        return None;
    }
    let missing: BTreeSet<NodeId> = &wanted.voters - &present.voters;
    let surplus: BTreeSet<NodeId> = &present.voters - &wanted.voters;
    // Who does not answer first: without it nothing is lost. Never the leader: it hands over before.
    let surplus_next = surplus
        .iter()
        .copied()
        .filter(|node| *node != present.leader)
        .min_by_key(|node| present.up.contains(node));
    if !missing.is_empty() {
        return enter(present, &missing, surplus_next);
    }
    if let Some(leaving) = surplus_next {
        let mut voters = present.voters.clone();
        voters.remove(&leaving);
        return can_agree(present, &voters).then_some(Step::SetVoters(voters));
    }
    if !surplus.is_empty() {
        let heirs: BTreeSet<NodeId> = &wanted.voters & &present.up;
        return (!heirs.is_empty()).then_some(Step::HandOver(heirs));
    }
    let members: BTreeSet<NodeId> = &present.voters | &present.learners;
    let unwanted = present
        .learners
        .iter()
        .find(|node| !wanted.learners.contains(node));
    if let Some(node) = unwanted {
        return Some(Step::RemoveLearner(*node));
    }
    let missing = wanted.learners.iter().find(|node| !members.contains(node));
    missing.map(|node| Step::AddLearner(*node))
}

/// Lets one new voter in, in the place of one that leaves.
fn enter(present: &Present, missing: &BTreeSet<NodeId>, leaving: Option<NodeId>) -> Option<Step> {
    let ready = missing
        .iter()
        .find(|node| present.learners.contains(node) && present.caught_up.contains(node));
    if let Some(node) = ready {
        let mut voters = present.voters.clone();
        voters.insert(*node);
        if let Some(leaving) = leaving {
            voters.remove(&leaving);
        }
        return can_agree(present, &voters).then_some(Step::SetVoters(voters));
    }
    let fetching = missing
        .iter()
        .find(|node| present.learners.contains(node) && present.up.contains(node));
    if let Some(node) = fetching {
        return Some(Step::AwaitCatchUp(*node));
    }
    missing
        .iter()
        .find(|node| present.up.contains(node) && !present.learners.contains(node))
        .map(|node| Step::AddLearner(*node))
}

/// Both memberships agree to a change: one that could not would hold up the group.
fn can_agree(present: &Present, voters: &BTreeSet<NodeId>) -> bool {
    let is_majority_up =
        |nodes: &BTreeSet<NodeId>| 2 * nodes.intersection(&present.up).count() > nodes.len();
    is_majority_up(&present.voters) && is_majority_up(voters)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Carries a step out as Raft would.
    fn carry_out(present: &mut Present, step: Step) {
        match step {
            Step::AddLearner(node) => {
                present.learners.insert(node);
            }
            Step::SetVoters(voters) => {
                let grown = voters.difference(&present.voters).count();
                let shrunk = present.voters.difference(&voters).count();
                assert!(grown <= 1 && shrunk <= 1, "more than one replica at once");
                assert!(voters.contains(&present.leader), "a leader removed itself");
                assert!(can_agree(present, &voters), "a change that cannot end");
                present.learners = &present.learners - &voters;
                present.voters = voters;
                present.is_joint = false;
            }
            Step::RemoveLearner(node) => {
                present.learners.remove(&node);
            }
            Step::HandOver(heirs) => present.leader = *heirs.first().unwrap(),
            Step::AwaitCatchUp(node) => {
                present.caught_up.insert(node);
            }
        }
    }

    fn nodes(from: &BTreeSet<u64>) -> BTreeSet<NodeId> {
        from.iter().copied().map(NodeId).collect()
    }

    proptest! {
        #[test]
        fn members_get_where_they_are_wanted_one_at_a_time(
            voters in prop::collection::btree_set(1u64..8, 1..6),
            wanted in prop::collection::btree_set(1u64..8, 1..6),
            old_learners in prop::collection::btree_set(1u64..8, 0..3),
            learners in prop::collection::btree_set(1u64..8, 0..4),
            is_joint in any::<bool>(),
        ) {
            let all: BTreeSet<NodeId> = (1..8).map(NodeId).collect();
            let mut present = Present {
                learners: &nodes(&old_learners) - &nodes(&voters),
                leader: NodeId(*voters.first().unwrap()),
                voters: nodes(&voters),
                is_joint,
                caught_up: BTreeSet::new(),
                up: all,
            };
            let wanted = Wanted {
                learners: &nodes(&learners) - &nodes(&wanted),
                voters: nodes(&wanted),
            };
            for _ in 0..100 {
                let Some(step) = next_step(&present, &wanted) else { break };
                carry_out(&mut present, step);
            }
            prop_assert_eq!(&present.voters, &wanted.voters);
            prop_assert_eq!(&present.learners, &wanted.learners);
            prop_assert_eq!(next_step(&present, &wanted), None);
        }
    }

    #[test]
    fn a_change_that_could_not_end_is_not_begun() {
        let present = Present {
            voters: nodes(&[1, 2, 3].into()),
            up: nodes(&[1, 4].into()),
            caught_up: nodes(&[1, 4].into()),
            learners: nodes(&[4].into()),
            leader: NodeId(1),
            is_joint: false,
        };
        let wanted = Wanted {
            voters: nodes(&[1, 2, 4].into()),
            learners: BTreeSet::new(),
        };
        assert_eq!(next_step(&present, &wanted), None);
    }
}
