//! Which nodes hold which shard: decided here, without a network or a clock.
//!
//! A step changes each shard by one replica at most, so that a shard leader can follow it with one change
//! of membership. In this order: what is held by nodes that are leaving goes elsewhere, missing replicas
//! are added, surplus ones taken away, zones are used evenly, then nodes are, then leaders are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use flotilla_model::ids::NodeId;

/// More replicas than these on the move at one node would compete with its clients.
const MOVES_PER_NODE_MAX: usize = 2;

/// A node to place replicas on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub node: NodeId,
    pub zone: String,
}

/// A node as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub spot: Spot,
    /// It answers: new replicas may go to it.
    pub is_up: bool,
    /// Its replicas are to go elsewhere.
    pub is_leaving: bool,
    /// It was asked to leave, and does not come back as one that is only gone may.
    pub is_draining: bool,
}

impl Holder {
    /// New replicas may go to it.
    pub fn takes(&self) -> bool {
        self.is_up && !self.is_leaving
    }
}

/// A shard as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Who is to hold it, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Its membership has not reached what was decided before, or is not known.
    pub is_moving: bool,
}

/// The first placement of all shards.
pub(crate) fn initial(spots: &[Spot], shards: u32, replicas: u32) -> Vec<Vec<NodeId>> {
    let holders: Vec<Holder> = spots
        .iter()
        .map(|spot| Holder {
            spot: spot.clone(),
            is_up: true,
            is_leaving: false,
            is_draining: false,
        })
        .collect();
    let mut layout = Layout::new(&holders, vec![Vec::new(); shards as usize]);
    let count = (replicas as usize).min(holders.len());
    for shard in 0..shards as usize {
        for _ in 0..count {
            if let Some(node) = layout.best_target(&layout.placed[shard]) {
                layout.placed[shard].push(node);
                layout.count(node, 1);
            }
        }
    }
    layout.balance_leaders(|_| true);
    let mut placed = layout.placed;
    // Nothing is on the nodes yet, so that what is left to even out can be done at once. It ends, since
    // every step makes the differences smaller; the bound is for the reader.
    for _ in 0..placed.len() * holders.len() {
        let shards: Vec<Placed> = placed
            .iter()
            .map(|replicas| Placed {
                replicas: replicas.clone(),
                is_moving: false,
            })
            .collect();
        let changes = next(&holders, &shards, replicas);
        if changes.is_empty() {
            break;
        }
        for (shard, replicas) in changes {
            placed[shard] = replicas;
        }
    }
    placed
}

/// The next changes, as shards (by their place) with their new replicas. Empty when all is well, or when
/// what is under way must end first.
pub(crate) fn next(
    holders: &[Holder],
    placed: &[Placed],
    replicas: u32,
) -> Vec<(usize, Vec<NodeId>)> {
    let present: Vec<Vec<NodeId>> = placed.iter().map(|shard| shard.replicas.clone()).collect();
    let mut layout = Layout::new(holders, present.clone());
    for (shard, state) in placed.iter().enumerate() {
        if state.is_moving {
            layout.touch(&state.replicas);
            layout.frozen.insert(shard);
        }
    }
    let staying = holders.iter().filter(|holder| !holder.is_leaving).count();
    let wanted = (replicas as usize).min(staying);
    for shard in 0..present.len() {
        layout.step(shard, wanted, replicas as usize);
    }
    layout.balance_nodes();
    // The order of replicas costs nothing to change, but is taken from what is decided by now.
    let moved: BTreeSet<usize> = layout.frozen.clone();
    layout.balance_leaders(|shard| !moved.contains(&shard));
    layout
        .placed
        .into_iter()
        .enumerate()
        .filter(|(shard, replicas)| present[*shard] != *replicas)
        .collect()
}

struct Layout<'a> {
    holders: BTreeMap<NodeId, &'a Holder>,
    placed: Vec<Vec<NodeId>>,
    /// Replicas of each node.
    counts: BTreeMap<NodeId, usize>,
    /// Moves to or from each node.
    moves: BTreeMap<NodeId, usize>,
    /// Shards that must not be changed in this step any more.
    frozen: BTreeSet<usize>,
}

