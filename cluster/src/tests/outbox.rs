//! Messages that move to another shard arrive there once, whatever happens on the way.

use super::*;
use flotilla_model::command::{Selection, Settlement};

fn return_all(node: &Node, queue: &Name, lease: LeaseId) {
    let settle = Command::Settle {
        queue: queue.clone(),
        session: node.session(1),
        lease,
        which: Selection::All,
        how: Settlement::Return,
    };
    node.propose(queue, settle, Vec::new());
}

#[test]
fn dead_letters_cross_shards_exactly_once_over_kills() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (queue_on(ShardId(1), 4), queue_on(ShardId(3), 4));
    let policy = QueuePolicy {
        receive_count_max: 1,
        dead_letter: Some(target.clone()),
        ..QueuePolicy::default()
    };
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
