//! Snapshots: the last durable checkpoint of a group, as something to hand to another node.
//!
//! A checkpoint is on disk anyway, so that building a snapshot costs nothing: what Raft gets is a handle.
//! Only when it is to be transferred is the checkpoint frozen, its segments pinned, and its records and
//! live messages read, chunk by chunk, in bounded memory. The receiver stages the chunks, checks them,
//! and hands Raft what is staged, to be taken over at once.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use flotilla_model::ids::LogIndex;
use flotilla_model::key::Key;
use flotilla_model::query;
use flotilla_model::record::Record;
use flotilla_model::records::{Lookup, Records};
use flotilla_storage::{
    LiveRange, LiveSlots, NodeLog, SnapshotExport, SnapshotImport, SnapshotManifest, StorageError,
};
use openraft::RaftSnapshotBuilder;

use crate::blocking::blocking;
use crate::checkpoint::checkpoint;
use crate::codec;
use crate::error::{ClusterError, chain};
use crate::replica::{AppliedMark, Replica};
use crate::types::{Groups, Snapshot, SnapshotMeta};

/// What Raft holds of a snapshot.
pub(crate) enum SnapshotHandle {
    /// The last checkpoint of a replica in this process.
    Checkpoint(Arc<Replica>),
    /// What came from another node, complete and checked.
    Staged(Box<SnapshotImport>),
}

impl SnapshotHandle {
    /// The last durable checkpoint, if there is one.
    pub fn current(replica: &Arc<Replica>) -> Option<Snapshot<SnapshotHandle>> {
        let mark = replica.durable.borrow().clone();
        mark.log_id.is_some().then(|| snapshot(replica, mark))
    }

    /// Makes this snapshot the state of a replica of the group, for the Raft of an epoch, which it then is of.
    pub async fn install(
        self,
        replica: &Arc<Replica>,
        meta: &SnapshotMeta,
        epoch: &mut u64,
    ) -> Result<(), ClusterError> {
        let import = match self {
            Self::Staged(import) => *import,
            Self::Checkpoint(_) => {
                let export = self.freeze_as(meta).await?;
                let log = replica.log.clone();
                blocking("installing a snapshot", move || stage(&export, &log)).await?
            }
        };
        // In this order everywhere: no checkpoint, then no entry.
        let mut unfinished = replica.checkpointing.lock().await;
        let _between_entries = replica.entry_gate.lock().await;
        replica.check_epoch(*epoch)?;
        let was_recovered = replica.is_recovered();
        blocking("installing a snapshot", move || Ok(import.install()?)).await?;
        *unfinished = None;
        replica.reset()?;
        // Before anyone else can take the state back.
        *epoch = replica.epoch();
        if was_recovered {
            replica.set_recovered();
        }
        replica.find_next_due().await
    }

    /// A frozen view of the checkpoint that `meta` is about. Fails if there is a newer one by now.
    pub async fn freeze_as(&self, meta: &SnapshotMeta) -> Result<SnapshotExport, ClusterError> {
        let unavailable = |reason: &str| ClusterError::Unavailable {
            reason: reason.to_owned(),
        };
        let Self::Checkpoint(source) = self else {
            return Err(unavailable("what is staged here is not sent on"));
        };
        // No checkpoint in between, so that the mark is the one of the view.
        let _no_checkpoint = source.checkpointing.lock().await;
        let mark = source.durable.borrow().clone();
        if mark.log_id != meta.last_log_id || mark.membership != meta.last_membership {
            return Err(unavailable(
                "the snapshot was followed by a newer one: ask for that",
            ));
        }
        let Some(log_id) = mark.log_id else {
            return Err(unavailable("the group has no checkpoint"));
        };
        let upto = codec::log_point(&log_id);
        let (log, group) = (source.log.clone(), source.group);
        // It waits for what other groups are writing.
        blocking("freezing a snapshot", move || {
            Ok(log.export_snapshot(group, upto)?)
        })
        .await
    }
}

fn snapshot(replica: &Arc<Replica>, mark: AppliedMark) -> Snapshot<SnapshotHandle> {
    Snapshot {
        meta: SnapshotMeta {
            last_log_id: mark.log_id,
            last_membership: mark.membership,
        },
        snapshot: SnapshotHandle::Checkpoint(replica.clone()),
    }
}

