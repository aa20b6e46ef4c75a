//! What is promised of a shard whose leader is damaged: its messages are read from the others while it is
//! made anew, and it leads on as long as none of them is whole.

use openraft::async_runtime::watch::WatchReceiver;

use super::fleet::Fleet;
use super::mending::{SHARD, fill, fleet, flip, payloads, topic, verify};
use super::*;

#[test]
fn nothing_is_missing_at_a_leader_with_damaged_messages() {
    let fleet = fleet();
    let victim = fleet.leader(SHARD);
    let node = fleet.node(victim);
    let written = fill(node, 0..50);
    let id = node.cluster.node().id;
    {
        let _no_mending = node.runtime.block_on(node.cluster.inner.mender.hold());
        flip(&fleet, victim, &written[20]);
        flip(&fleet, victim, &written[21]);
        assert_eq!(payloads(node.topic_contents(&topic())), written);
        assert!(node.cluster.mending().read_elsewhere > 0);
        assert!(!node.cluster.health().damage.is_empty());
    }
    // Found by the read, it is mended, though this node led.
    fleet.wait_for("the replica to be mended", |fleet| {
        let mending = fleet.node(victim).cluster.mending();
        mending.mended > 0 && mending.damaged == 0
    });
    fleet.wait_until_ready();
    assert!(node.cluster.health().damage.is_empty());
    let read_elsewhere = node.cluster.mending().read_elsewhere;
    assert_eq!(payloads(node.topic_contents(&topic())), written);
    assert_eq!(node.cluster.mending().read_elsewhere, read_elsewhere);
    let found = verify(node);
    assert!(found.is_fine(), "{id}: {found:?}");
}

/// Every node has all that was written, and nothing damaged any more.
fn wait_until_whole(fleet: &Fleet, written: &[String]) {
    fleet.wait_for("all to be whole", |fleet| {
        fleet.nodes().all(|node| {
            let contents = node.try_topic_contents(&topic());
            node.cluster.mending().damaged == 0
                && contents.is_ok_and(|contents| payloads(contents) == written)
        })
    });
}

pub(super) fn term(node: &Node) -> Option<u64> {
    let raft = node.cluster.inner.groups[SHARD.0 as usize].raft()?;
    Some(raft.metrics().borrow_watched().current_term)
}

#[test]
fn a_damaged_leader_leads_on_until_another_node_has_what_it_lacks() {
    let mut fleet = fleet();
    let places = fleet.places_by_preference(SHARD);
    let [victim, other, away] = places[..] else {
        panic!("{places:?}");
    };
    fleet.make_leader(SHARD, victim);
    let mut written = fill(fleet.node(victim), 0..50);
    fleet.wait_for("all to be applied everywhere", |fleet| {
        (0..3).all(|place| fleet.holds(place, &topic(), 50))
    });
    fleet.kill(away);
    // The other one is no better.
    for place in [victim, other] {
        flip(&fleet, place, &written[30]);
    }
    let before = term(fleet.node(victim));
    let read = fleet.node(victim).try_topic_contents(&topic());
    assert!(matches!(read, Err(ClusterError::Unread { .. })), "{read:?}");
    fleet.wait_for("attempts to mend it", |fleet| {
        fleet.node(victim).cluster.mending().mending_failed >= 2
    });
    assert_eq!(fleet.leader(SHARD), victim);
    assert_eq!(term(fleet.node(victim)), before);
    written.extend(fill(fleet.node(victim), 50..60));

    fleet.restart(away);
    wait_until_whole(&fleet, &written);
}

#[test]
fn leaders_change_though_no_node_can_read_an_entry() {
    let fleet = fleet();
    let places = fleet.places_by_preference(SHARD);
    fleet.make_leader(SHARD, places[0]);
    let written = fill(fleet.node(places[0]), 0..50);
    fleet.wait_for("all to be applied everywhere", |fleet| {
        (0..3).all(|place| fleet.holds(place, &topic(), 50))
    });
    for place in 0..3 {
        flip(&fleet, place, &written[30]);
    }
    for place in [places[1], places[2], places[0]] {
        fleet.make_leader(SHARD, place);
        fill(fleet.node(place), 50..52);
    }
    let health = fleet.nodes().map(|node| node.cluster.health());
    for health in health {
        let failed = health
            .groups
            .iter()
            .filter_map(|group| group.failed.clone());
        assert_eq!(failed.collect::<Vec<_>>(), Vec::<String>::new());
    }
    let read = fleet.node(places[0]).try_topic_contents(&topic());
    assert!(
        matches!(read, Err(ClusterError::Corrupt { .. })),
        "{read:?}"
    );
}

#[test]
fn what_a_leader_cannot_read_comes_whole_or_not_at_all() {
    let mut fleet = fleet();
    let places = fleet.places_by_preference(SHARD);
    let [victim, _, away] = places[..] else {
        panic!("{places:?}");
    };
    fleet.make_leader(SHARD, victim);
    let mut written = fill(fleet.node(victim), 0..10);
    fleet.wait_for("all to be applied everywhere", |fleet| {
        (0..3).all(|place| fleet.holds(place, &topic(), 10))
    });
    fleet.kill(away);
    written.extend(fill(fleet.node(victim), 10..50));
    flip(&fleet, victim, &written[30]);
    {
        let node = fleet.node(victim);
        let mender = node.cluster.inner.mender.clone();
        let _no_mending = node.runtime.block_on(mender.hold());
        fleet.start_these(&[away]);
        fleet.wait_for("the damage to be met", |fleet| {
            !fleet.node(victim).cluster.health().damage.is_empty()
        });
        assert!(!fleet.holds(away, &topic(), 50));
    }
    wait_until_whole(&fleet, &written);
    assert!(verify(fleet.node(victim)).is_fine());
}
