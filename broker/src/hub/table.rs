//! Who gets a signal: listeners of this node, nodes with listeners, and one member of each group,
//! wherever its members are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use flotilla_model::ids::NodeId;
use flotilla_model::name::Name;
use flotilla_model::pattern::{Pattern, PatternTrie};

use crate::hub::interest::Key;
use crate::hub::listener::Listener;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Listener(u64),
    /// Listeners of another node that listen alone to one pattern.
    Remote(u64),
    Group(u64),
}

/// Listeners that share.
struct Group {
    key: Arc<Key>,
    pattern: Pattern,
    /// On this node.
    members: Vec<u64>,
    /// On other nodes.
    elsewhere: BTreeMap<NodeId, u32>,
    turn: usize,
    /// Whose turn it is among the members here.
    turn_here: usize,
}

/// A listener of this node.
pub(crate) struct Place {
    pub listener: Arc<Listener>,
    pub key: Arc<Key>,
    pattern: Pattern,
    group: Option<u64>,
}

struct Remote {
    node: NodeId,
    count: u32,
    pattern: Pattern,
    namespace: String,
}

/// What one signal goes to.
#[derive(Default)]
pub(crate) struct Match {
    pub listeners: Vec<u64>,
    /// Nodes: whether for all who listen alone there, and for which groups.
    pub nodes: BTreeMap<NodeId, (bool, Vec<Arc<Key>>)>,
    /// How many listeners those are.
    pub count: u64,
}

/// All that is known of who listens.
#[derive(Default)]
pub(crate) struct Table {
    last_id: u64,
    places: HashMap<u64, Place>,
    spaces: HashMap<String, PatternTrie<Target>>,
    groups: HashMap<u64, Group>,
    group_ids: HashMap<Arc<Key>, u64>,
    remotes: HashMap<u64, Remote>,
    /// What each node told: of its groups nothing more than that there are some.
    told: HashMap<NodeId, HashMap<Key, Option<u64>>>,
}

impl Table {
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// How many listen on this node.
    pub fn listeners(&self) -> usize {
        self.places.len()
    }

