//! Acknowledged means durable: crashes, power cuts, failed and lying disks, full disks.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::support::{Bench, WAIT, entry, slot_bytes};
use crate::{GroupId, LogHealth, StorageError, SyncPolicy};

const GROUP: GroupId = GroupId(1);

/// Writes until the disk dies at `step`; returns the last acknowledged index and vote.
fn write_until_death(bench: &Bench, step: u64) -> (u64, Option<String>) {
    bench.disk.die_at_step(step);
    write_until_refused(bench)
}

fn write_until_refused(bench: &Bench) -> (u64, Option<String>) {
    let (mut acknowledged, mut vote) = (0, None);
    for index in 1..=40 {
        if index % 7 == 0 {
            let wanted = format!("vote {index}");
            if bench.vote(1, &wanted).is_err() {
                break;
            }
            vote = Some(wanted);
        }
        if bench.append(1, vec![entry(index, 2, 700)]).is_err() {
            break;
        }
        acknowledged = index;
    }
    (acknowledged, vote)
}

fn check_acknowledged(bench: &Bench, acknowledged: u64, vote: Option<&String>) -> bool {
    let entries = bench.indexes(1);
    let dense: Vec<u64> = (1..=entries.len() as u64).collect();
    assert_eq!(entries, dense, "entries are dense from the first");
    let all_there = entries.len() as u64 >= acknowledged;
    for index in &entries {
        let slots = bench.log().read_slots(GROUP, *index, 0..2).unwrap();
        assert_eq!(slots[1], slot_bytes(*index, 1, 700, 0));
    }
    let state = bench.log().group_state(GROUP).unwrap();
    let found = state
        .vote
        .map(|vote| String::from_utf8(vote.to_vec()).unwrap());
    // A vote that was not acknowledged may be there as well.
    let vote_number = |vote: &String| vote.trim_start_matches("vote ").parse::<u64>().unwrap();
    let vote_there = found.as_ref().map_or(0, vote_number) >= vote.map_or(0, vote_number);
    all_there && vote_there
}

/// The disk dies at every step in turn and forgets, or tears, what was not synced.
#[test]
fn a_power_cut_at_any_step_loses_nothing_acknowledged() {
    for step in 0.. {
        let mut bench = Bench::with(|config| config.segment_bytes = 8 << 10);
        let (acknowledged, vote) = write_until_death(&bench, step);
        let torn = (step % 3 != 0).then_some(step);
        let report = bench.cut_power(torn);
        assert_eq!(report.damage, [], "a torn tail is not damage (step {step})");
        assert!(
            check_acknowledged(&bench, acknowledged, vote.as_ref()),
            "lost something acknowledged before {acknowledged} at step {step}"
        );
        // The log goes on behind what was found, and that survives as well.
        let next = bench.indexes(1).len() as u64 + 1;
        bench.append(1, vec![entry(next, 2, 700)]).unwrap();
        bench.cut_power(None);
        assert!(check_acknowledged(&bench, next, vote.as_ref()));
        if acknowledged == 40 {
            assert!(step > 60, "only {step} steps were taken");
            break;
        }
    }
}

/// The test above is able to fail: without syncs acknowledged entries are lost.
#[test]
fn without_syncs_a_power_cut_loses_acknowledged_entries() {
    let mut bench = Bench::new();
    bench.disk.lie_about_syncs();
    let (acknowledged, vote) = write_until_death(&bench, u64::MAX / 2);
    assert_eq!(acknowledged, 40);
    // The index must not know better than the disk: it is kept from the log's own bookkeeping.
    bench.disk.die_at_step(0);
    bench.log = None;
    bench.disk.cut_power(None);
    std::fs::remove_dir_all(bench.config.index_dir()).unwrap();
    bench.open().unwrap();
    assert!(!check_acknowledged(&bench, acknowledged, vote.as_ref()));
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let mut bench = Bench::new();
    let mut next = 1;
    for _ in 0..10 {
        for _ in 0..7 {
            bench.append(1, vec![entry(next, 2, 700)]).unwrap();
            next += 1;
        }
        bench.kill();
        assert!(check_acknowledged(&bench, next - 1, None));
    }
}

