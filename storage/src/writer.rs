//! The one thread that writes the log.
//!
//! A round takes what waits, writes it in order with one vectored write, syncs once, and completes
//! the waiting calls in order. Nothing else happens on this thread: files are made by `preparer`,
//! the index is written by `index_thread`.

mod frames;
mod op;

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::GroupId;
use crate::applier::{LogOp, LoggedOp};
use crate::config::SyncPolicy;
use crate::core::Core;
use crate::error::{Result, StorageError};
use crate::frame::{Content, Position};
use crate::group::GroupTable;
use crate::metrics::count;
use crate::records::IndexRecord;
use crate::segment::SegmentFile;

pub(crate) use op::{Op, Queued, Work};

/// After this much silence a mark is written that proves the last round durable.
const MARK_AFTER: Duration = Duration::from_millis(20);

/// An entry written in this round or an earlier one that is not synced yet.
struct Stored {
    group: GroupId,
    index: u64,
    id: u64,
    record: IndexRecord,
}

pub(crate) struct Writer {
    core: Arc<Core>,
    segment: Arc<SegmentFile>,
    /// Where the next frame goes.
    offset: u64,
    /// Where the first frame behind the preamble stands.
    first_frame_at: u64,
    durable: Position,
    groups: GroupTable,
    round: u64,
    headers: BytesMut,
    parts: Vec<Bytes>,
    parts_at: u64,
    logged: Vec<LoggedOp>,
    stored: Vec<Stored>,
    unsynced_since: Option<Instant>,
    unsynced_bytes: u64,
    mark_wanted: bool,
}

impl Writer {
    /// Starts on a fresh segment; its preamble is durable when this returns.
    pub(crate) fn begin(
        core: Arc<Core>,
        segment: Arc<SegmentFile>,
        groups: GroupTable,
        before: Position,
        round: u64,
    ) -> Result<Writer> {
        let mut writer = Writer {
            core,
            segment: segment.clone(),
            offset: 0,
            first_frame_at: 0,
            durable: before,
            groups,
            round,
            headers: BytesMut::new(),
            parts: Vec::new(),
            parts_at: 0,
            logged: Vec::new(),
            stored: Vec::new(),
            unsynced_since: None,
            unsynced_bytes: 0,
            mark_wanted: false,
        };
        writer.enter(segment);
        writer.write_parts()?;
        writer.sync()?;
        writer.publish();
        Ok(writer)
    }

    /// Body of the thread.
    pub(crate) fn run(mut self) {
        loop {
            match self.core.next_work(self.wake_at()) {
                Work::Round { ops, hints } => {
                    let outcome = self.round(&ops, hints);
                    self.complete(ops, outcome);
                }
                Work::Quiet { hints } => {
                    if let Err(error) = self.quiet(hints) {
                        self.core.stop(Arc::new(error));
                    }
                }
                Work::Close => {
                    if self.core.is_stopped() {
                        return;
                    }
                    let outcome = self.sync_if_needed();
                    match outcome {
                        Ok(()) => self.publish(),
                        Err(error) => self.core.stop(Arc::new(error)),
                    }
                    return;
                }
                Work::Abandon => return,
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        if self.core.is_stopped() {
            return None;
        }
        match (self.core.config.sync, self.unsynced_since) {
            (SyncPolicy::Interval(interval), Some(since)) => Some(since + interval),
            _ => self.mark_wanted.then(|| Instant::now() + MARK_AFTER),
        }
    }

    fn round(&mut self, ops: &[Queued], hints: Vec<(GroupId, Bytes)>) -> Result<()> {
        self.round += 1;
        count(&self.core.metrics.rounds, 1);
        let mut force_sync = false;
        for queued in ops {
            force_sync |= queued.op.forces_sync();
            self.put_op(&queued.op)?;
        }
        self.put_hints(hints)?;
        self.write_parts()?;
        let must_sync = match self.core.config.sync {
            SyncPolicy::Always => true,
            SyncPolicy::Interval(interval) => {
                force_sync
                    || self.unsynced_bytes >= self.core.config.round_bytes_max
                    || self
                        .unsynced_since
                        .is_some_and(|since| since.elapsed() >= interval)
            }
        };
        if must_sync && self.unsynced_since.is_some() {
            self.sync()?;
        }
        self.mark_wanted = true;
        Ok(())
    }

    /// Hands the round's outcome to its callers, in the order of their calls.
    fn complete(&mut self, ops: Vec<Queued>, outcome: Result<()>) {
        let outcome = outcome.map_err(Arc::new);
        match &outcome {
            Ok(()) => {
                self.mark_durable();
                // Before the callers hear of it: they may ask for a barrier at once.
                self.publish();
            }
            Err(error) => self.core.mark_stopped(error),
        }
        self.core
            .release_queued(ops.iter().map(|queued| queued.bytes).sum());
        for queued in ops {
            self.core.metrics.append.record(queued.at.elapsed());
            queued.complete(outcome.clone());
        }
        match outcome {
            Ok(()) => self.core.index_queue.wait_for_room(),
            Err(error) => self.core.stop(error),
        }
    }

    fn quiet(&mut self, hints: Vec<(GroupId, Bytes)>) -> Result<()> {
        if let SyncPolicy::Interval(_) = self.core.config.sync
            && self.unsynced_since.is_some()
        {
            self.sync()?;
            self.mark_durable();
            self.publish();
            return Ok(());
        }
        self.mark_wanted = false;
        self.round += 1;
        // Not synced: the kernel writes it out in its own time, and losing it loses no promise.
        self.put_hints(hints)?;
        self.put(GroupId(0), Content::Mark, LogOp::Mark)?;
        self.write_parts()
    }

    fn write_parts(&mut self) -> Result<()> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let slices: Vec<IoSlice<'_>> = self.parts.iter().map(|part| IoSlice::new(part)).collect();
        self.segment
            .file
            .write_at(self.parts_at, &slices)
            .map_err(StorageError::io("write", &self.segment.path))?;
        let bytes = self.offset - self.parts_at;
        count(&self.core.metrics.bytes, bytes);
        self.unsynced_bytes += bytes;
        self.unsynced_since.get_or_insert_with(Instant::now);
        self.parts.clear();
        self.parts_at = self.offset;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let started = Instant::now();
        self.segment
            .file
            .sync_data()
            .map_err(StorageError::io("sync", &self.segment.path))?;
        self.core.metrics.sync.record(started.elapsed());
        self.durable = self.position();
        self.unsynced_since = None;
        self.unsynced_bytes = 0;
        Ok(())
    }

    fn sync_if_needed(&mut self) -> Result<()> {
        if self.unsynced_since.is_some() {
            self.sync()?;
            self.mark_durable();
        }
        Ok(())
    }

    /// Lets the tail know where its entries are. Under `SyncPolicy::Interval` this waits for the
    /// sync, since the tail must keep what is not durable.
    fn mark_durable(&mut self) {
        if self.unsynced_since.is_some() {
            return;
        }
        let mut state = self.core.state.lock();
        for stored in self.stored.drain(..) {
            state
                .tail
                .durable(stored.group, stored.index, stored.id, stored.record);
        }
        state.tail.evict();
    }

    /// Hands what is durable to the index.
    fn publish(&mut self) {
        if self.unsynced_since.is_none() && !self.logged.is_empty() {
            self.core.index_queue.push(std::mem::take(&mut self.logged));
        }
    }
}
