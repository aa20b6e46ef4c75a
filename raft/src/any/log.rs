//! Any log, and its readers.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};

use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openraft::storage::{
    IOFlushed, LeaderBoundedStreamResult, LogState, RaftLogReader, RaftLogStorage,
};

use crate::types::{Entry, Groups, LeaderId, LogId, Vote};

type Indexes = (Bound<u64>, Bound<u64>);

fn indexes(range: &impl RangeBounds<u64>) -> Indexes {
    (range.start_bound().cloned(), range.end_bound().cloned())
}

trait Reader: Send + Sync {
    fn leader_bounded_stream(
        &mut self,
        leader: LeaderId,
        range: Indexes,
    ) -> BoxFuture<'_, BoxStream<'_, LeaderBoundedStreamResult<Groups>>>;
    fn entries_stream(&mut self, range: Indexes)
    -> BoxFuture<'_, BoxStream<'_, io::Result<Entry>>>;
    fn try_get_log_entries(&mut self, range: Indexes) -> BoxFuture<'_, io::Result<Vec<Entry>>>;
    fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> BoxFuture<'_, io::Result<Vec<Entry>>>;
    fn read_vote(&mut self) -> BoxFuture<'_, io::Result<Option<Vote>>>;
    fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<LogId>,
    ) -> BoxFuture<'_, io::Result<Vec<LogId>>>;
}

impl<R: RaftLogReader<Groups>> Reader for R {
    fn leader_bounded_stream(
        &mut self,
        leader: LeaderId,
        range: Indexes,
    ) -> BoxFuture<'_, BoxStream<'_, LeaderBoundedStreamResult<Groups>>> {
        Box::pin(async move {
            let entries = RaftLogReader::leader_bounded_stream(self, leader, range).await;
            Box::pin(entries) as BoxStream<'_, _>
        })
    }

    fn entries_stream(
        &mut self,
        range: Indexes,
    ) -> BoxFuture<'_, BoxStream<'_, io::Result<Entry>>> {
        Box::pin(async move {
            let entries = RaftLogReader::entries_stream(self, range).await;
            Box::pin(entries) as BoxStream<'_, _>
        })
    }

    fn try_get_log_entries(&mut self, range: Indexes) -> BoxFuture<'_, io::Result<Vec<Entry>>> {
        Box::pin(RaftLogReader::try_get_log_entries(self, range))
    }

    fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> BoxFuture<'_, io::Result<Vec<Entry>>> {
        Box::pin(RaftLogReader::limited_get_log_entries(self, start, end))
    }

    fn read_vote(&mut self) -> BoxFuture<'_, io::Result<Option<Vote>>> {
        Box::pin(RaftLogReader::read_vote(self))
    }

    fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<LogId>,
    ) -> BoxFuture<'_, io::Result<Vec<LogId>>> {
        Box::pin(RaftLogReader::get_key_log_ids(self, range))
    }
}

/// Reads any log.
pub struct AnyReader(Box<dyn Reader>);

impl RaftLogReader<Groups> for AnyReader {
    async fn leader_bounded_stream<B>(
        &mut self,
        leader: LeaderId,
        range: B,
    ) -> impl Stream<Item = LeaderBoundedStreamResult<Groups>> + Send
    where
        B: RangeBounds<u64> + Clone + Debug + Send,
    {
        self.0.leader_bounded_stream(leader, indexes(&range)).await
    }

    async fn entries_stream<B>(&mut self, range: B) -> impl Stream<Item = io::Result<Entry>> + Send
    where
        B: RangeBounds<u64> + Clone + Debug + Send,
    {
        self.0.entries_stream(indexes(&range)).await
    }

    async fn try_get_log_entries<B>(&mut self, range: B) -> io::Result<Vec<Entry>>
    where
        B: RangeBounds<u64> + Clone + Debug + Send,
    {
        self.0.try_get_log_entries(indexes(&range)).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.0.limited_get_log_entries(start, end).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.0.read_vote().await
    }

    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> io::Result<Vec<LogId>> {
        self.0.get_key_log_ids(range).await
    }
}

trait Log: Send + Sync {
    fn get_log_state(&mut self) -> BoxFuture<'_, io::Result<LogState<Groups>>>;
    fn get_log_reader(&mut self) -> BoxFuture<'_, AnyReader>;
    fn save_vote<'a>(&'a mut self, vote: &'a Vote) -> BoxFuture<'a, io::Result<()>>;
    fn save_committed(&mut self, committed: Option<LogId>) -> BoxFuture<'_, io::Result<()>>;
    fn read_committed(&mut self) -> BoxFuture<'_, io::Result<Option<LogId>>>;
    fn append(
        &mut self,
        entries: Vec<Entry>,
        callback: IOFlushed<Groups>,
    ) -> BoxFuture<'_, io::Result<()>>;
    fn truncate_after(&mut self, last_log_id: Option<LogId>) -> BoxFuture<'_, io::Result<()>>;
    fn purge(&mut self, log_id: LogId) -> BoxFuture<'_, io::Result<()>>;
}

impl<L: RaftLogStorage<Groups>> Log for L {
    fn get_log_state(&mut self) -> BoxFuture<'_, io::Result<LogState<Groups>>> {
        Box::pin(RaftLogStorage::get_log_state(self))
    }

    fn get_log_reader(&mut self) -> BoxFuture<'_, AnyReader> {
        Box::pin(async { AnyReader(Box::new(RaftLogStorage::get_log_reader(self).await)) })
    }

    fn save_vote<'a>(&'a mut self, vote: &'a Vote) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(RaftLogStorage::save_vote(self, vote))
    }

    fn save_committed(&mut self, committed: Option<LogId>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(RaftLogStorage::save_committed(self, committed))
    }

    fn read_committed(&mut self) -> BoxFuture<'_, io::Result<Option<LogId>>> {
        Box::pin(RaftLogStorage::read_committed(self))
    }

    fn append(
        &mut self,
        entries: Vec<Entry>,
        callback: IOFlushed<Groups>,
    ) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(RaftLogStorage::append(self, entries, callback))
    }

    fn truncate_after(&mut self, last_log_id: Option<LogId>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(RaftLogStorage::truncate_after(self, last_log_id))
    }

    fn purge(&mut self, log_id: LogId) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(RaftLogStorage::purge(self, log_id))
    }
}

/// Any log.
pub struct AnyLog(Box<dyn Log>);

impl AnyLog {
    pub fn new(log: impl RaftLogStorage<Groups>) -> Self {
        Self(Box::new(log))
    }
}

impl RaftLogStorage<Groups> for AnyLog {
    type LogReader = AnyReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<Groups>> {
        self.0.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> AnyReader {
        self.0.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.0.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.0.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.0.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Groups>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries = entries.into_iter().collect();
        self.0.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.0.truncate_after(last_log_id).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.0.purge(log_id).await
    }
}