    pub fn place(&self, id: u64) -> Option<&Place> {
        self.places.get(&id)
    }

    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.places.values()
    }

    /// Adds a listener of this node.
    pub fn join(&mut self, listener: Arc<Listener>, key: Key, pattern: Pattern) {
        let id = listener.id;
        let group = key.group.is_some().then(|| self.group(&key, &pattern));
        match group.and_then(|group| self.groups.get_mut(&group)) {
            Some(group) => group.members.push(id),
            None => self.put(&key.namespace, &pattern, Target::Listener(id)),
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
    pub fn leave(&mut self, listener: u64) -> Option<Place> {
        let place = self.places.remove(&listener)?;
        match place.group {
            Some(id) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.members.retain(|member| *member != listener);
                }
                self.drop_empty(id);
            }
            None => {
                let target = Target::Listener(listener);
                self.take(&place.key.namespace, &place.pattern, target);
            }
        }
        Some(place)
    }

    /// Another node has so many listeners under a key now. False if it may have no more keys.
    pub fn set_remote(&mut self, node: NodeId, key: Key, count: u32, keys_max: usize) -> bool {
        let Ok(pattern) = Pattern::parse(&key.pattern) else {
            return true;
        };
        let told = self.told.entry(node).or_default();
        if count > 0 && told.len() >= keys_max && !told.contains_key(&key) {
            return false;
        }
        if key.group.is_some() {
            if count > 0 {
                told.insert(key.clone(), None);
            } else {
                told.remove(&key);
            }
            self.set_group(node, &key, pattern, count);
        } else {
            self.set_alone(node, key, pattern, count);
        }
        true
    }

    fn set_group(&mut self, node: NodeId, key: &Key, pattern: Pattern, count: u32) {
        if count == 0 && !self.group_ids.contains_key(key) {
            return;
        }
        let id = self.group(key, &pattern);
        if let Some(group) = self.groups.get_mut(&id) {
            if count > 0 {
                group.elsewhere.insert(node, count);
            } else {
                group.elsewhere.remove(&node);
            }
        }
        self.drop_empty(id);
    }

    fn set_alone(&mut self, node: NodeId, key: Key, pattern: Pattern, count: u32) {
        let told = self.told.entry(node).or_default();
        match told.get(&key).copied().flatten() {
            Some(id) if count > 0 => {
                if let Some(remote) = self.remotes.get_mut(&id) {
                    remote.count = count;
                }
            }
            Some(id) => {
                told.remove(&key);
                self.remotes.remove(&id);
                self.take(&key.namespace, &pattern, Target::Remote(id));
            }
            None if count > 0 => {
                self.last_id += 1;
                let id = self.last_id;
                let namespace = key.namespace.clone();
                told.insert(key, Some(id));
                self.put(&namespace, &pattern, Target::Remote(id));
                let remote = Remote {
                    node,
                    count,
                    pattern,
                    namespace,
                };
                self.remotes.insert(id, remote);
            }
            None => {}
        }
    }

    /// What a node told no longer counts.
    pub fn forget(&mut self, node: NodeId) {
        for (key, remote) in self.told.remove(&node).unwrap_or_default() {
            match remote {
                Some(id) => {
                    if let Some(remote) = self.remotes.remove(&id) {
                        self.take(&remote.namespace, &remote.pattern, Target::Remote(id));
                    }
                }
                None => {
                    let Some(id) = self.group_ids.get(&key).copied() else {
                        continue;
                    };
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.elsewhere.remove(&node);
                    }
                    self.drop_empty(id);
                }
            }
        }
    }

    /// Who is to get a signal that was published here. Groups take turns.
    pub fn find(&mut self, name: &Name) -> Match {
        let mut found = Match::default();
        let Some(space) = self.spaces.get(name.namespace()) else {
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
                match group.choose_node() {
                    Some(node) => {
                        let (_, keys) = found.nodes.entry(node).or_default();
                        keys.push(Arc::clone(&group.key));
                    }
                    None => found.listeners.extend(group.pick(places)),
                }
            }
        });
        found
    }

    /// Who of this node is to get a signal that another node sent: all who listen alone, if it says
    /// so, and one member of each group that it chose this node for.
    pub fn find_here(&mut self, name: &Name, to_all: bool, chosen: &[Key]) -> Vec<u64> {
        let mut found = Vec::new();
        if to_all && let Some(space) = self.spaces.get(name.namespace()) {
            space.for_each_match(name.text(), |target| {
                if let Target::Listener(id) = target {
                    found.push(*id);
                }
            });
        }
        for key in chosen {
            let group = self.group_ids.get(key);
            if let Some(group) = group.and_then(|id| self.groups.get_mut(id)) {
                found.extend(group.pick(&self.places));
            }
        }
        found
    }

    /// How many listen to a name, on all nodes.
    pub fn count(&self, name: &Name) -> u64 {
        let mut count = 0;
        if let Some(space) = self.spaces.get(name.namespace()) {
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
        self.put(&key.namespace, pattern, Target::Group(id));
        let key = Arc::new(key.clone());
        self.group_ids.insert(Arc::clone(&key), id);
        let group = Group {
            key,
            pattern: pattern.clone(),
            members: Vec::new(),
            elsewhere: BTreeMap::new(),
            turn: 0,
            turn_here: 0,
        };
        self.groups.insert(id, group);
        id
    }

    fn drop_empty(&mut self, id: u64) {
        let is_empty = |group: &&Group| group.members.is_empty() && group.elsewhere.is_empty();
        if self.groups.get(&id).filter(is_empty).is_some()
            && let Some(group) = self.groups.remove(&id)
        {
            self.group_ids.remove(&group.key);
            self.take(&group.key.namespace, &group.pattern, Target::Group(id));
        }
    }

    fn put(&mut self, namespace: &str, pattern: &Pattern, target: Target) {
        let space = self.spaces.entry(namespace.to_owned()).or_default();
        space.insert(pattern, target);
    }

    fn take(&mut self, namespace: &str, pattern: &Pattern, target: Target) {
        if let Some(space) = self.spaces.get_mut(namespace) {
            space.remove(pattern, &target);
            if space.is_empty() {
                self.spaces.remove(namespace);
            }
        }
    }
}

