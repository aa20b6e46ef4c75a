//! Who gets a signal or a request: those of this node who listen, nodes where somebody does, and one
//! member of each group, wherever its members are.

mod group;
mod remote;
#[cfg(test)]
mod table_test;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use flotilla_model::ids::NodeId;
use flotilla_model::name::{Kind, Name};
use flotilla_model::pattern::{Pattern, PatternTrie};

use crate::hub::interest::Key;
use crate::hub::table::group::Group;
use crate::hub::table::remote::Remote;

pub(crate) use crate::hub::table::remote::Told;

/// One who listens on this node.
pub(crate) trait Member {
    /// Of [`Table::next_id`].
    fn id(&self) -> u64;
    /// Whether it keeps up: of a group, one who does is chosen first.
    fn has_room(&self) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Listener(u64),
    /// Listeners of another node that listen alone to one pattern.
    Remote(u64),
    Group(u64),
}

/// The place of one who listens on this node.
pub(crate) struct Place<M> {
    pub listener: Arc<M>,
    pub key: Arc<Key>,
    pattern: Pattern,
    group: Option<u64>,
}

/// What one message goes to.
#[derive(Default)]
pub(crate) struct Match {
    pub listeners: Vec<u64>,
    /// Nodes: whether for all who listen alone there, and for which groups.
    pub nodes: BTreeMap<NodeId, (bool, Vec<Arc<Key>>)>,
    /// How many listeners those are.
    pub count: u64,
    /// The next message of the same name may go to others.
    pub takes_turns: bool,
}

/// Who was chosen of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    Here(u64),
    There(NodeId),
}

/// All that is known of who listens.
pub(crate) struct Table<M> {
    last_id: u64,
    places: HashMap<u64, Place<M>>,
    spaces: BTreeMap<Kind, HashMap<String, PatternTrie<Target>>>,
    groups: HashMap<u64, Group>,
    group_ids: HashMap<Arc<Key>, u64>,
    remotes: HashMap<u64, Remote>,
    /// What each node told: of its groups nothing more than that there are some.
    told: HashMap<NodeId, HashMap<Key, Option<u64>>>,
    /// The conversation that each node's part comes from.
    conversations: HashMap<NodeId, u64>,
}

impl<M> Default for Table<M> {
    fn default() -> Self {
        Self {
            last_id: 0,
            places: HashMap::new(),
            spaces: BTreeMap::new(),
            groups: HashMap::new(),
            group_ids: HashMap::new(),
            remotes: HashMap::new(),
            told: HashMap::new(),
            conversations: HashMap::new(),
        }
    }
}

impl<M: Member> Table<M> {
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// How many listen on this node.
    pub fn listeners(&self) -> usize {
        self.places.len()
    }

    pub fn place(&self, id: u64) -> Option<&Place<M>> {
        self.places.get(&id)
    }

    pub fn places(&self) -> impl Iterator<Item = &Place<M>> {
        self.places.values()
    }

    /// Adds a listener of this node.
    pub fn join(&mut self, listener: Arc<M>, key: Key, pattern: Pattern) {
        let id = listener.id();
        let group = key.group.is_some().then(|| self.group(&key, &pattern));
        match group.and_then(|group| self.groups.get_mut(&group)) {
            Some(group) => group.join(id),
            None => self.put(&key, &pattern, Target::Listener(id)),
        }
        let place = Place {
            listener,
            key: Arc::new(key),
            pattern,
            group,
        };
        self.places.insert(id, place);
    }

