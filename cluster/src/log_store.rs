//! The log of one group, as Raft wants it, over the log of the node.
//!
//! Everything that Raft writes goes, in the order of the calls, into the node's one write queue. An
//! append only submits: it is readable on return, and its completion is called by the writer thread
//! once the round that holds it is synced. Votes and truncations wait for their round, since Raft goes
//! on as if they were durable. Nothing here touches a disk on Raft's own task.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds, RangeInclusive};
use std::sync::Arc;

use flotilla_storage::{GroupId, LogHealth, NodeLog, StorageError};
use futures::Stream;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use crate::codec;
use crate::types::{Batch, Entry, Groups, LogId, Vote};

/// Entries are batches of up to 1 MiB, so that reads must be bounded by bytes, not by count.
const READ_BYTES_MAX: usize = 1 << 20;

/// One group's part of the node's log. Its clones are its readers.
#[derive(Clone)]
pub(crate) struct ShardLog {
    log: NodeLog,
    group: GroupId,
}

impl ShardLog {
    pub fn new(log: NodeLog, group: GroupId) -> Self {
        Self { log, group }
    }

    /// Forgets that the group was damaged, behind all that was asked for before.
    pub async fn healed(&self) -> io::Result<()> {
        self.durable(|done| self.log.healed(self.group, done)).await
    }

    /// Waits for an operation of the write queue to be durable.
    async fn durable(&self, submit: impl FnOnce(flotilla_storage::Done)) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        submit(Box::new(move |result| {
            // The receiver is gone only when the group was stopped in between.
            let _ = sender.send(result);
        }));
        match receiver.await {
            Ok(result) => result.map_err(shared_to_io),
            Err(_) => Err(io::Error::other("the log of this node was closed")),
        }
    }

    /// What a log out of service has lost is not to be taken for what was never there: a leader would
    /// go on as one, with nothing to say.
    fn check_open(&self) -> io::Result<()> {
        match self.log.health() {
            LogHealth::Healthy => Ok(()),
            LogHealth::Failed { reason } | LogHealth::FullWaiting { reason } => {
                Err(io::Error::other(reason))
            }
        }
    }

    fn log_id(&self, index: u64) -> io::Result<LogId> {
        let point = self.log.point(self.group, index).map_err(to_io)?;
        Ok(codec::log_id(point.index, point.term, point.leader))
    }

    /// The last entry of each leader in a range, by the index alone. Leaders follow each other in the
    /// order of the log.
    fn last_of_each_leader(&self, range: &RangeInclusive<LogId>) -> io::Result<Vec<LogId>> {
        let (mut first, last) = (*range.start(), *range.end());
        let mut found = Vec::new();
        while first.leader_id != last.leader_id {
            let mut end = first;
            let mut next = last;
            while end.index + 1 < next.index {
                let middle = self.log_id(end.index + (next.index - end.index) / 2)?;
                if middle.leader_id == first.leader_id {
                    end = middle;
                } else {
                    next = middle;
                }
            }
            found.push(end);
            first = next;
        }
        found.push(last);
        Ok(found)
    }

    /// The part of a range that this log shows to Raft: purged entries are not.
    fn visible(&self, range: &impl RangeBounds<u64>) -> io::Result<Range<u64>> {
        let state = self.log.group_state(self.group).map_err(to_io)?;
        let first = state.purged.map_or(0, |purged| purged.index + 1);
        let end = state.last.map_or(0, |last| last.index + 1);
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let stop = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(stop) => *stop,
            Bound::Unbounded => u64::MAX,
        };
        Ok(start.max(first)..stop.min(end))
    }

    /// In place of an entry that cannot be read: replication, which begins at every change of leader with
    /// entries that the peers have, is not to stop at it for good.
    async fn withheld(&self, index: u64) -> io::Result<Entry> {
        let log = self.clone();
        let log_id = tokio::task::spawn_blocking(move || log.log_id(index))
            .await
            .map_err(io::Error::other)??;
        Ok(Entry {
            log_id,
            payload: EntryPayload::Normal(Batch::withheld()?),
        })
    }

    /// At least one entry if there is any in the range, then as many as fit the limit.
    async fn read_some(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let entries = self.read_raw(range).await?;
        entries.into_iter().map(codec::from_log_entry).collect()
    }

    async fn read_raw(&self, range: Range<u64>) -> io::Result<Vec<flotilla_storage::LogEntry>> {
        let log = self.log.clone();
        let group = self.group;
        let cached = log.is_cached(group, range.start);
        let read = move || log.entries(group, range, READ_BYTES_MAX).map_err(to_io);
        // What was just written is in memory, and a hop to another thread would cost more than the copy.
        if cached {
            return read();
        }
        tokio::task::spawn_blocking(read)
            .await
            .map_err(io::Error::other)?
    }
}

