//! What to do next, from what is known: no clock, no network, no disk.

use std::collections::BTreeSet;

use flotilla_model::ids::DiskId;

use super::board::Sighting;
use super::message::{Claim, Greeting};
use super::plan::{Plan, PlannedNode};
use crate::identity::ClusterId;

/// The next step of a node that is no member yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing to do but to go on asking, and what for.
    Wait(String),
    /// Ask to be taken in, at one of these addresses.
    Join {
        cluster: ClusterId,
        addresses: Vec<String>,
    },
    /// Plan a cluster of these nodes, this one first.
    Plan(Vec<PlannedNode>),
    /// The plan took effect: be the node that it made of this one.
    BecomeMember,
    /// The plan will not take effect.
    DropPlan(String),
}

/// What the seeds answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Seeds {
    /// How many nodes they stand for.
    pub count: usize,
    /// The disks that answered there, this node's own among them if it is a seed.
    pub disks: BTreeSet<DiskId>,
    /// Those that did not answer, with the reason.
    pub silent: Vec<String>,
}

impl Seeds {
    fn majority(&self) -> usize {
        self.count / 2 + 1
    }

    fn silence(&self) -> String {
        match &self.silent[..] {
            [] => String::new(),
            silent => format!("; no answer from {}", silent.join(", ")),
        }
    }
}

/// For a node that is promised to nothing.
pub(super) fn fresh_step(me: &Greeting, sightings: &[Sighting], seeds: &Seeds) -> Step {
    let mut members: Vec<(ClusterId, &Sighting)> = sightings
        .iter()
        .filter_map(|sighting| match sighting.greeting.claim {
            Claim::Member { cluster, .. } => Some((cluster, sighting)),
            _ => None,
        })
        .collect();
    members.sort_by_key(|(cluster, _)| *cluster);
    if let (Some((first, _)), Some((last, other))) = (members.first(), members.last()) {
        if first != last {
            return Step::Wait(format!(
                "the seeds are of different clusters, {first} and {last} (at {}): name seeds of one",
                other.address
            ));
        }
        return Step::Join {
            cluster: *first,
            addresses: members
                .iter()
                .map(|(_, sighting)| sighting.address.clone())
                .collect(),
        };
    }
    form(me, sightings, seeds)
}

/// Two plans must never both take effect, whoever makes them. If the planned nodes are enough to be a
/// majority of the seeds, they must be one: two majorities share a node, which promises itself once. If
/// not, all seeds must be seen, and only the first of them makes plans.
fn form(me: &Greeting, sightings: &[Sighting], seeds: &Seeds) -> Step {
    let expect = me.terms.expect as usize;
    let mut fresh: Vec<&Greeting> = vec![me];
    for sighting in sightings {
        let other = &sighting.greeting;
        if other.claim != Claim::Fresh {
            return Step::Wait(format!(
                "waiting for {} at {}, which takes part in forming a cluster",
                other.node.name, other.node.address
            ));
        }
        // Whoever expects fewer nodes waits for the others' cluster and joins it.
        if other.terms.expect < me.terms.expect {
            continue;
        }
        if other.terms != me.terms {
            return Step::Wait(disagreement(me, other));
        }
        fresh.push(other);
    }
    let silence = seeds.silence();
    if fresh.len() < expect {
        return Step::Wait(format!(
            "waiting for {} more of the {expect} nodes of cluster.expect{silence}",
            expect - fresh.len()
        ));
    }
    let is_seed = |greeting: &Greeting| seeds.disks.contains(&greeting.node.disk);
    // The same order on every node: who is first makes the plan.
    fresh.sort_by_key(|greeting| {
        let node = &greeting.node;
        (!is_seed(greeting), node.address.clone(), node.disk)
    });
    fresh.truncate(expect);
    if expect < seeds.majority() {
        if !seeds.silent.is_empty() {
            return Step::Wait(format!(
                "waiting for all seeds, since one may be in a cluster{silence}"
            ));
        }
    } else if fresh.iter().filter(|greeting| is_seed(greeting)).count() < seeds.majority() {
        return Step::Wait(format!("waiting for a majority of the seeds{silence}"));
    }
    match fresh.first() {
        Some(first) if first.node.disk != me.node.disk => Step::Wait(format!(
            "waiting for {} at {} to form the cluster",
            first.node.name, first.node.address
        )),
        Some(first) if !is_seed(first) => {
            Step::Wait("waiting for a seed: this node is none itself".to_owned())
        }
        _ => match unseen(me, &fresh) {
            Some((who, whom)) => Step::Wait(format!("waiting for {who} to reach {whom}")),
            None => Step::Plan(fresh.iter().map(|greeting| greeting.node.clone()).collect()),
        },
    }
}