/// Sends a snapshot from one log to another.
fn stage(export: &SnapshotExport, log: &NodeLog) -> Result<SnapshotImport, ClusterError> {
    // What goes over a link in between.
    let manifest = SnapshotManifest::decode(&export.manifest().encode())?;
    let upto = manifest.upto.index;
    let mut import = log.import_snapshot(manifest)?;
    for chunk in export.chunks(live_ranges(export, upto)) {
        import.chunk(&chunk?)?;
    }
    Ok(import)
}

/// What a frozen checkpoint refers to, in the order of the log.
pub(crate) fn live_ranges(
    export: &SnapshotExport,
    upto: u64,
) -> impl Iterator<Item = Result<LiveRange, StorageError>> + '_ {
    let pages = LivePages::new(export);
    (0..=upto).filter_map(move |index| match pages.runs(index) {
        Ok(slots) => slots.map(|slots| Ok(LiveRange { index, slots })),
        Err(error) => Some(Err(error)),
    })
}

type RecordStream<'a> = Box<dyn Iterator<Item = Result<(Key, Arc<Record>), StorageError>> + 'a>;

/// The records that say what is live, read along in their order while the log is walked: neither a
/// search per entry nor all of them in memory.
struct LivePages<'a> {
    stream: RefCell<RecordStream<'a>>,
    present: RefCell<Option<(Key, Arc<Record>)>>,
    error: RefCell<Option<StorageError>>,
}

impl<'a> LivePages<'a> {
    fn new(export: &'a SnapshotExport) -> Self {
        let stream = export
            .records()
            .filter_map(|record| live_page(record).transpose());
        let pages = Self {
            stream: RefCell::new(Box::new(stream)),
            present: RefCell::new(None),
            error: RefCell::new(None),
        };
        pages.step();
        pages
    }

    fn step(&self) {
        let next = self.stream.borrow_mut().next();
        let present = match next {
            Some(Ok(page)) => Some(page),
            Some(Err(error)) => {
                self.error.replace(Some(error));
                None
            }
            None => None,
        };
        self.present.replace(present);
    }

    fn runs(&self, index: u64) -> Result<Option<LiveSlots>, StorageError> {
        let runs = query::live_runs(self, LogIndex(index));
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let runs = runs.map_err(|_| StorageError::Snapshot {
            what: "what is live could not be told",
        })?;
        let ranges: Vec<_> = runs
            .iter()
            .map(|run| run.first..run.first.saturating_add(run.count))
            .collect();
        Ok((!ranges.is_empty()).then_some(LiveSlots::Some(ranges)))
    }
}

impl Records for LivePages<'_> {
    fn get(&self, key: &Key) -> Lookup {
        loop {
            match &*self.present.borrow() {
                Some((present, record)) if present == key => return Lookup::Found(record.clone()),
                Some((present, _)) if present < key => {}
                _ => return Lookup::Absent,
            }
            self.step();
        }
    }
}

/// `None` for a record that says nothing of liveness.
fn live_page(
    record: Result<(Vec<u8>, bytes::Bytes), StorageError>,
) -> Result<Option<(Key, Arc<Record>)>, StorageError> {
    let malformed = || StorageError::InvalidRecord {
        what: "state record of the model",
    };
    let (key, value) = record?;
    let key = Key::decode(&key).map_err(|_| malformed())?;
    if !matches!(key, Key::Live(_)) {
        return Ok(None);
    }
    let record = Record::decode(&key, &value).map_err(|_| malformed())?;
    Ok(Some((key, Arc::new(record))))
}

/// Gives Raft a snapshot that covers a recent state.
pub(crate) struct SnapshotBuilder {
    replica: Arc<Replica>,
    /// Everything applied so far must be in it.
    force: bool,
}

impl SnapshotBuilder {
    pub fn new(replica: Arc<Replica>, force: bool) -> Self {
        Self { replica, force }
    }
}

impl RaftSnapshotBuilder<Groups> for SnapshotBuilder {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> Result<Snapshot<SnapshotHandle>, io::Error> {
        if !self.force
            && let Some(current) = SnapshotHandle::current(&self.replica)
        {
            return Ok(current);
        }
        let mark = checkpoint(&self.replica)
            .await
            .map_err(|error| io::Error::other(chain(&error)))?;
        Ok(snapshot(&self.replica, mark))
    }
}