#[test]
fn a_failed_sync_stops_the_log_and_is_never_retried() {
    let mut bench = Bench::new();
    bench.append(1, vec![entry(1, 1, 100)]).unwrap();
    bench.disk.wait_until_prepared();
    bench.disk.fail_sync(0);
    let failed = bench.append(1, vec![entry(2, 1, 100)]).unwrap_err();
    assert!(matches!(*failed, StorageError::Io { action: "sync", .. }));
    let syncs = bench.disk.syncs();
    let refused = bench.append(1, vec![entry(3, 1, 100)]).unwrap_err();
    assert!(matches!(*refused, StorageError::Failed { .. }));
    assert!(bench.vote(1, "v").is_err());
    assert!(matches!(bench.log().health(), LogHealth::Failed { .. }));
    assert!(bench.log().admission(1).is_err());
    assert!(bench.log().try_recover().unwrap().is_none());
    // Reads go on.
    let slots = bench.log().read_slots(GROUP, 1, 0..1).unwrap();
    assert_eq!(slots[0], slot_bytes(1, 0, 100, 0));
    assert_eq!(bench.disk.syncs(), syncs);
    bench.cut_power(None);
    assert_eq!(bench.indexes(1), [1]);
}

#[test]
fn a_failed_write_stops_the_log_and_completes_all_that_wait() {
    let mut bench = Bench::new();
    bench.append(1, vec![entry(1, 1, 100)]).unwrap();
    bench.disk.delay_syncs(Duration::from_millis(5));
    bench.disk.fail_write(1);
    let pending: Vec<_> = (2..=300)
        .map(|index| bench.submit(1, vec![entry(index, 1, 100)]))
        .collect();
    let outcomes: Vec<bool> = pending
        .iter()
        .map(|pending| pending.recv_timeout(WAIT).unwrap().is_ok())
        .collect();
    assert!(outcomes.is_sorted_by(|left, right| left >= right));
    assert!(!outcomes[298], "300 calls do not fit one round");
    let acknowledged = 1 + outcomes.iter().filter(|ok| **ok).count() as u64;
    bench.kill();
    assert!(bench.indexes(1).len() as u64 >= acknowledged);
}

#[test]
fn a_full_disk_is_waited_out() {
    let mut bench = Bench::with(|config| {
        config.segment_bytes = 8 << 10;
        config.reserve_bytes = Some(20 << 10);
    });
    bench.disk.set_capacity(Some(64 << 10));
    let mut index = 0;
    let refused = loop {
        index += 1;
        if let Err(error) = bench.log().admission(2000) {
            break error;
        }
        bench.append(1, vec![entry(index, 2, 1000)]).unwrap();
    };
    assert!(matches!(
        refused,
        StorageError::Full {
            reserve: 20_480,
            ..
        }
    ));
    // Settlements may use the reserve, until that is gone too.
    let mut last = index - 1;
    let full = loop {
        match bench.append(1, vec![entry(last + 1, 2, 1000)]) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
    };
    assert!(last > index, "the reserve was used");
    assert!(full.is_out_of_space());
    assert!(matches!(
        bench.log().health(),
        LogHealth::FullWaiting { .. }
    ));
    assert!(bench.log().try_recover().unwrap().is_none());
    assert!(check_full(&bench, last));
    bench.disk.set_capacity(Some(1 << 20));
    let deadline = Instant::now() + WAIT;
    while bench.log().try_recover().unwrap().is_none() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(bench.log().health(), LogHealth::Healthy);
    assert!(check_full(&bench, last));
    let next = bench.indexes(1).len() as u64 + 1;
    bench.append(1, vec![entry(next, 2, 1000)]).unwrap();
    bench.cut_power(None);
    assert!(check_full(&bench, next));
}

fn check_full(bench: &Bench, last: u64) -> bool {
    let read = bench.log().read_slots(GROUP, last, 0..1).unwrap();
    assert_eq!(read[0], slot_bytes(last, 0, 1000, 0));
    bench.indexes(1).len() as u64 >= last
}

