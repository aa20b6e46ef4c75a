//! The digest of one replica at one entry: what is stored there, read and checked part by part.
//!
//! Memory holds a few parts, however large the replica is. Parts end at places that depend on what is in
//! them alone, so that two replicas that differ in one place agree on all the others.

use std::time::{Duration, Instant};

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};
use flotilla_storage::{NodeLog, SnapshotExport, StorageError};
use tokio::sync::mpsc;

use super::message::{ENTRIES_PER_PART, Part, Place, Step, Told, Totals, Words, broken};
use super::verify::READY_WAIT_MAX;
use crate::checkpoint::ExactCheckpoint;
use crate::error::ClusterError;
use crate::group::Group;
use crate::pace::Pace;
use crate::snapshot::live_ranges;

/// A replica that was just started, or made anew, first applies what it has.
const RECOVERY_WAIT_MAX: Duration = Duration::from_secs(10);
const RECOVERY_LOOK: Duration = Duration::from_millis(20);
/// No checkpoint is made meanwhile, so changed records gather in memory.
pub(super) const ENTRY_WAIT_MAX: Duration = Duration::from_secs(10);
/// A part of records ends at one key in so many...
const KEYS_PER_PART: u32 = 16;
/// ...and at so many in any case.
const RECORDS_MAX: u32 = 256;
/// Parts told at once.
const PARTS_AT_ONCE: usize = 256;
/// The other side waits for a word only so long, and a part may take a while at a low rate: what there is
/// by then is told, if it is nothing, too.
const TELL_PERIOD: Duration = Duration::from_secs(10);
/// Waited for at once: a few seconds at the lowest rate.
const PASS_BYTES: u64 = 256 << 10;
/// Entries of the log read at once.
const LOG_BYTES: usize = 1 << 20;

/// How long a replica waits for what follows.
struct Patience {
    /// Until the first entry is named, which is when the slowest replica is ready.
    first: Duration,
    /// From one entry that is named to the next, or until it is applied.
    entry: Duration,
}

const PATIENCE: Patience = Patience {
    first: READY_WAIT_MAX.saturating_add(ENTRY_WAIT_MAX),
    entry: ENTRY_WAIT_MAX,
};

/// Answers with the digest of a replica on this node.
pub(super) async fn answer(
    group: &Group,
    bytes_per_second: u64,
    words: &mut Words,
) -> Result<(), ClusterError> {
    let replica = &group.replica;
    if let Some(reason) = replica.trouble() {
        return Err(ClusterError::Unavailable { reason });
    }
    let recovered = async {
        while !replica.is_recovered() {
            tokio::time::sleep(RECOVERY_LOOK).await;
        }
    };
    let recovered = tokio::time::timeout(RECOVERY_WAIT_MAX, recovered).await;
    recovered.map_err(|_| broken("the replica has not recovered yet"))?;
    let mut exact = ExactCheckpoint::begin(replica).await?;
    let last = replica.log.group_state(replica.group)?.last;
    let last = last.map_or(0, |point| point.index);
    words.say(&Told::Ready { last }).await?;
    let index = agree(&mut exact, words, group.stopped(), &PATIENCE).await?;
    let export = exact.export(index).await?;
    drop(exact);
    let (frames, mut queue) = mpsc::channel(2);
    let log = replica.log.clone();
    let shard = replica.shard;
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = Reader {
            pace: Pace::new(bytes_per_second),
            frames,
            ready: Vec::new(),
            told_at: Instant::now(),
            tell_period: TELL_PERIOD,
            totals: Totals::default(),
        };
        reader
            .read(&export, &log)
            .map_err(|error| ClusterError::of_read(shard, error))?;
        Ok::<_, ClusterError>(reader.totals)
    });
    while let Some(parts) = queue.recv().await {
        words.say(&Told::Parts(parts)).await?;
    }
    let told = match reading.await.map_err(broken)? {
        Ok(totals) => Told::End(totals),
        Err(ClusterError::Corrupt { what, .. }) => Told::Unsound { reason: what },
        Err(error) => return Err(error),
    };
    words.say(&told).await
}