impl Group {
    fn count(&self) -> u64 {
        let elsewhere: u64 = self.elsewhere.values().map(|count| u64::from(*count)).sum();
        self.members.len() as u64 + elsewhere
    }

    /// The node whose turn it is, each as often as it has members; `None` is this one.
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
    fn pick(&mut self, places: &HashMap<u64, Place>) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;
    use crate::hub::listener::Bounds;

    const KEYS_MAX: usize = 100;

    fn key(pattern: &str, group: Option<&str>) -> Key {
        Key {
            namespace: "default".to_owned(),
            pattern: pattern.to_owned(),
            group: group.map(str::to_owned),
        }
    }

    fn join(table: &mut Table, key: Key) -> u64 {
        let id = table.next_id();
        let bounds = Bounds::of(&BrokerConfig::default());
        let listener = Arc::new(Listener::new(id, bounds, Arc::default()));
        let pattern = Pattern::parse(&key.pattern).expect("a pattern");
        table.join(listener, key, pattern);
        id
    }

    fn name(text: &str) -> Name {
        Name::signal(text).expect("a name")
    }

    #[test]
    fn a_group_takes_turns_by_the_members_of_each_node() {
        let mut table = Table::default();
        let (here, two, three) = (NodeId(1), NodeId(2), NodeId(3));
        join(&mut table, key("a.*", Some("g")));
        table.set_remote(two, key("a.*", Some("g")), 2, KEYS_MAX);
        table.set_remote(three, key("a.*", Some("g")), 1, KEYS_MAX);
        let mut chosen: BTreeMap<NodeId, u32> = BTreeMap::new();
        for _ in 0..40 {
            let found = table.find(&name("a.b"));
            let node = found.nodes.keys().next().copied().unwrap_or(here);
            assert_eq!(found.listeners.len() + found.nodes.len(), 1, "exactly one");
            *chosen.entry(node).or_default() += 1;
        }
        assert_eq!(chosen, BTreeMap::from([(here, 10), (two, 20), (three, 10)]));
        assert_eq!(table.count(&name("a.b")), 4);
    }

    #[test]
    fn a_node_gets_a_signal_once_and_nothing_when_it_is_forgotten() {
        let mut table = Table::default();
        let node = NodeId(2);
        table.set_remote(node, key("a.>", None), 3, KEYS_MAX);
        table.set_remote(node, key("a.b", None), 1, KEYS_MAX);
        table.set_remote(node, key("a.b", Some("g")), 1, KEYS_MAX);
        let found = table.find(&name("a.b"));
        assert_eq!(found.nodes.len(), 1);
        let (to_all, groups) = &found.nodes[&node];
        assert_eq!((*to_all, groups.len(), found.count), (true, 1, 5));
        table.set_remote(node, key("a.>", None), 0, KEYS_MAX);
        assert_eq!(table.count(&name("a.b")), 2);
        table.forget(node);
        assert!(table.find(&name("a.b")).nodes.is_empty());
        assert!(table.spaces.is_empty() && table.groups.is_empty() && table.remotes.is_empty());
    }

    #[test]
    fn what_another_node_sent_goes_to_the_listeners_here_alone() {
        let mut table = Table::default();
        let alone = join(&mut table, key("a", None));
        let member = join(&mut table, key("a", Some("g")));
        table.set_remote(NodeId(2), key("a", Some("g")), 5, KEYS_MAX);
        let group = [key("a", Some("g"))];
        assert_eq!(table.find_here(&name("a"), true, &group), [alone, member]);
        assert_eq!(table.find_here(&name("a"), true, &[]), [alone]);
        table.leave(member);
        assert!(table.find_here(&name("a"), false, &group).is_empty());
    }
}