impl RaftLogReader<Groups> for ShardLog {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let mut rest = self.visible(&range)?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let some = self.read_some(rest.clone()).await?;
            let Some(last) = some.last() else { break };
            rest.start = last.log_id.index + 1;
            entries.extend(some);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let range = self.visible(&(start..end))?;
        let first = range.start;
        match self.read_some(range).await {
            Ok(entries) => {
                if entries.is_empty() {
                    self.check_open()?;
                }
                Ok(entries)
            }
            Err(error) if is_corruption(&error) => Ok(vec![self.withheld(first).await?]),
            Err(error) => Err(error),
        }
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let log = self.clone();
        let begin = self.visible(&range).and_then(|rest| {
            // Apply would take what is left for all that there was.
            let is_purged = match range.start_bound() {
                Bound::Included(start) => *start < rest.start,
                Bound::Excluded(_) | Bound::Unbounded => false,
            };
            match is_purged {
                true => Err(incomplete()),
                false => Ok((log, rest)),
            }
        });
        // Some entries at a time: a restart may replay hundreds of MiB.
        futures::stream::unfold(Some(begin), read_next_chunk).flat_map_chunks()
    }

    /// Raft's own way reads whole entries, and would find a group with one damaged message unusable.
    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<LogId>,
    ) -> Result<Vec<LogId>, io::Error> {
        let log = self.clone();
        tokio::task::spawn_blocking(move || log.last_of_each_leader(&range))
            .await
            .map_err(io::Error::other)?
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let state = self.log.group_state(self.group).map_err(to_io)?;
        state
            .vote
            .map(|vote| codec::decode("vote", &vote))
            .transpose()
    }
}

type Progress = Option<io::Result<(ShardLog, Range<u64>)>>;

async fn read_next_chunk(progress: Progress) -> Option<(io::Result<Vec<Entry>>, Progress)> {
    let (log, mut rest) = match progress? {
        Ok(place) => place,
        Err(error) => return Some((Err(error), None)),
    };
    if rest.is_empty() {
        return None;
    }
    match log.read_some(rest.clone()).await {
        Ok(entries) => {
            let Some(last) = entries.last() else {
                return Some((Err(incomplete()), None));
            };
            rest.start = last.log_id.index + 1;
            Some((Ok(entries), Some(Ok((log, rest)))))
        }
        Err(error) => Some((Err(error), None)),
    }
}

/// Turns a stream of chunks into one of entries.
trait FlatMapChunks: Stream<Item = io::Result<Vec<Entry>>> + Sized {
    fn flat_map_chunks(self) -> impl Stream<Item = io::Result<Entry>> {
        use futures::StreamExt;
        self.flat_map(|chunk| {
            let entries: Vec<io::Result<Entry>> = match chunk {
                Ok(entries) => entries.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(entries)
        })
    }
}

impl<S: Stream<Item = io::Result<Vec<Entry>>>> FlatMapChunks for S {}

impl RaftLogStorage<Groups> for ShardLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Groups>, io::Error> {
        let state = self.log.group_state(self.group).map_err(to_io)?;
        let purged = state
            .purged
            .map(|point| codec::log_id(point.index, point.term, point.leader));
        let last = state
            .last
            .map(|point| codec::log_id(point.index, point.term, point.leader));
        Ok(LogState {
            // After a purge of everything the purge point is the last entry that was.
            last_log_id: last.max(purged),
            last_purged_log_id: purged,
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = codec::encode(vote)?;
        self.durable(|done| self.log.save_vote(self.group, bytes, done))
            .await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // A hint that rides along with the next round: it spares a restart the wait for a leader.
        self.log
            .save_committed(self.group, codec::encode(&committed)?)
            .map_err(to_io)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let state = self.log.group_state(self.group).map_err(to_io)?;
        match state.committed {
            Some(bytes) => codec::decode("committed log id", &bytes),
            None => Ok(None),
        }
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Groups>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<_> = entries
            .into_iter()
            .map(|entry| codec::to_log_entry(entry).and_then(codec::storable))
            .collect::<io::Result<_>>()?;
        self.log.append(
            self.group,
            entries,
            Box::new(move |result| callback.io_completed(result.map_err(shared_to_io))),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let last_kept = last_log_id.map(|log_id| log_id.index);
        let state = self.log.group_state(self.group).map_err(to_io)?;
        if last_kept >= state.last.map(|last| last.index) {
            return Ok(());
        }
        self.durable(|done| self.log.truncate_after(self.group, last_kept, done))
            .await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let point = codec::log_point(&log_id);
        self.durable(|done| self.log.purge(self.group, point, done))
            .await
    }
}

fn incomplete() -> io::Error {
    io::Error::other("entries to be applied are purged or not there")
}

fn to_io(error: StorageError) -> io::Error {
    io::Error::other(error)
}

fn is_corruption(error: &io::Error) -> bool {
    let source = error.get_ref();
    let source = source.and_then(|source| source.downcast_ref::<StorageError>());
    source.is_some_and(StorageError::is_corruption)
}

fn shared_to_io(error: Arc<StorageError>) -> io::Error {
    io::Error::other(crate::error::chain(&*error))
}