/// Finds the entry that all replicas can be compared at, and waits until it is applied here.
async fn agree(
    exact: &mut ExactCheckpoint<'_>,
    words: &mut Words,
    stopped: impl Future<Output = ()>,
    patience: &Patience,
) -> Result<u64, ClusterError> {
    let mut stopped = std::pin::pin!(stopped);
    let mut deadline = Instant::now() + patience.first;
    let mut armed = None;
    let mut is_reached = false;
    loop {
        // Only the waiting may be broken off, not the writing of what is frozen.
        let heard = tokio::time::timeout_at(deadline.into(), words.hear());
        let heard = tokio::select! {
            biased;
            heard = heard => heard,
            () = exact.reached(), if armed.is_some() && !is_reached => {
                is_reached = true;
                words.say(&Told::Reached).await?;
                continue;
            }
            // Whoever stopped it may be waiting to start it again on the state that is kept here.
            () = stopped.as_mut() => return Err(broken("the replica was stopped meanwhile")),
        };
        let late = |_| broken("the entry to compare at was not reached in time");
        match (heard.map_err(late)??, armed) {
            (Step::At { index }, _) => {
                is_reached = false;
                let passed = exact.arm(index).await?;
                armed = passed.is_none().then_some(index);
                let told = match passed {
                    None => Told::Armed,
                    Some(applied) => Told::Passed { applied },
                };
                words.say(&told).await?;
                deadline = Instant::now() + patience.entry;
            }
            (Step::Compare, Some(index)) if is_reached => return Ok(index),
            (Step::Compare, _) => {
                return Err(broken("a digest was wanted before the entry was reached"));
            }
        }
    }
}

/// Reads a frozen replica on a thread of its own.
struct Reader {
    pace: Pace,
    frames: mpsc::Sender<Vec<Part>>,
    ready: Vec<Part>,
    told_at: Instant,
    tell_period: Duration,
    totals: Totals,
}

impl Reader {
    fn read(&mut self, export: &SnapshotExport, log: &NodeLog) -> Result<(), StorageError> {
        self.read_messages(export)?;
        self.read_records(export)?;
        self.tell();
        self.read_log(export, log)
    }

    fn read_messages(&mut self, export: &SnapshotExport) -> Result<(), StorageError> {
        let mut part: Option<Part> = None;
        for range in live_ranges(export, export.manifest().upto.index) {
            let range = range?;
            let first = range.index / ENTRIES_PER_PART * ENTRIES_PER_PART;
            let place = Place::Entries { first };
            if part.as_ref().is_some_and(|part| part.place != place) {
                self.put(part.take());
            }
            let checked = export.check(&range)?;
            let part = part.get_or_insert_with(|| empty(place));
            part.count += checked.messages;
            part.bytes += checked.bytes;
            part.damaged += checked.damaged;
            part.crc = crc32c_append(part.crc, &range.index.to_le_bytes());
            part.crc = crc32c_append(part.crc, &checked.crc.to_le_bytes());
            self.totals.messages += u64::from(checked.messages);
            self.totals.message_bytes += checked.bytes;
            self.totals.damaged += u64::from(checked.damaged);
            self.pass(checked.bytes);
            if self.is_over() {
                return Ok(());
            }
        }
        self.put(part);
        Ok(())
    }

    fn read_records(&mut self, export: &SnapshotExport) -> Result<(), StorageError> {
        let mut part: Option<Part> = None;
        for record in export.records() {
            let (key, value): (Vec<u8>, Bytes) = record?;
            let present = part.get_or_insert_with(|| empty(Place::Records { upto: Vec::new() }));
            present.count += 1;
            present.bytes += value.len() as u64;
            for bytes in [&key[..], &value[..]] {
                present.crc = crc32c_append(present.crc, &(bytes.len() as u64).to_le_bytes());
                present.crc = crc32c_append(present.crc, bytes);
            }
            self.totals.records += 1;
            self.pass((key.len() + value.len()) as u64);
            let ends = crc32c(&key).is_multiple_of(KEYS_PER_PART) || present.count == RECORDS_MAX;
            present.place = Place::Records { upto: key };
            if ends {
                self.put(part.take());
            }
            if self.is_over() {
                return Ok(());
            }
        }
        self.put(part);
        Ok(())
    }

