//! Makes the next segment file ahead of need, on a thread of its own: creating a file and syncing
//! its directory must not hold up a round. It also trims the segment that was just sealed.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::SegmentId;
use crate::disk::Disk;
use crate::error::{Result, StorageError};
use crate::segment::{SegmentFile, SegmentKey};

/// Creates an empty segment with its space reserved and its name durable.
pub(crate) fn create_segment(
    disk: &dyn Disk,
    dir: &std::path::Path,
    key: SegmentKey,
    bytes: u64,
) -> Result<Arc<SegmentFile>> {
    let path = key.path(dir);
    let file = disk
        .create(&path)
        .map_err(StorageError::io("create", &path))?;
    let segment = Arc::new(SegmentFile {
        key,
        path: path.clone(),
        file,
    });
    let prepared = segment
        .file
        .allocate(bytes)
        .map_err(StorageError::io("reserve space for", &path))
        .and_then(|()| {
            segment
                .file
                .sync_data()
                .map_err(StorageError::io("sync", &path))
        })
        .and_then(|()| disk.sync_dir(dir).map_err(StorageError::io("sync", dir)));
    if let Err(error) = prepared {
        // Space that was half reserved is what others wait for. A file that stays behind is found
        // empty and removed at the next start.
        if let Err(error) = disk.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "failed to remove an unfinished segment");
        }
        return Err(error);
    }
    Ok(segment)
}

#[derive(Default)]
struct State {
    wanted: Option<SegmentId>,
    ready: Option<Arc<SegmentFile>>,
    sealed: Vec<(Arc<SegmentFile>, u64)>,
    busy: bool,
    closed: bool,
}

pub(crate) struct Preparer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Preparer {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, segment_bytes: u64) -> Preparer {
        Preparer {
            disk,
            dir,
            segment_bytes,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Asks for a segment to be made ready.
    pub(crate) fn want(&self, id: SegmentId) {
        self.state.lock().wanted = Some(id);
        self.changed.notify_all();
    }

    /// Hands a sealed segment over: the space behind `end` is given back.
    pub(crate) fn trim(&self, segment: Arc<SegmentFile>, end: u64) {
        self.state.lock().sealed.push((segment, end));
        self.changed.notify_all();
    }

    /// The segment asked for. When it could not be made ahead of need it is tried again here, so
    /// that the error, if it lasts, reaches the round that needs it.
    pub(crate) fn take(&self, id: SegmentId) -> Result<Arc<SegmentFile>> {
        let mut state = self.state.lock();
        while state.busy {
            self.changed.wait(&mut state);
        }
        state.wanted = None;
        if let Some(ready) = state.ready.take()
            && ready.key.id == id
        {
            return Ok(ready);
        }
        drop(state);
        let key = SegmentKey { id, generation: 0 };
        create_segment(self.disk.as_ref(), &self.dir, key, self.segment_bytes)
    }

    /// The thread is gone: whoever needs a segment makes it.
    pub(crate) fn fail(&self) {
        self.state.lock().busy = false;
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Body of the thread.
    pub(crate) fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                break;
            }
            let wanted = state.wanted.take();
            let sealed = state.sealed.pop();
            if wanted.is_none() && sealed.is_none() {
                self.changed.wait(&mut state);
                continue;
            }
            state.busy = wanted.is_some();
            drop(state);
            let made = wanted.map(|id| {
                let key = SegmentKey { id, generation: 0 };
                create_segment(self.disk.as_ref(), &self.dir, key, self.segment_bytes)
            });
            state = self.state.lock();
            state.busy = false;
            match made {
                Some(Ok(segment)) => state.ready = Some(segment),
                Some(Err(error)) => {
                    tracing::warn!(%error, "failed to make the next segment ahead of need");
                }
                None => {}
            }
            self.changed.notify_all();
            if let Some((segment, end)) = sealed {
                drop(state);
                // Only unused space is at stake: the segment's end is recorded elsewhere.
                if let Err(error) = segment.file.set_len(end) {
                    tracing::warn!(segment = %segment.key.id, %error, "failed to trim a sealed segment");
                }
                state = self.state.lock();
            }
        }
        // A segment that was never begun would be found empty at the next start: take it away now.
        if let Some(unused) = state.ready.take()
            && let Err(error) = self.disk.remove(&unused.path)
        {
            tracing::warn!(path = %unused.path.display(), %error, "failed to remove an unused segment");
        }
    }
}
