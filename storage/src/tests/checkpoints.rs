//! What the checkpoint store promises.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::support::Bench;
use crate::{CheckpointBatch, GroupId, StorageError};

const GROUP: GroupId = GroupId(3);

type Records = BTreeMap<Vec<u8>, Bytes>;

fn batch(changes: Vec<(Vec<u8>, Option<Bytes>)>, applied: u8) -> CheckpointBatch {
    CheckpointBatch {
        changes,
        applied: Bytes::from(vec![applied]),
        released: Vec::new(),
    }
}

fn all(bench: &Bench, prefix: &[u8]) -> Records {
    let scan = bench.log().checkpoints().scan(GROUP, prefix).unwrap();
    let records: Vec<_> = scan.map(Result::unwrap).collect();
    assert!(records.is_sorted_by(|left, right| left.0 < right.0));
    records.into_iter().collect()
}

fn big_batch(version: u8) -> CheckpointBatch {
    let changes = (0..1000u32)
        .map(|key| {
            (
                key.to_be_bytes().to_vec(),
                Some(Bytes::from(vec![version; 20])),
            )
        })
        .collect();
    batch(changes, version)
}

#[test]
fn a_flush_of_the_index_is_a_real_sync() {
    let bench = Bench::new();
    let before = crate::sync_calls();
    bench
        .log()
        .checkpoints()
        .commit(GROUP, batch(vec![(vec![1], Some(Bytes::from("x")))], 1))
        .unwrap();
    assert!(crate::sync_calls() > before);
}

#[test]
fn state_survives_the_loss_of_what_sled_never_syncs() {
    let mut bench = Bench::new();
    bench
        .log()
        .checkpoints()
        .commit(GROUP, batch(vec![(vec![1], Some(Bytes::from("x")))], 1))
        .unwrap();
    let settings = bench.config.index_dir().join("conf");
    let bytes = std::fs::metadata(&settings).unwrap().len();
    for left in [vec![0; bytes as usize], vec![0xff; 3], Vec::new()] {
        bench.log = None;
        std::fs::write(&settings, left).unwrap();
        assert!(!bench.open().unwrap().index_rebuilt);
        assert_eq!(
            bench.log().checkpoints().get(GROUP, &[1]).unwrap(),
            Some(Bytes::from("x"))
        );
    }
}

#[test]
fn a_value_of_any_size_reads_back_and_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let store = bench.log().checkpoints();
    for size in [0, 1, 479, 480, 481, 5000, 100_000, 700, 3] {
        let value = Bytes::from(vec![size as u8; size]);
        store
            .commit(
                GROUP,
                batch(vec![(b"key".to_vec(), Some(value.clone()))], 1),
            )
            .unwrap();
        assert_eq!(store.get(GROUP, b"key").unwrap(), Some(value.clone()));
        assert_eq!(all(&bench, b""), Records::from([(b"key".to_vec(), value)]));
    }
    store
        .commit(GROUP, batch(vec![(b"key".to_vec(), None)], 2))
        .unwrap();
    assert!(all(&bench, b"").is_empty());
    drop(store);
    bench.kill();
    assert!(all(&bench, b"").is_empty());
    let applied = bench.log().checkpoints().applied(GROUP).unwrap();
    assert_eq!(applied, Some(Bytes::from(vec![2])));
}

#[test]
fn a_key_above_the_limit_is_refused() {
    let bench = Bench::new();
    let refused = bench
        .log()
        .checkpoints()
        .commit(GROUP, batch(vec![(vec![0; 65], Some(Bytes::new()))], 1));
    assert!(matches!(refused, Err(StorageError::TooLarge { .. })));
    assert_eq!(bench.log().checkpoints().applied(GROUP).unwrap(), None);
}

#[test]
fn groups_do_not_see_each_other() {
    let bench = Bench::new();
    let store = bench.log().checkpoints();
    store.commit(GroupId(1), big_batch(1)).unwrap();
    store.commit(GroupId(2), big_batch(2)).unwrap();
    store.clear(GroupId(1)).unwrap();
    assert_eq!(store.applied(GroupId(1)).unwrap(), None);
    assert_eq!(store.scan(GroupId(1), b"").unwrap().count(), 0);
    assert_eq!(store.scan(GroupId(2), b"").unwrap().count(), 1000);
    let from = 990u32.to_be_bytes();
    let scan = store.scan_from(GroupId(2), b"", &from).unwrap();
    assert_eq!(scan.count(), 10);
}

#[test]
fn replacing_takes_all_or_nothing_of_the_old_state() {
    let mut bench = Bench::new();
    let store = bench.log().checkpoints();
    store.commit(GROUP, big_batch(1)).unwrap();
    let records = (500..3000u32).map(|key| (key.to_be_bytes().to_vec(), Bytes::from("new")));
    store
        .replace(GROUP, records, Bytes::from_static(b"after"))
        .unwrap();
    drop(store);
    for _ in 0..2 {
        let found = all(&bench, b"");
        assert_eq!(found.len(), 2500);
        assert!(found.values().all(|value| value == "new"));
        let applied = bench.log().checkpoints().applied(GROUP).unwrap();
        assert_eq!(applied.as_deref(), Some(&b"after"[..]));
        bench.kill();
    }
}

/// A large commit is one: whichever step the disk dies at, all of it is there or none.
#[test]
fn a_large_commit_is_atomic_at_every_step() {
    let mut died = 0;
    for step in 0.. {
        let mut bench = Bench::new();
        let store = bench.log().checkpoints();
        store.commit(GROUP, big_batch(1)).unwrap();
        bench.disk.die_at_step(step);
        let outcome = store.commit(GROUP, big_batch(2));
        drop(store);
        bench.cut_power(None);
        let values = all(&bench, b"");
        assert_eq!(values.len(), 1000);
        let applied = bench.log().checkpoints().applied(GROUP).unwrap().unwrap();
        assert!(values.values().all(|value| value[0] == applied[0]));
        if outcome.is_ok() {
            assert_eq!(applied[0], 2);
            break;
        }
        died += 1;
    }
    assert!(died >= 5, "the disk died at {died} steps only");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_store_equals_a_map(rounds in vec(vec((vec(0u8..3, 0..4), proptest::option::of(0usize..1200)), 1..12), 1..8), restart in any::<u8>()) {
        let mut bench = Bench::new();
        let mut model = Records::new();
        for (number, round) in rounds.into_iter().enumerate() {
            let mut changes = Vec::new();
            for (key, size) in round {
                let value = size.map(|size| Bytes::from(vec![number as u8; size]));
                match &value {
                    Some(value) => model.insert(key.clone(), value.clone()),
                    None => model.remove(&key),
                };
                changes.push((key, value));
            }
            bench.log().checkpoints().commit(GROUP, batch(changes, number as u8)).unwrap();
            if restart & (1 << (number % 8)) != 0 {
                bench.kill();
            }
            prop_assert_eq!(all(&bench, b""), model.clone());
            for prefix in [&b"\0"[..], b"\x01", b"\x01\0"] {
                let wanted: Records = model.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(key, value)| (key.clone(), value.clone())).collect();
                prop_assert_eq!(all(&bench, prefix), wanted);
            }
            for key in [vec![], vec![0], vec![1, 0], vec![2, 2, 2]] {
                prop_assert_eq!(bench.log().checkpoints().get(GROUP, &key).unwrap(), model.get(&key).cloned());
            }
        }
    }
}
