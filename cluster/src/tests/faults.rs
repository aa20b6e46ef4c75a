//! What a node says and does when its disk fails it.

use flotilla_storage::testing::FaultyDisk;

use super::*;
use crate::Role;

fn start_on(dir: &Path, disk: &FaultyDisk) -> Node {
    Node::start_with(dir, |config| {
        config.shards = 2;
        config.disk = Arc::new(disk.clone());
        config.log.segment_bytes = 64 << 10;
        config.log.reserve_bytes = Some(0);
    })
}

fn try_append(node: &Node, topic: &Name, payload: &str) -> Result<Outcome, ClusterError> {
    let shard = node.shard(topic);
    let call = shard.propose(
        vec![append_command(topic, 1)],
        slots(&[payload]),
        Instant::now() + Duration::from_secs(5),
    );
    Ok(node.runtime.block_on(call)?[0].clone())
}

#[test]
fn a_failed_sync_stops_writes_with_its_reason_while_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let node = start_on(dir.path(), &disk);
    let topic = Name::topic("t").unwrap();
    node.append(&topic, &["kept"]);
    disk.wait_until_prepared();
    disk.fail_sync(0);
    let error = try_append(&node, &topic, "lost").unwrap_err();
    assert!(
        matches!(error, ClusterError::OutcomeUnknown { .. }),
        "{error:?}"
    );
    node.wait_for("all groups to stop", |node| {
        let health = node.cluster.health();
        health.groups.iter().all(|group| group.role == Role::Failed)
    });
    for _ in 0..2 {
        let error = try_append(&node, &topic, "refused").unwrap_err();
        let ClusterError::Unavailable { reason } = &error else {
            panic!("{error:?}");
        };
        assert!(reason.contains("sync"), "{reason}");
    }
    let health = node.cluster.health();
    assert!(!health.ready());
    let failed = health.groups[1].failed.clone().unwrap();
    assert!(failed.contains("sync"), "{failed}");
    assert_eq!(
        node.topic_contents(&topic)[0],
        (Offset(1), "kept".to_owned())
    );
}

#[test]
fn acknowledged_writes_outlive_power_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let topic = Name::topic("t").unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..5u64 {
        let node = start_on(dir.path(), &disk);
        let contents: Vec<String> = node
            .topic_contents(&topic)
            .into_iter()
            .map(|(_, payload)| payload)
            .collect();
        assert_eq!(contents, acknowledged, "round {round}");
        for number in 0..30 {
            let payload = format!("{round} {number}");
            node.append(&topic, &[&payload]);
            acknowledged.push(payload);
        }
        if round % 2 == 0 {
            node.runtime.block_on(node.cluster.checkpoint()).unwrap();
        }
        // The disk dies under the running node, which is then killed.
        disk.die_at_step(0);
        node.kill();
        disk.cut_power(Some(round));
    }
}

#[test]
fn a_full_disk_refuses_messages_but_not_settlements_and_takes_messages_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let node = Node::start_with(dir.path(), |config| {
        config.shards = 1;
        config.disk = Arc::new(disk.clone());
        config.log.segment_bytes = 64 << 10;
        config.log.reserve_bytes = Some(512 << 10);
    });
    let queue = Name::queue("q").unwrap();
    node.enqueue(&queue, &["held"], QueuePolicy::default());
    let (lease, _) = node.lease(&queue, node.session(1), 1);
    disk.set_capacity(Some(2 << 20));
    let payload = "x".repeat(32 << 10);
    let full = (0..100)
        .find_map(|_| try_append(&node, &Name::topic("t").unwrap(), &payload).err())
        .expect("the disk fills");
    assert!(matches!(full, ClusterError::Full { .. }), "{full:?}");
    let settled = node.settle(&queue, node.session(1), lease, Settlement::Ack);
    assert!(
        matches!(settled, Outcome::Settled { count: 1, .. }),
        "{settled:?}"
    );
    disk.set_capacity(None);
    node.wait_for("writes to be taken again", |node| {
        try_append(node, &Name::topic("t").unwrap(), "more").is_ok()
    });
}

