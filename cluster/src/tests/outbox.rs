//! Messages that move to another shard arrive there once, whatever happens on the way.

use super::fleet::Fleet;
use super::mending::flip;
use super::*;

/// Messages that become dead letters when they are returned once.
fn letters(to: &Name) -> QueuePolicy {
    QueuePolicy {
        receive_count_max: 1,
        dead_letter: Some(to.clone()),
        ..QueuePolicy::default()
    }
}

fn return_all(node: &Node, queue: &Name, lease: LeaseId) {
    node.settle(queue, node.session(1), lease, Settlement::Return);
}

#[test]
fn dead_letters_cross_shards_exactly_once_over_kills() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (queue_on(ShardId(1), 4), queue_on(ShardId(3), 4));
    let policy = letters(&target);
    let mut expected = Vec::new();
    for round in 0..6 {
        let node = Node::start(dir.path());
        let payloads: Vec<String> = (0..30).map(|number| format!("{round} {number}")).collect();
        let texts: Vec<&str> = payloads.iter().map(String::as_str).collect();
        node.enqueue(&source, &texts, policy.clone());
        let (lease, held) = node.lease(&source, node.session(1), 100);
        assert_eq!(held.len(), 30, "round {round}");
        return_all(&node, &source, lease);
        expected.extend(payloads);
        // Killed at once, or after some or all of it was carried over.
        if round % 3 != 0 {
            let enough = expected.len() - 30 + 15 * (round % 3);
            node.wait_for("dead letters", |node| {
                node.queue_contents(&target).len() >= enough
            });
        }
        node.kill();
    }
    let node = Node::start(dir.path());
    node.wait_for("all dead letters", |node| {
        node.queue_contents(&target).len() >= expected.len()
    });
    assert_eq!(node.queue_contents(&target), expected);
    assert!(node.queue_contents(&source).is_empty());
    // Nothing is left to send again.
    let shard = node.cluster.shard(ShardId(1)).unwrap().clone();
    node.wait_for("the outbox to be confirmed", |node| {
        let pending = shard.read(|records| query::outbox_pending(records, ShardId(3), 10));
        node.runtime.block_on(pending).unwrap().is_empty()
    });
    assert_eq!(node.queue_contents(&target), expected);
}

/// Dead letters of one shard for two others, one of which is damaged on some nodes before it dies.
struct Damaged {
    fleet: Fleet,
    /// The nodes that are not damaged, which are down.
    away: Vec<usize>,
    damaged: Name,
    whole: Name,
}

impl Damaged {
    /// On so many nodes, the leader first.
    fn on(count: usize) -> Self {
        let mut fleet = Fleet::of_three(|config| {
            config.shards = 3;
            // Messages are soon read from the disk only.
            config.log.tail_cache_bytes = 1 << 10;
        });
        let source = queue_on(ShardId(1), 3);
        let (damaged, whole) = (queue_on(ShardId(2), 3), queue_on(ShardId(3), 3));
        let mut places = fleet.places_by_preference(ShardId(1));
        let away = places.split_off(count);
        fleet.make_leader(ShardId(1), places[0]);
        let node = fleet.node(places[0]);
        let payloads = ["first letter", "damaged letter", "third letter"];
        for payload in payloads {
            node.enqueue(&source, &[payload], letters(&damaged));
        }
        node.enqueue(&source, &["whole letter"], letters(&whole));
        for number in 0..40 {
            let filler = format!("filler {number:0100}");
            node.append(&Name::topic("filler").unwrap(), &[&filler]);
        }
        let (lease, held) = node.lease(&source, node.session(1), 10);
        assert_eq!(held.len(), 4);
        fleet.wait_for("the replicas", |fleet| {
            fleet.nodes().all(|node| {
                let shard = node.cluster.shard(ShardId(1)).unwrap();
                shard.replica().applied_index() >= held[3].at.index.0
            })
        });
        for place in &places {
            flip(&fleet, *place, payloads[1]);
        }
        for place in &away {
            fleet.kill(*place);
        }
        return_all(fleet.node(places[0]), &source, lease);
        Self {
            fleet,
            away,
            damaged,
            whole,
        }
    }

    fn wait_for(&self, queue: &Name, expected: &[&str]) {
        self.fleet.wait_for("the dead letters", |fleet| {
            fleet
                .nodes()
                .any(|node| node.queue_contents(queue) == expected)
        });
    }
}

#[test]
fn a_dead_letter_that_is_damaged_everywhere_does_not_hold_up_those_behind_it() {
    let letters = Damaged::on(3);
    letters.wait_for(&letters.damaged, &["first letter", "third letter"]);
    letters.wait_for(&letters.whole, &["whole letter"]);
    let dropped = |node: &Node| {
        let shard = node.cluster.shard(ShardId(1)).unwrap();
        let counters = &shard.replica().counters;
        counters
            .outbox_dropped
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(letters.fleet.nodes().map(dropped).max(), Some(1));
}

#[test]
fn a_dead_letter_that_a_node_may_come_back_with_is_kept_and_holds_up_no_other_shard() {
    let mut letters = Damaged::on(2);
    letters.wait_for(&letters.damaged, &["first letter"]);
    letters.wait_for(&letters.whole, &["whole letter"]);
    letters.fleet.restart(letters.away[0]);
    letters.wait_for(
        &letters.damaged,
        &["first letter", "damaged letter", "third letter"],
    );
}
