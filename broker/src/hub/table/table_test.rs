//! Who is found, in turn, and what is left when all are gone.

use super::*;
use crate::config::BrokerConfig;
use crate::hub::buffer::Bounds;
use crate::hub::listener::Listener;

const KEYS_MAX: usize = 100;

fn key(pattern: &str, group: Option<&str>) -> Key {
    Key {
        kind: Kind::Signal,
        namespace: "default".to_owned(),
        pattern: pattern.to_owned(),
        group: group.map(str::to_owned),
    }
}

fn join(table: &mut Table<Listener>, key: Key) -> u64 {
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
    let mut table = Table::<Listener>::default();
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
    let mut table = Table::<Listener>::default();
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
    let mut table = Table::<Listener>::default();
    let alone = join(&mut table, key("a", None));
    let member = join(&mut table, key("a", Some("g")));
    table.set_remote(NodeId(2), key("a", Some("g")), 5, KEYS_MAX);
    let group = [key("a", Some("g"))];
    assert_eq!(table.find_here(&name("a"), true, &group), [alone, member]);
    assert_eq!(table.find_here(&name("a"), true, &[]), [alone]);
    table.leave(member);
    assert!(table.find_here(&name("a"), false, &group).is_empty());
}

#[test]
fn the_kinds_of_names_do_not_mix() {
    let mut table = Table::<Listener>::default();
    let of = |kind: Kind, group: Option<&str>| Key {
        kind,
        ..key("a", group)
    };
    let listener = join(&mut table, of(Kind::Signal, None));
    let responder = join(&mut table, of(Kind::Request, None));
    let member = join(&mut table, of(Kind::Command, Some("g")));
    table.set_remote(NodeId(2), of(Kind::Request, Some("g")), 1, KEYS_MAX);
    let mut found = |kind: Kind| table.find(&Name::new("default", kind, "a").expect("a name"));
    assert_eq!(found(Kind::Signal).listeners, [listener]);
    assert_eq!(found(Kind::Command).listeners, [member]);
    let requests = found(Kind::Request);
    assert_eq!(
        (requests.listeners, requests.nodes.len()),
        (vec![responder], 1)
    );
}

/// One who listens and has room or not, as told.
struct Fickle {
    id: u64,
    has_room: std::sync::atomic::AtomicBool,
}

impl Member for Fickle {
    fn id(&self) -> u64 {
        self.id
    }

    fn has_room(&self) -> bool {
        self.has_room.load(std::sync::atomic::Ordering::Relaxed)
    }
}

fn join_fickle(table: &mut Table<Fickle>, key: Key) -> Arc<Fickle> {
    let member = Arc::new(Fickle {
        id: table.next_id(),
        has_room: true.into(),
    });
    let pattern = Pattern::parse(&key.pattern).expect("a pattern");
    table.join(Arc::clone(&member), key, pattern);
    member
}

#[test]
fn what_no_member_here_has_room_for_goes_to_other_nodes_if_there_are_members() {
    let mut table = Table::<Fickle>::default();
    let group = || key("a", Some("g"));
    let member = join_fickle(&mut table, group());
    let set_room = |has_room| {
        let order = std::sync::atomic::Ordering::Relaxed;
        member.has_room.store(has_room, order);
    };
    set_room(false);
    assert_eq!(table.find(&name("a")).listeners, [member.id], "nobody else");
    for node in [2, 3] {
        table.set_remote(NodeId(node), group(), 1, KEYS_MAX);
    }
    let mut chosen: BTreeMap<NodeId, u32> = BTreeMap::new();
    for _ in 0..60 {
        let found = table.find(&name("a"));
        assert!(found.listeners.is_empty());
        let node = found.nodes.keys().next().expect("a node");
        *chosen.entry(*node).or_default() += 1;
    }
    assert_eq!(chosen, BTreeMap::from([(NodeId(2), 30), (NodeId(3), 30)]));
    set_room(true);
    let here = (0..60).filter(|_| table.find(&name("a")).nodes.is_empty());
    assert_eq!(here.count(), 20, "everybody has a turn again");
}

#[test]
fn who_was_tried_is_not_chosen_again() {
    let mut table = Table::<Fickle>::default();
    let group = key("a", Some("g"));
    let member = join_fickle(&mut table, group.clone());
    for node in [2, 3] {
        table.set_remote(NodeId(node), group.clone(), 5, KEYS_MAX);
    }
    let mut tried = Vec::new();
    while let Some(chosen) = table.choose_other(&group, |one| tried.contains(&one)) {
        assert!(!tried.contains(&chosen));
        tried.push(chosen);
    }
    assert_eq!(tried.len(), 3, "{tried:?}");
    assert_eq!(tried[0], Chosen::Here(member.id));
    let here = table.choose_other_here(&group, |one| tried.contains(&one));
    assert_eq!(here, None);
}