#[test]
fn a_log_that_ran_out_of_space_comes_back_by_itself_with_nothing_lost_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    // No reserve: the log itself runs into the end of the disk.
    let node = start_on(dir.path(), &disk);
    let topic = Name::topic("t").unwrap();
    let payload = "x".repeat(20 << 10);
    disk.set_capacity(Some(512 << 10));
    let mut sent = 0;
    let error = loop {
        let numbered = format!("{sent} {payload}");
        sent += 1;
        if let Err(error) = try_append(&node, &topic, &numbered) {
            break error;
        }
        assert!(sent < 200, "the disk never fills");
    };
    assert!(
        !matches!(
            error,
            ClusterError::Invalid { .. } | ClusterError::TooLarge { .. }
        ),
        "{error:?}"
    );
    disk.set_capacity(None);
    node.wait_for("writes to be taken again", |node| {
        try_append(node, &topic, "after").is_ok()
    });
    let contents = node.topic_contents(&topic);
    let numbers: Vec<&str> = contents
        .iter()
        .filter_map(|(_, payload)| payload.split(' ').next())
        .filter(|first| *first != "after")
        .collect();
    let acknowledged: Vec<String> = (0..sent - 1).map(|number| number.to_string()).collect();
    // The last one had no answer: it may be there, once.
    assert_eq!(numbers[..acknowledged.len()], acknowledged);
    assert!(numbers.len() <= sent, "{numbers:?}");
    assert!(node.cluster.health().ready());
}

#[test]
fn a_damaged_entry_stops_only_its_own_group_and_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let (damaged, intact) = (queue_on(ShardId(1), 2), queue_on(ShardId(2), 2));
    let node = start_on(dir.path(), &disk);
    node.enqueue(&damaged, &["a"], QueuePolicy::default());
    node.enqueue(&intact, &["b"], QueuePolicy::default());
    // Nothing is in a checkpoint: the entry is needed for the replay.
    node.kill();
    let marker = damaged.text().as_bytes();
    let (path, offset) = disk
        .paths()
        .into_iter()
        .find_map(|path| {
            let bytes = disk.read_file(&path)?;
            let found = bytes.windows(marker.len()).position(|part| part == marker);
            Some((path, found? as u64))
        })
        .expect("the entry is in a segment");
    disk.flip(&path, offset, 0x20);
    let node = start_on(dir.path(), &disk);
    let health = node.cluster.health();
    let failed = health.groups[1]
        .failed
        .clone()
        .expect("group 1 cannot go on");
    assert!(failed.contains("segment"), "{failed}");
    assert_eq!(health.groups[1].role, Role::Failed);
    assert!(!health.damage.is_empty());
    assert_eq!(node.queue_contents(&intact), ["b"]);
    node.enqueue(&intact, &["c"], QueuePolicy::default());
    let refused = node.runtime.block_on(node.shard(&damaged).propose(
        vec![enqueue_command(&damaged, 1, QueuePolicy::default())],
        slots(&["x"]),
        Instant::now() + PATIENCE,
    ));
    assert!(
        matches!(&refused, Err(ClusterError::Unavailable { reason }) if reason.contains("segment")),
        "{refused:?}"
    );
}

#[test]
fn a_damaged_payload_is_reported_and_its_neighbours_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let topic = Name::topic("t").unwrap();
    let node = start_on(dir.path(), &disk);
    node.append(
        &topic,
        &["first payload", "second payload", "third payload"],
    );
    // In a checkpoint, so that the replay does not need the entry.
    node.shut_down();
    let marker = b"second payload";
    for path in disk.paths() {
        let bytes = disk.read_file(&path).unwrap();
        let found = bytes.windows(marker.len()).position(|part| part == marker);
        if let Some(offset) = found {
            disk.flip(&path, offset as u64, 1);
        }
    }
    let node = start_on(dir.path(), &disk);
    let shard = node.shard(&topic);
    let read = |slot: u32| {
        let located = shard.read(|records| {
            let info = query::topic_info(records, &topic)?.expect("the topic is there");
            query::topic_locate(records, info.object, info.first, 1)
        });
        let record = node.runtime.block_on(located).unwrap().remove(0);
        node.runtime
            .block_on(shard.read_slots(record.index, slot..slot + 1))
    };
    assert_eq!(read(0).unwrap()[0], "first payload");
    assert_eq!(read(2).unwrap()[0], "third payload");
    let error = read(1).unwrap_err();
    assert!(matches!(error, ClusterError::Corrupt { .. }), "{error:?}");
    assert!(node.cluster.health().ready());
}