impl<'a> Layout<'a> {
    fn new(holders: &'a [Holder], placed: Vec<Vec<NodeId>>) -> Self {
        let mut layout = Self {
            holders: holders
                .iter()
                .map(|holder| (holder.spot.node, holder))
                .collect(),
            counts: holders.iter().map(|holder| (holder.spot.node, 0)).collect(),
            placed: Vec::new(),
            moves: BTreeMap::new(),
            frozen: BTreeSet::new(),
        };
        for node in placed.iter().flatten() {
            layout.count(*node, 1);
        }
        layout.placed = placed;
        layout
    }

    fn count(&mut self, node: NodeId, change: isize) {
        let count = self.counts.entry(node).or_default();
        *count = count.saturating_add_signed(change);
    }

    fn touch(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            *self.moves.entry(*node).or_default() += 1;
        }
    }

    fn is_busy(&self, node: NodeId) -> bool {
        self.moves
            .get(&node)
            .is_some_and(|moves| *moves >= MOVES_PER_NODE_MAX)
    }

    fn takes(&self, node: NodeId) -> bool {
        self.holders.get(&node).is_some_and(|holder| holder.takes())
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.holders.get(&node).is_some_and(|holder| holder.is_up)
    }

    fn is_leaving(&self, node: NodeId) -> bool {
        // A node that nobody knows any more has left.
        self.holders
            .get(&node)
            .is_none_or(|holder| holder.is_leaving)
    }

    fn zone(&self, node: NodeId) -> &'a str {
        self.holders
            .get(&node)
            .map_or("", |holder| &holder.spot.zone)
    }

    fn in_zone(&self, nodes: &[NodeId], zone: &str) -> usize {
        nodes
            .iter()
            .filter(|node| self.zone(**node) == zone)
            .count()
    }

    /// Where another replica of a shard would be best.
    fn best_target(&self, rest: &[NodeId]) -> Option<NodeId> {
        self.holders
            .values()
            .filter(|holder| holder.takes() && !rest.contains(&holder.spot.node))
            .filter(|holder| !self.is_busy(holder.spot.node))
            .map(|holder| holder.spot.node)
            .min_by_key(|node| {
                (
                    self.in_zone(rest, self.zone(*node)),
                    self.counts[node],
                    *node,
                )
            })
    }

    /// Whether a change leaves a shard as able to write as it was.
    fn keeps_quorum(&self, before: &[NodeId], after: &[NodeId]) -> bool {
        let up = |nodes: &[NodeId]| nodes.iter().filter(|node| self.is_up(**node)).count();
        // Both memberships agree to a change: without a majority of each it would never end.
        2 * up(before) > before.len() && 2 * up(after) > after.len()
    }

    fn set(&mut self, shard: usize, replicas: Vec<NodeId>, touched: &[NodeId]) -> bool {
        if !self.keeps_quorum(&self.placed[shard], &replicas) {
            return false;
        }
        for node in self.placed[shard].clone() {
            self.count(node, -1);
        }
        for node in &replicas {
            self.count(*node, 1);
        }
        self.touch(touched);
        self.placed[shard] = replicas;
        self.frozen.insert(shard);
        true
    }

    /// One replica in place of another, which keeps the order of the others.
    fn swap(&mut self, shard: usize, from: NodeId, to: NodeId) -> bool {
        let replicas = self.placed[shard]
            .iter()
            .map(|node| if *node == from { to } else { *node })
            .collect();
        self.set(shard, replicas, &[from, to])
    }

    /// `wanted` is what there is room for, `most` what is asked for.
    fn step(&mut self, shard: usize, wanted: usize, most: usize) {
        if self.frozen.contains(&shard) {
            return;
        }
        let present = self.placed[shard].clone();
        let leaving = present
            .iter()
            .copied()
            // Who does not answer first: its replicas are missing already.
            .filter(|node| self.is_leaving(*node))
            .min_by_key(|node| self.is_up(*node));
        if present.len() > most {
            let surplus = leaving.or_else(|| self.most_crowded(&present));
            if let Some(from) = surplus
                && !(self.is_up(from) && self.is_busy(from))
            {
                self.set(shard, without(&present, from), &[from]);
            }
            return;
        }
        if let Some(from) = leaving {
            if self.is_up(from) && self.is_busy(from) {
                return;
            }
            if let Some(to) = self.best_target(&without(&present, from))
                // Without room the replica stays: it may come back, or is at least one more.
                && to != from
            {
                self.swap(shard, from, to);
            }
            return;
        }
        if present.len() < wanted {
            if let Some(to) = self.best_target(&present) {
                let mut more = present;
                more.push(to);
                self.set(shard, more, &[to]);
            }
            return;
        }
        self.spread(shard, &present);
    }

    /// The replica that shares its zone, or else its node, with the most others.
    fn most_crowded(&self, replicas: &[NodeId]) -> Option<NodeId> {
        replicas.iter().copied().max_by_key(|node| {
            (
                !self.is_up(*node),
                self.in_zone(replicas, self.zone(*node)),
                self.counts.get(node).copied().unwrap_or(0),
                *node,
            )
        })
    }

    /// Moves a replica to a zone that has fewer of them.
    fn spread(&mut self, shard: usize, present: &[NodeId]) {
        let Some(from) = present
            .iter()
            .copied()
            .max_by_key(|node| (self.in_zone(present, self.zone(*node)), *node))
        else {
            return;
        };
        let rest = without(present, from);
        let Some(to) = self.best_target(&rest) else {
            return;
        };
        let is_better = self.in_zone(&rest, self.zone(to)) < self.in_zone(&rest, self.zone(from));
        if is_better && !self.is_busy(from) {
            self.swap(shard, from, to);
        }
    }

    /// Moves replicas from full nodes to empty ones, as long as no zone gets worse by it.
    fn balance_nodes(&mut self) {
        for shard in 0..self.placed.len() {
            if self.frozen.contains(&shard) {
                continue;
            }
            let present = self.placed[shard].clone();
            let mut sources: Vec<NodeId> = present
                .iter()
                .copied()
                .filter(|node| self.takes(*node) && !self.is_busy(*node))
                .collect();
            sources.sort_by_key(|node| Reverse((self.counts[node], *node)));
            for from in sources {
                let rest = without(&present, from);
                let crowd = self.in_zone(&rest, self.zone(from));
                let to = self
                    .holders
                    .keys()
                    .copied()
                    .filter(|node| self.takes(*node) && !rest.contains(node) && *node != from)
                    .filter(|node| !self.is_busy(*node))
                    .filter(|node| self.in_zone(&rest, self.zone(*node)) <= crowd)
                    .min_by_key(|node| (self.counts[node], *node));
                // A difference of one cannot be made smaller.
                if let Some(to) = to
                    && self.counts[&to] + 2 <= self.counts[&from]
                    && self.swap(shard, from, to)
                {
                    break;
                }
            }
        }
    }

    /// Puts the replicas in such an order that preferred leaders are spread evenly.
    fn balance_leaders(&mut self, may_change: impl Fn(usize) -> bool) {
        let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
        for replicas in &self.placed {
            if let Some(first) = replicas.first() {
                *leads.entry(*first).or_default() += 1;
            }
        }
        let leads_of =
            |leads: &BTreeMap<NodeId, usize>, node: NodeId| leads.get(&node).copied().unwrap_or(0);
        // Each exchange makes the sum of squares smaller, so this ends; the bound is for the reader.
        for _ in 0..self.placed.len() * self.holders.len().max(1) {
            let exchange = (0..self.placed.len())
                .filter(|shard| may_change(*shard))
                .find_map(|shard| {
                    let replicas = &self.placed[shard];
                    let first = *replicas.first()?;
                    let place = (1..replicas.len())
                        .filter(|place| !self.is_leaving(replicas[*place]))
                        .min_by_key(|place| (leads_of(&leads, replicas[*place]), *place))?;
                    let is_better = self.is_leaving(first)
                        || leads_of(&leads, replicas[place]) + 2 <= leads_of(&leads, first);
                    is_better.then_some((shard, place))
                });
            let Some((shard, place)) = exchange else {
                return;
            };
            let replicas = &mut self.placed[shard];
            *leads.entry(replicas[0]).or_default() -= 1;
            *leads.entry(replicas[place]).or_default() += 1;
            replicas.swap(0, place);
        }
    }
}

fn without(nodes: &[NodeId], gone: NodeId) -> Vec<NodeId> {
    nodes.iter().copied().filter(|node| *node != gone).collect()
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
