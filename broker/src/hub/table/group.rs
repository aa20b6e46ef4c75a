//! A group: those who share, on this node and on others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use flotilla_model::ids::NodeId;
use flotilla_model::pattern::Pattern;

use crate::hub::interest::Key;
use crate::hub::table::{Chosen, Member, Place};

/// The members of a group.
pub(super) struct Group {
    pub key: Arc<Key>,
    pub pattern: Pattern,
    /// On this node.
    members: Vec<u64>,
    /// On other nodes.
    elsewhere: BTreeMap<NodeId, u32>,
    turn: usize,
    /// Whose turn it is among the members here.
    turn_here: usize,
    /// Which node's turn it is to take what members here have no room for.
    turn_there: usize,
}

impl Group {
    pub fn new(key: Arc<Key>, pattern: Pattern) -> Self {
        Self {
            key,
            pattern,
            members: Vec::new(),
            elsewhere: BTreeMap::new(),
            turn: 0,
            turn_here: 0,
            turn_there: 0,
        }
    }

    pub fn join(&mut self, member: u64) {
        self.members.push(member);
    }

    pub fn leave(&mut self, member: u64) {
        self.members.retain(|one| *one != member);
    }

    /// Another node has so many members now.
    pub fn set_elsewhere(&mut self, node: NodeId, count: u32) {
        if count > 0 {
            self.elsewhere.insert(node, count);
        } else {
            self.elsewhere.remove(&node);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.elsewhere.is_empty()
    }

    pub fn count(&self) -> u64 {
        let elsewhere: u64 = self.elsewhere.values().map(|count| u64::from(*count)).sum();
        self.members.len() as u64 + elsewhere
    }

    /// The next in turn, each node as often as it has members. A member here that does not keep up is
    /// passed over as long as there is anybody else.
    pub fn choose<M: Member>(&mut self, places: &HashMap<u64, Place<M>>) -> Option<Chosen> {
        let in_turn = self.node_in_turn();
        in_turn
            .map(Chosen::There)
            .or_else(|| self.choose_other(places, |_| false))
            .or_else(|| self.next_here(|_| true).map(Chosen::Here))
    }

    /// Somebody who keeps up, as far as is known, and who was not tried; members here before others.
    pub fn choose_other<M: Member>(
        &mut self,
        places: &HashMap<u64, Place<M>>,
        is_tried: impl Fn(Chosen) -> bool,
    ) -> Option<Chosen> {
        let here = self.pick_other(places, |member| is_tried(Chosen::Here(member)));
        here.map(Chosen::Here).or_else(|| {
            let first = self.turn_there;
            let count = self.elsewhere.len();
            let in_turn = self.elsewhere.keys().cycle().skip(first).take(count);
            let chosen = in_turn.map(|node| Chosen::There(*node));
            let chosen = chosen.enumerate().find(|(_, node)| !is_tried(*node));
            let (steps, node) = chosen?;
            self.turn_there = (first + steps + 1) % count;
            Some(node)
        })
    }

    /// The node whose turn it is; `None` is this one.
    fn node_in_turn(&mut self) -> Option<NodeId> {
        let all = self.count();
        let mut place = self.turn as u64 % all.max(1);
        self.turn = self.turn.wrapping_add(1);
        if place < self.members.len() as u64 {
            return None;
        }
        place -= self.members.len() as u64;
        for (node, count) in &self.elsewhere {
            if place < u64::from(*count) {
                return Some(*node);
            }
            place -= u64::from(*count);
        }
        None
    }

    /// The next member here in turn that keeps up; if none does, the next in turn.
    pub fn pick<M: Member>(&mut self, places: &HashMap<u64, Place<M>>) -> Option<u64> {
        self.pick_other(places, |_| false)
            .or_else(|| self.next_here(|_| true))
    }

    /// The next member here in turn that keeps up and was not tried.
    pub fn pick_other<M: Member>(
        &mut self,
        places: &HashMap<u64, Place<M>>,
        is_tried: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        self.next_here(|member| {
            let place = places.get(&member);
            place.is_some_and(|place| place.listener.has_room()) && !is_tried(member)
        })
    }

    fn next_here(&mut self, may_be: impl Fn(u64) -> bool) -> Option<u64> {
        let count = self.members.len();
        let first = self.turn_here;
        let mut in_turn = (0..count).map(|step| (first + step) % count);
        let chosen = in_turn.find(|place| may_be(self.members[*place]))?;
        self.turn_here = (chosen + 1) % count;
        Some(self.members[chosen])
    }
}
