//! Timers fire without anyone writing, after a restart too, and by shard time.

use super::*;
use crate::ShiftedTimeSource;

fn delayed(delay_ms: u64) -> QueuePolicy {
    QueuePolicy {
        delay_ms,
        ..QueuePolicy::default()
    }
}

#[test]
fn a_delayed_message_comes_when_its_time_is_over_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let queue = Name::queue("later").unwrap();
    let begin = Instant::now();
    node.enqueue(&queue, &["a"], delayed(400));
    node.wait_for("the delayed message", |node| {
        !node.queue_contents(&queue).is_empty()
    });
    assert!(
        begin.elapsed() >= Duration::from_millis(399),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn timers_outlive_a_kill_with_and_without_a_checkpoint() {
    for with_checkpoint in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(dir.path());
        let queue = Name::queue("later").unwrap();
        node.enqueue(&queue, &["a"], delayed(1_500));
        if with_checkpoint {
            node.runtime.block_on(node.cluster.checkpoint()).unwrap();
        }
        node.kill();
        let node = Node::start(dir.path());
        node.wait_for("the delayed message", |node| {
            !node.queue_contents(&queue).is_empty()
        });
    }
}

#[test]
fn what_fell_due_while_the_node_was_down_is_due_at_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let hour_ms = 3_600_000;
    let queue = Name::queue("later").unwrap();
    let node = Node::start(dir.path());
    node.enqueue(&queue, &["a"], delayed(hour_ms));
    node.kill();
    let node = Node::start_with(dir.path(), |config| {
        let time = ShiftedTimeSource::default();
        time.shift_ms(hour_ms as i64 + 1_000);
        config.time = Arc::new(time);
    });
    node.wait_for("the delayed message", |node| {
        !node.queue_contents(&queue).is_empty()
    });
}

#[test]
fn a_wall_clock_set_back_over_a_restart_does_not_set_back_shard_time() {
    let dir = tempfile::tempdir().unwrap();
    let queue = Name::queue("now").unwrap();
    let node = Node::start(dir.path());
    node.enqueue(&queue, &["a"], QueuePolicy::default());
    let before = node.shard(&queue).replica().applied_time();
    node.kill();
    let node = Node::start_with(dir.path(), |config| {
        let time = ShiftedTimeSource::default();
        time.shift_ms(-3_600_000);
        config.time = Arc::new(time);
    });
    // The last entry's time stands.
    let applied = node.shard(&queue).replica().applied_time();
    let after = node.shard(&queue).now();
    assert!(
        after >= applied && applied >= before,
        "{before} {applied} {after}"
    );
}