    /// Removes a listener of this node, and returns what it was.
    pub fn leave(&mut self, listener: u64) -> Option<Place<M>> {
        let place = self.places.remove(&listener)?;
        match place.group {
            Some(id) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.leave(listener);
                }
                self.drop_empty(id);
            }
            None => self.take(&place.key, &place.pattern, Target::Listener(listener)),
        }
        Some(place)
    }

    /// Who is to get a message that was published here. Groups take turns.
    pub fn find(&mut self, name: &Name) -> Match {
        let mut found = Match::default();
        let spaces = self.spaces.get(&name.kind());
        let Some(space) = spaces.and_then(|spaces| spaces.get(name.namespace())) else {
            return found;
        };
        let (groups, places, remotes) = (&mut self.groups, &self.places, &self.remotes);
        space.for_each_match(name.text(), |target| match target {
            Target::Listener(id) => {
                found.listeners.push(*id);
                found.count += 1;
            }
            Target::Remote(id) => {
                if let Some(remote) = remotes.get(id) {
                    found.nodes.entry(remote.node).or_default().0 = true;
                    found.count += u64::from(remote.count);
                }
            }
            Target::Group(id) => {
                let Some(group) = groups.get_mut(id) else {
                    return;
                };
                found.count += 1;
                found.takes_turns = true;
                match group.choose(places) {
                    Some(Chosen::There(node)) => {
                        let (_, keys) = found.nodes.entry(node).or_default();
                        keys.push(Arc::clone(&group.key));
                    }
                    Some(Chosen::Here(member)) => found.listeners.push(member),
                    None => {}
                }
            }
        });
        found
    }

    /// Who of this node is to get a message that another node sent: all who listen alone, if it says
    /// so, and one member of each group that it chose this node for.
    pub fn find_here(&mut self, name: &Name, to_all: bool, chosen: &[Key]) -> Vec<u64> {
        let mut found = Vec::new();
        let spaces = self.spaces.get(&name.kind());
        if to_all && let Some(space) = spaces.and_then(|spaces| spaces.get(name.namespace())) {
            space.for_each_match(name.text(), |target| {
                if let Target::Listener(id) = target {
                    found.push(*id);
                }
            });
        }
        for key in chosen {
            let group = self
                .group_ids
                .get(key)
                .and_then(|id| self.groups.get_mut(id));
            found.extend(group.and_then(|group| group.pick(&self.places)));
        }
        found
    }

    /// Somebody else of a group who may have room, on any node.
    pub fn choose_other(
        &mut self,
        group: &Key,
        is_tried: impl Fn(Chosen) -> bool,
    ) -> Option<Chosen> {
        let id = self.group_ids.get(group)?;
        let group = self.groups.get_mut(id)?;
        group.choose_other(&self.places, is_tried)
    }

    /// The same, on this node.
    pub fn choose_other_here(
        &mut self,
        group: &Key,
        is_tried: impl Fn(Chosen) -> bool,
    ) -> Option<Chosen> {
        let id = self.group_ids.get(group)?;
        let group = self.groups.get_mut(id)?;
        let chosen = group.pick_other(&self.places, |member| is_tried(Chosen::Here(member)));
        chosen.map(Chosen::Here)
    }

    /// How many listen to a name, on all nodes.
    pub fn count(&self, name: &Name) -> u64 {
        let mut count = 0;
        let spaces = self.spaces.get(&name.kind());
        if let Some(space) = spaces.and_then(|spaces| spaces.get(name.namespace())) {
            space.for_each_match(name.text(), |target| {
                count += match target {
                    Target::Listener(_) => 1,
                    Target::Remote(id) => {
                        let remote = self.remotes.get(id);
                        remote.map_or(0, |remote| u64::from(remote.count))
                    }
                    Target::Group(id) => self.groups.get(id).map_or(0, Group::count),
                };
            });
        }
        count
    }

    fn group(&mut self, key: &Key, pattern: &Pattern) -> u64 {
        if let Some(id) = self.group_ids.get(key) {
            return *id;
        }
        let id = self.next_id();
        self.put(key, pattern, Target::Group(id));
        let key = Arc::new(key.clone());
        self.group_ids.insert(Arc::clone(&key), id);
        self.groups.insert(id, Group::new(key, pattern.clone()));
        id
    }

    fn drop_empty(&mut self, id: u64) {
        if self.groups.get(&id).is_some_and(Group::is_empty)
            && let Some(group) = self.groups.remove(&id)
        {
            self.group_ids.remove(&group.key);
            self.take(&group.key, &group.pattern, Target::Group(id));
        }
    }

    fn put(&mut self, key: &Key, pattern: &Pattern, target: Target) {
        let spaces = self.spaces.entry(key.kind).or_default();
        let space = spaces.entry(key.namespace.clone()).or_default();
        space.insert(pattern, target);
    }

    fn take(&mut self, key: &Key, pattern: &Pattern, target: Target) {
        let Some(spaces) = self.spaces.get_mut(&key.kind) else {
            return;
        };
        if let Some(space) = spaces.get_mut(&key.namespace) {
            space.remove(pattern, &target);
            if space.is_empty() {
                spaces.remove(&key.namespace);
            }
        }
        if spaces.is_empty() {
            self.spaces.remove(&key.kind);
        }
    }
}
