//! A log on a faulty disk, and short ways to use it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use crate::testing::{EndOfLife, FaultyDisk};
use crate::{
    EntryBody, GroupId, LogConfig, LogEntry, LogPoint, NodeLog, RecoveryReport, StorageError,
};

pub(super) const WAIT: Duration = Duration::from_secs(30);

/// A log whose segments live in memory and whose index lives in a temporary directory.
pub(super) struct Bench {
    /// Holds the index; removed with the bench.
    _dir: TempDir,
    pub disk: FaultyDisk,
    pub config: LogConfig,
    pub log: Option<NodeLog>,
}

pub(super) type Outcome = Result<(), Arc<StorageError>>;

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut LogConfig)) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let mut config = LogConfig::new(dir.path());
        config.segment_bytes = 16 << 10;
        config.tail_cache_bytes = 8 << 10;
        config.index_cache_bytes = 1 << 20;
        config.reserve_bytes = Some(0);
        change(&mut config);
        let mut bench = Bench {
            _dir: dir,
            disk: FaultyDisk::new(),
            config,
            log: None,
        };
        bench.open().unwrap();
        bench
    }

    pub(super) fn open(&mut self) -> Result<RecoveryReport, StorageError> {
        self.log = None;
        let (log, report) = NodeLog::open(self.config.clone(), Arc::new(self.disk.clone()))?;
        self.log = Some(log);
        Ok(report)
    }

    pub(super) fn log(&self) -> &NodeLog {
        self.log.as_ref().unwrap()
    }

    /// Ends the log properly and opens it again.
    pub(super) fn restart(&mut self) -> RecoveryReport {
        self.log().shutdown().unwrap();
        self.open().unwrap()
    }

    /// Drops the log as a killed process would, and opens it again.
    pub(super) fn kill(&mut self) -> RecoveryReport {
        self.log = None;
        self.open().unwrap()
    }

    /// Kills the process and cuts the power.
    pub(super) fn cut_power(&mut self, torn_seed: Option<u64>) -> RecoveryReport {
        // The disk goes dead first, so that nothing is written while the threads end.
        self.disk.die_at_step(0);
        self.log = None;
        self.disk.cut_power(torn_seed);
        self.open().unwrap()
    }

    /// Opens the log as the next life of the machine finds it, also when the disk is dead.
    pub(super) fn next_life(&mut self, end: EndOfLife) -> RecoveryReport {
        self.disk.die_at_step(0);
        self.log = None;
        let dir = &self.config.dir;
        self.disk = self.disk.survivor(dir, dir, end);
        self.open().unwrap()
    }

    pub(super) fn submit(&self, group: u32, entries: Vec<LogEntry>) -> Receiver<Outcome> {
        let (sender, receiver) = channel();
        self.log().append(
            GroupId(group),
            entries,
            Box::new(move |outcome| sender.send(outcome).unwrap()),
        );
        receiver
    }

    pub(super) fn append(&self, group: u32, entries: Vec<LogEntry>) -> Outcome {
        self.submit(group, entries).recv_timeout(WAIT).unwrap()
    }

    pub(super) fn wait(&self, call: impl FnOnce(&NodeLog, crate::Done)) -> Outcome {
        let (sender, receiver) = channel();
        call(
            self.log(),
            Box::new(move |outcome| sender.send(outcome).unwrap()),
        );
        receiver.recv_timeout(WAIT).unwrap()
    }

    pub(super) fn vote(&self, group: u32, vote: &str) -> Outcome {
        let vote = Bytes::copy_from_slice(vote.as_bytes());
        self.wait(|log, done| log.save_vote(GroupId(group), vote, done))
    }

    pub(super) fn truncate(&self, group: u32, last_kept: Option<u64>) -> Outcome {
        self.wait(|log, done| log.truncate_after(GroupId(group), last_kept, done))
    }

    pub(super) fn purge(&self, group: u32, index: u64) -> Outcome {
        let upto = point(index);
        self.wait(|log, done| log.purge(GroupId(group), upto, done))
    }

    pub(super) fn indexes(&self, group: u32) -> Vec<u64> {
        self.log()
            .entries(GroupId(group), 0..u64::MAX, usize::MAX)
            .unwrap()
            .iter()
            .map(|entry| entry.index)
            .collect()
    }
}

pub(super) fn point(index: u64) -> LogPoint {
    LogPoint {
        index,
        term: 1 + index / 10,
        leader: 7,
    }
}

/// An entry whose slots say which they are.
pub(super) fn entry(index: u64, slots: u32, slot_bytes: usize) -> LogEntry {
    entry_of(index, slots, slot_bytes, 0)
}

pub(super) fn slot_bytes(index: u64, slot: u32, bytes: usize, version: u64) -> Bytes {
    let mut payload = format!("{index}/{slot}/{version}.").into_bytes();
    let fill = (index as u8).wrapping_mul(31).wrapping_add(slot as u8);
    payload.resize(bytes.max(payload.len()), fill);
    Bytes::from(payload)
}

pub(super) fn entry_of(index: u64, slots: u32, bytes: usize, version: u64) -> LogEntry {
    let body = EntryBody::builder()
        .head(Bytes::from(format!("head {index} {version}")))
        .slots((0..slots).map(|slot| slot_bytes(index, slot, bytes, version)))
        .build()
        .unwrap();
    let point = point(index);
    LogEntry {
        index,
        term: point.term,
        leader: point.leader,
        kind: 1,
        body,
    }
}
