//! Who holds something can be told without knowing which nodes there are.

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::outcome::*;
use flotilla_model::query;

use crate::harness::*;

fn session_of(node: u64, incarnation: u64) -> SessionId {
    SessionId {
        node: NodeId(node),
        incarnation,
        number: 1,
    }
}

fn hold(shard: &mut Shard, session: SessionId) {
    shard.run(plain(1));
    let leased = shard.run(lease(&jobs(), session, 1));
    assert!(matches!(leased, Outcome::Leased { messages, .. } if messages.len() == 1));
}

fn listed(shard: &Shard) -> Vec<(NodeId, u64)> {
    query::session_nodes(&shard.state).unwrap()
}

#[test]
fn ending_what_the_list_of_nodes_names_ends_all_sessions() {
    let mut shard = Shard::new();
    assert_eq!(listed(&shard), []);
    for (node, incarnation) in [(3, 7), (1, 4), (3, 9), (1, 2)] {
        hold(&mut shard, session_of(node, incarnation));
    }
    assert_eq!(listed(&shard), [(NodeId(1), 4), (NodeId(3), 9)]);
    for (node, highest) in listed(&shard) {
        assert_ne!(shard.stats().leases, 0);
        shard.run(Command::EndOldSessions {
            node,
            incarnation: highest + 1,
        });
    }
    assert_eq!(shard.stats().leases, 0);
    assert_eq!(listed(&shard), []);
}

#[test]
fn nodes_that_hold_nothing_do_not_stay_on_the_list() {
    let mut shard = Shard::new();
    hold(&mut shard, session_of(1_000, 1));
    for node in 1..500 {
        let session = session_of(node, 1);
        hold(&mut shard, session);
        shard.run(Command::EndSession { session });
    }
    assert_eq!(listed(&shard), [(NodeId(1_000), 1)]);
    let longest = shard.state.iter().map(|(_, record)| record.encode().len());
    assert!(longest.max() < Some(512));
}

#[test]
fn a_node_that_was_removed_leaves_nothing_behind() {
    let origin = |incarnation| Origin::Node {
        node: NodeId(7),
        incarnation,
    };
    let mut shard = Shard::new();
    hold(&mut shard, session_of(7, 3));
    for sequence in 1..=70 {
        shard.apply(origin(1), sequence, vec![append(1)]);
    }
    let forget = Command::ForgetNode { node: NodeId(7) };
    let refused = shard.run(forget.clone());
    assert!(
        matches!(refused, Outcome::Refused(Refusal::Invalid { .. })),
        "a group of level 1 does not know the command: {refused:?}"
    );
    assert_eq!(
        shard.run(Command::RaiseFeatureLevel { to: 2 }),
        Outcome::Done
    );
    assert_eq!(query::remembers_node(&shard.state, NodeId(7)), Ok(true));
    let before = shard.state.iter().count();
    assert_eq!(shard.run(forget), Outcome::Done);
    assert_eq!(query::remembers_node(&shard.state, NodeId(7)), Ok(false));
    assert_eq!(shard.stats().leases, 0);
    assert!(shard.state.iter().count() + 60 < before);
    // One that was long on its way, and one that would be the first of the next life.
    for incarnation in [1, 2] {
        let late = shard.apply(origin(incarnation), 1, vec![append(1)]);
        let outcome = &late.outcomes[0][0];
        assert!(
            matches!(outcome, Outcome::Refused(Refusal::OriginGap { .. })),
            "{outcome:?}"
        );
    }
}