    /// Entries that a follower may ask for, and that a restart may need. They are not compared: what is in
    /// them is the same by Raft's own rules, as long as it is whole.
    fn read_log(&mut self, export: &SnapshotExport, log: &NodeLog) -> Result<(), StorageError> {
        let group = export.manifest().group;
        let end = export.manifest().upto.index + 1;
        // Purged entries are passed over: they may be purged while this runs.
        let mut next = 0;
        while next < end && !self.is_over() {
            let (read, bytes) = match log.entries(group, next..end, LOG_BYTES) {
                Ok(entries) => {
                    let Some(last) = entries.last() else { break };
                    let bytes: usize = entries.iter().map(|entry| entry.body.len()).sum();
                    next = last.index + 1;
                    (entries.len(), bytes)
                }
                Err(StorageError::Corrupt { index, .. } | StorageError::NotFound { index, .. })
                    if index >= next =>
                {
                    self.totals.log_damaged += 1;
                    self.totals.log_damaged_first.get_or_insert(index);
                    next = index + 1;
                    (1, 0)
                }
                Err(error) => return Err(error),
            };
            self.totals.log_entries += read as u64;
            self.pass(bytes as u64);
        }
        Ok(())
    }

    /// Waits until so many bytes may be read, and lets the other side know that this goes on.
    fn pass(&mut self, bytes: u64) {
        let mut left = bytes;
        while left > 0 && !self.is_over() {
            let now = left.min(PASS_BYTES);
            self.pace.pass_blocking(now);
            left -= now;
            if self.told_at.elapsed() >= self.tell_period {
                self.tell();
            }
        }
    }

    fn put(&mut self, part: Option<Part>) {
        self.ready.extend(part);
        if self.ready.len() >= PARTS_AT_ONCE {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.told_at = Instant::now();
        // Whoever asked is gone: the reading ends at its next look.
        let _ = self.frames.blocking_send(std::mem::take(&mut self.ready));
    }

    /// Nobody waits for the digest any more.
    fn is_over(&self) -> bool {
        self.frames.is_closed()
    }
}

fn empty(place: Place) -> Part {
    Part {
        place,
        count: 0,
        bytes: 0,
        crc: 0,
        damaged: 0,
    }
}

#[cfg(test)]
mod tests {
    use flotilla_storage::GroupId;

    use super::*;
    use crate::net::Talk;
    use crate::replica::Replica;
    use crate::tests::replay::{open_log, open_replica};

    fn replica(dir: &tempfile::TempDir) -> std::sync::Arc<Replica> {
        open_replica(&open_log(dir.path()), GroupId(1), 1 << 20)
    }

    #[tokio::test]
    async fn a_replica_that_is_ready_early_waits_for_the_slowest() {
        let dir = tempfile::tempdir().unwrap();
        let replica = replica(&dir);
        let mut exact = ExactCheckpoint::begin(&replica).await.unwrap();
        let (here, there) = Talk::pair();
        let (mut words, mut asking) = (Words::from(here), Words::from(there));
        let patience = Patience {
            first: Duration::from_secs(60),
            entry: Duration::from_secs(2),
        };
        let asked = async {
            // Another one is not ready yet.
            tokio::time::sleep(patience.entry + Duration::from_millis(100)).await;
            // Nothing is applied: it is there.
            asking.say(&Step::At { index: 0 }).await.unwrap();
            assert_eq!(asking.answer().await.unwrap(), Told::Armed);
            assert_eq!(asking.answer().await.unwrap(), Told::Reached);
            asking.say(&Step::Compare).await.unwrap();
        };
        let agreed = async {
            let never = std::future::pending();
            let agreed = agree(&mut exact, &mut words, never, &patience).await;
            assert_eq!(agreed.unwrap(), 0);
        };
        tokio::join!(agreed, asked);
    }

    #[tokio::test]
    async fn a_replica_that_is_stopped_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let replica = replica(&dir);
        let mut exact = ExactCheckpoint::begin(&replica).await.unwrap();
        let (here, _there) = Talk::pair();
        let stopped = std::future::ready(());
        let agreed = agree(&mut exact, &mut here.into(), stopped, &PATIENCE).await;
        assert!(agreed.unwrap_err().to_string().contains("stopped"));
    }

    #[test]
    fn whoever_waits_for_a_slow_replica_hears_that_it_goes_on() {
        let (frames, mut queue) = mpsc::channel(2);
        let mut reader = Reader {
            pace: Pace::new(2 << 20),
            frames,
            ready: Vec::new(),
            told_at: Instant::now(),
            tell_period: Duration::from_millis(50),
            totals: Totals::default(),
        };
        // One large entry: no part ends before it is read.
        reader.pass(2 * PASS_BYTES);
        assert_eq!(queue.try_recv(), Ok(Vec::new()));
    }
}
