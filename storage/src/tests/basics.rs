//! What the log promises while nothing fails.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;

use super::support::{Bench, WAIT, entry, point, slot_bytes};
use crate::{CheckpointBatch, GroupId, LogHealth, RealDisk, StorageError, SyncPolicy};

const GROUP: GroupId = GroupId(1);

#[test]
fn entries_are_readable_at_once_and_after_a_restart() {
    let mut bench = Bench::new();
    let entries: Vec<_> = (1..=50).map(|index| entry(index, 3, 200)).collect();
    let pending = bench.submit(1, entries.clone());
    assert_eq!(
        bench.log().entries(GROUP, 1..51, usize::MAX).unwrap(),
        entries
    );
    pending.recv_timeout(WAIT).unwrap().unwrap();
    assert_eq!(
        bench.log().entries(GROUP, 1..51, usize::MAX).unwrap(),
        entries
    );
    bench.restart();
    assert_eq!(
        bench.log().entries(GROUP, 1..51, usize::MAX).unwrap(),
        entries
    );
    let state = bench.log().group_state(GROUP).unwrap();
    assert_eq!(state.last, Some(point(50)));
    assert!(bench.log().segments().unwrap().len() > 1, "segments rotate");
}

#[test]
fn a_read_stops_at_its_byte_limit_but_gives_one_entry() {
    let bench = Bench::new();
    bench
        .append(1, (1..=5).map(|index| entry(index, 1, 1000)).collect())
        .unwrap();
    let read = |bytes| bench.log().entries(GROUP, 2..6, bytes).unwrap();
    assert_eq!(read(0).len(), 1);
    assert_eq!(read(0)[0].index, 2);
    assert_eq!(read(2500).len(), 2);
    assert_eq!(read(usize::MAX).len(), 4);
    assert!(bench.log().entries(GROUP, 6..9, 1).unwrap().is_empty());
    assert!(bench.log().entries(GroupId(9), 0..9, 1).unwrap().is_empty());
}

#[test]
fn slots_are_read_from_memory_and_from_disk() {
    let bench = Bench::new();
    for index in 1..=60 {
        bench.append(1, vec![entry(index, 20, 100)]).unwrap();
    }
    assert!(!bench.log().is_cached(GROUP, 1), "the tail is bounded");
    assert!(bench.log().is_cached(GROUP, 60));
    for index in [1, 30, 60] {
        let slots = bench.log().read_slots(GROUP, index, 3..7).unwrap();
        let wanted: Vec<Bytes> = (3..7).map(|slot| slot_bytes(index, slot, 100, 0)).collect();
        assert_eq!(slots, wanted);
        let head = bench.log().read_head(GROUP, index).unwrap();
        assert_eq!(head, Bytes::from(format!("head {index} 0")));
        assert!(matches!(
            bench.log().read_slots(GROUP, index, 18..21),
            Err(StorageError::NoSuchSlot {
                slot: 20,
                count: 20
            })
        ));
    }
    assert!(matches!(
        bench.log().read_slots(GROUP, 61, 0..1),
        Err(StorageError::NotFound { .. })
    ));
}

#[test]
fn a_gap_is_refused_and_leaves_no_trace() {
    let bench = Bench::new();
    bench.append(1, vec![entry(1, 1, 10)]).unwrap();
    let refused = bench.append(1, vec![entry(3, 1, 10)]).unwrap_err();
    assert!(matches!(
        *refused,
        StorageError::Gap {
            index: 3,
            last: 1,
            ..
        }
    ));
    assert_eq!(bench.indexes(1), [1]);
    bench.append(1, vec![entry(2, 1, 10)]).unwrap();
}

#[test]
fn a_truncation_drops_the_end_and_new_entries_take_its_place() {
    let mut bench = Bench::new();
    bench
        .append(1, (1..=40).map(|index| entry(index, 2, 300)).collect())
        .unwrap();
    bench.truncate(1, Some(10)).unwrap();
    assert_eq!(bench.indexes(1), (1..=10).collect::<Vec<_>>());
    let replacement = super::support::entry_of(11, 1, 50, 9);
    bench.append(1, vec![replacement.clone()]).unwrap();
    for _ in 0..2 {
        let read = bench.log().entries(GROUP, 11..99, usize::MAX).unwrap();
        assert_eq!(read, std::slice::from_ref(&replacement));
        assert!(bench.log().read_slots(GROUP, 12, 0..1).is_err());
        bench.kill();
    }
    bench.truncate(1, None).unwrap();
    assert!(bench.indexes(1).is_empty());
    assert_eq!(bench.log().group_state(GROUP).unwrap().last, None);
}

#[test]
fn purged_entries_are_hidden_and_their_payload_stays() {
    let mut bench = Bench::new();
    bench
        .append(1, (1..=30).map(|index| entry(index, 2, 100)).collect())
        .unwrap();
    bench.purge(1, 20).unwrap();
    for _ in 0..2 {
        assert_eq!(bench.indexes(1), (21..=30).collect::<Vec<_>>());
        let slots = bench.log().read_slots(GROUP, 5, 0..2).unwrap();
        assert_eq!(slots[1], slot_bytes(5, 1, 100, 0));
        assert_eq!(
            bench.log().group_state(GROUP).unwrap().purged,
            Some(point(20))
        );
        bench.kill();
    }
    bench.purge(1, 50).unwrap();
    assert!(bench.indexes(1).is_empty());
    assert_eq!(
        bench.log().group_state(GROUP).unwrap().last,
        Some(point(50))
    );
    bench.append(1, vec![entry(51, 1, 10)]).unwrap();
    assert_eq!(bench.indexes(1), [51]);
}