/// A pair that does not see each other.
fn unseen<'a>(me: &Greeting, chosen: &[&'a Greeting]) -> Option<(&'a str, &'a str)> {
    for who in chosen {
        // This node has reached everyone it knows of.
        if who.node.disk == me.node.disk {
            continue;
        }
        for whom in chosen {
            let is_seen = whom.node.disk == who.node.disk
                || who.sees.iter().any(|seen| seen.disk == whom.node.disk);
            if !is_seen {
                return Some((&who.node.name, &whom.node.name));
            }
        }
    }
    None
}

fn disagreement(me: &Greeting, other: &Greeting) -> String {
    let (mine, theirs) = (me.terms, other.terms);
    let differing = [
        ("cluster.expect", mine.expect, theirs.expect),
        ("cluster.shards", mine.shards, theirs.shards),
        ("cluster.replicas", mine.replicas, theirs.replicas),
    ];
    let differing: Vec<String> = differing
        .iter()
        .filter(|(_, mine, theirs)| mine != theirs)
        .map(|(key, mine, theirs)| format!("{key} is {mine} here and {theirs} there"))
        .collect();
    format!(
        "{} at {} has other settings: {}",
        other.node.name,
        other.node.address,
        differing.join(", ")
    )
}

/// What is known of a promise's other parties, all of it asked after the promise was made.
pub(super) struct PartyView<'a> {
    pub party: &'a PlannedNode,
    /// What the disk of the plan claims.
    pub claim: Option<Claim>,
    /// Another disk answers in its place.
    pub replaced: bool,
}

/// For a node that is promised to a plan. `anyone` are all claims, however old: a member stays one.
pub(super) fn planned_step<'a>(
    me: DiskId,
    plan: &Plan,
    anyone: impl Iterator<Item = &'a Claim>,
    parties: &[PartyView<'_>],
) -> Step {
    for claim in anyone {
        if matches!(claim, Claim::Member { cluster, .. } if *cluster == plan.cluster) {
            return Step::BecomeMember;
        }
    }
    let coordinates = plan.coordinator == me;
    for view in parties {
        let is_coordinator = view.party.disk == plan.coordinator;
        if !coordinates && !is_coordinator {
            continue;
        }
        let place = format!("{} at {}", view.party.name, view.party.address);
        match &view.claim {
            Some(Claim::Planned { cluster }) if *cluster == plan.cluster => {}
            // The promise is still on its way to it.
            Some(Claim::Fresh) if coordinates => {}
            Some(Claim::Fresh) => return Step::DropPlan(format!("{place} has dropped it")),
            Some(Claim::Planned { .. }) => {
                return Step::DropPlan(format!("{place} is promised to another plan"));
            }
            Some(Claim::Member { cluster, .. }) => {
                return Step::DropPlan(format!("{place} is a member of cluster {cluster}"));
            }
            None if view.replaced && coordinates => {
                return Step::DropPlan(format!("{place} has lost its disk"));
            }
            None if view.replaced => {
                // Only the coordinator makes the first member. It may have become it itself, but no
                // one else of the plan knows: without its disk that cluster has no majority.
                let rest = parties
                    .iter()
                    .filter(|view| view.party.disk != plan.coordinator);
                if rest
                    .clone()
                    .all(|view| view.claim.is_some() || view.replaced)
                {
                    return Step::DropPlan(format!("{place} has lost its disk"));
                }
                return Step::Wait(format!(
                    "{place} has lost its disk, waiting for the other planned nodes to tell what became of its plan"
                ));
            }
            None => {}
        }
    }
    let (coordinator, address) = plan
        .nodes
        .iter()
        .find(|node| node.disk == plan.coordinator)
        .map_or(("?", "?"), |node| (&node.name, &node.address));
    Step::Wait(format!(
        "waiting for the {} planned nodes, on the word of {coordinator} at {address}",
        plan.nodes.len()
    ))
}
