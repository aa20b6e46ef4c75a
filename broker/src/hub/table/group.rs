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

    /// The next in turn, each node as often as it has members.
    pub fn choose<M: Member>(&mut self, places: &HashMap<u64, Place<M>>) -> Option<Chosen> {
        match self.choose_node() {
            Some(node) => Some(Chosen::There(node)),
            None => self.pick(places).map(Chosen::Here),
        }
    }

    /// The node whose turn it is; `None` is this one.
    fn choose_node(&mut self) -> Option<NodeId> {
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
        let count = self.members.len();
        let first = self.turn_here;
        let in_turn = (0..count).map(|step| (first + step) % count);
        let keeps_up = |place: &usize| {
            let member = places.get(&self.members[*place]);
            member.is_some_and(|place| place.listener.has_room())
        };
        let chosen = in_turn.clone().find(keeps_up).or(in_turn.clone().next())?;
        self.turn_here = (chosen + 1) % count;
        Some(self.members[chosen])
    }
}
