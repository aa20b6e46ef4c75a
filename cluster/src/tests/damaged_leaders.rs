//! What is promised of a shard whose leader is damaged: its messages are read from the others while it is
//! made anew, and it leads on as long as none of them is whole.

use openraft::async_runtime::watch::WatchReceiver;

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
    // The other one is no better, and could not even lead: a new leader reads its log.
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
    fleet.wait_for("all to be whole", |fleet| {
        fleet.nodes().all(|node| {
            let contents = node.try_topic_contents(&topic());
            node.cluster.mending().damaged == 0
                && contents.is_ok_and(|contents| payloads(contents) == written)
        })
    });
}