#[test]
fn under_interval_sync_a_power_cut_keeps_a_prefix_and_all_votes() {
    let mut bench =
        Bench::with(|config| config.sync = SyncPolicy::Interval(Duration::from_secs(3600)));
    for index in 1..=5 {
        bench.append(1, vec![entry(index, 1, 100)]).unwrap();
    }
    bench.vote(1, "kept").unwrap();
    for index in 6..=9 {
        bench.append(1, vec![entry(index, 1, 100)]).unwrap();
    }
    bench.cut_power(None);
    assert_eq!(bench.indexes(1), [1, 2, 3, 4, 5]);
    let state = bench.log().group_state(GROUP).unwrap();
    assert_eq!(state.vote.as_deref(), Some(&b"kept"[..]));
}

/// A checkpoint is the result of entries: they must be as durable as it is.
#[test]
fn a_checkpoint_is_never_ahead_of_the_log() {
    let mut bench =
        Bench::with(|config| config.sync = SyncPolicy::Interval(Duration::from_secs(3600)));
    bench.append(1, vec![entry(1, 1, 100)]).unwrap();
    let batch = crate::CheckpointBatch {
        applied: "at 1".into(),
        released: vec![crate::Released {
            index: 1,
            slots: 0..1,
            bytes: 100,
        }],
        ..Default::default()
    };
    bench.log().checkpoints().commit(GROUP, batch).unwrap();
    bench.cut_power(None);
    assert_eq!(bench.indexes(1), [1]);
    let segments = bench.log().segments().unwrap();
    let live: u64 = segments.iter().map(|one| one.live_bytes).sum();
    assert_eq!(live, 0, "{segments:?}");
}

#[test]
fn restarts_without_writes_leave_no_segments_behind() {
    let mut bench = Bench::new();
    bench.append(1, vec![entry(1, 1, 100)]).unwrap();
    for _ in 0..6 {
        bench.restart();
        bench.kill();
    }
    let segments = bench.log().segments().unwrap();
    assert!(segments.len() <= 2, "{segments:?}");
    assert!(bench.disk.paths().len() <= 4, "{:?}", bench.disk.paths());
}

#[test]
fn what_waits_when_the_log_is_dropped_is_told_so() {
    let mut bench = Bench::new();
    bench.disk.delay_syncs(Duration::from_millis(100));
    let first = bench.submit(1, vec![entry(1, 1, 10)]);
    let second = bench.submit(1, vec![entry(2, 1, 10)]);
    bench.log = None;
    first.recv_timeout(WAIT).unwrap().ok();
    let outcome = second.recv_timeout(WAIT).unwrap();
    if let Err(error) = outcome {
        assert!(matches!(*error, StorageError::Closed));
    }
}

#[test]
fn a_panic_at_any_step_stops_the_log_leaves_nobody_waiting_and_loses_nothing_acknowledged() {
    let mut stopped = BTreeSet::new();
    for step in 0..40 {
        let mut bench = Bench::with(|config| config.segment_bytes = 8 << 10);
        bench.disk.panic_at_step(step);
        let (acknowledged, vote) = write_until_refused(&bench);
        assert!(acknowledged < 40, "nothing panicked at step {step}");
        let deadline = Instant::now() + WAIT;
        let reason = loop {
            // Whoever waits hears of it while the thread still unwinds.
            if let LogHealth::Failed { reason } = bench.log().health() {
                break reason;
            }
            assert!(
                Instant::now() < deadline,
                "the log goes on after a panic at step {step}"
            );
        };
        stopped.insert(reason);
        assert!(bench.vote(1, "v").is_err());
        assert!(bench.log().seal().is_err());
        if step % 2 == 0 {
            assert!(bench.log().shutdown().is_err(), "it did not end well");
        }
        bench.kill();
        assert!(
            check_acknowledged(&bench, acknowledged, vote.as_ref()),
            "step {step}: something acknowledged is gone"
        );
    }
    assert_eq!(
        stopped.len(),
        2,
        "the writer and the preparer use the disk: {stopped:?}"
    );
}