#[test]
fn votes_and_hints_survive() {
    let mut bench = Bench::new();
    bench.vote(1, "first").unwrap();
    bench.vote(1, "second").unwrap();
    bench.vote(2, "other").unwrap();
    bench
        .log()
        .save_committed(GROUP, Bytes::from_static(b"seven"))
        .unwrap();
    bench.append(1, vec![entry(1, 1, 1)]).unwrap();
    bench.kill();
    let state = bench.log().group_state(GROUP).unwrap();
    assert_eq!(state.vote.as_deref(), Some(&b"second"[..]));
    assert_eq!(state.committed.as_deref(), Some(&b"seven"[..]));
    let other = bench.log().group_state(GroupId(2)).unwrap();
    assert_eq!(other.vote.as_deref(), Some(&b"other"[..]));
}

#[test]
fn calls_complete_in_their_order() {
    let bench = Bench::new();
    // While one round syncs the next calls come in, however busy the machine is.
    bench.disk.delay_syncs(Duration::from_millis(20));
    let (sender, receiver) = channel();
    for index in 1..=200 {
        let sender = sender.clone();
        bench.log().append(
            GROUP,
            vec![entry(index, 1, 100)],
            Box::new(move |outcome| sender.send((index, outcome.is_ok())).unwrap()),
        );
    }
    for index in 1..=200 {
        assert_eq!(receiver.recv_timeout(WAIT).unwrap(), (index, true));
    }
    let metrics = bench.log().metrics().unwrap();
    assert!(metrics.rounds < 200, "waiting calls share a round");
    assert_eq!(metrics.entries, 200);
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    let mut bench = Bench::new();
    let big = entry(2, 3, 40_000);
    bench
        .append(1, vec![entry(1, 1, 10), big.clone(), entry(3, 1, 10)])
        .unwrap();
    bench.kill();
    let read = bench.log().entries(GROUP, 2..3, 1).unwrap();
    assert_eq!(read, [big]);
    assert_eq!(bench.indexes(1), [1, 2, 3]);
}

#[test]
fn an_append_above_the_queue_bound_is_refused() {
    let bench = Bench::with(|config| config.queue_bytes_max = 4000);
    bench.disk.delay_syncs(Duration::from_millis(50));
    let first = bench.submit(1, vec![entry(1, 1, 3500)]);
    let second = bench.submit(1, vec![entry(2, 1, 3500)]);
    let refused = second.recv_timeout(WAIT).unwrap().unwrap_err();
    assert!(matches!(*refused, StorageError::QueueFull { .. }));
    first.recv_timeout(WAIT).unwrap().unwrap();
    bench.append(1, vec![entry(2, 1, 3500)]).unwrap();
}

#[test]
fn interval_sync_acknowledges_early_and_syncs_votes() {
    let bench = Bench::with(|config| {
        config.sync = SyncPolicy::Interval(Duration::from_secs(3600));
    });
    let syncs = || -> u64 {
        let metrics = bench.log().metrics().unwrap();
        metrics.sync.counts.iter().sum()
    };
    let before = syncs();
    bench.append(1, vec![entry(1, 1, 10)]).unwrap();
    assert_eq!(syncs(), before);
    bench.vote(1, "v").unwrap();
    assert_eq!(syncs(), before + 1);
}

#[test]
fn the_log_works_on_the_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = crate::LogConfig::new(dir.path());
    config.segment_bytes = 1 << 20;
    config.reserve_bytes = Some(0);
    for round in 0..3u64 {
        let (log, report) = crate::NodeLog::open(config.clone(), Arc::new(RealDisk)).unwrap();
        assert!(report.damage.is_empty());
        assert_eq!(log.health(), LogHealth::Healthy);
        log.admission(1000).unwrap();
        let (sender, receiver) = channel();
        for index in round * 100 + 1..=round * 100 + 100 {
            let sender = sender.clone();
            log.append(
                GROUP,
                vec![entry(index, 10, 2000)],
                Box::new(move |outcome| sender.send(outcome).unwrap()),
            );
        }
        for _ in 0..100 {
            receiver.recv_timeout(WAIT).unwrap().unwrap();
        }
        for index in 1..=round * 100 + 100 {
            let slots = log.read_slots(GROUP, index, 9..10).unwrap();
            assert_eq!(slots[0], slot_bytes(index, 9, 2000, 0));
        }
        log.checkpoints()
            .commit(
                GROUP,
                CheckpointBatch {
                    changes: vec![(vec![1, 2], Some(Bytes::from(vec![round as u8; 2000])))],
                    applied: Bytes::from(vec![round as u8]),
                    released: Vec::new(),
                },
            )
            .unwrap();
        log.shutdown().unwrap();
    }
}
