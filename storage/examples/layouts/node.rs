//! The node log, which keeps all it wrote or drops what is old.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use flotilla_storage::{
    CheckpointBatch, EntryBody, GroupId, LogConfig, LogEntry, NodeLog, PurgePoint, RealDisk,
    Released,
};

use super::{AnyError, Layout, SEGMENT_BYTES, SLOTS};

const GROUP: GroupId = GroupId(1);

/// Takes the number of the last entry that is no longer needed, and drops old segments.
struct Dropper {
    last: Sender<u64>,
    thread: JoinHandle<Result<(), String>>,
}

pub struct Node {
    log: NodeLog,
    next: u64,
    unreported_bytes: u64,
    dropper: Option<Dropper>,
}

impl Node {
    /// With `drop_of`, whose size all batches have, old segments are dropped.
    pub fn new(dir: PathBuf, drop_of: Option<&[Bytes]>) -> Result<Node, AnyError> {
        let (log, _) = NodeLog::open(LogConfig::new(dir), Arc::new(RealDisk))?;
        let dropper = drop_of.map(|batch| {
            let (last, lasts) = channel();
            let log = log.clone();
            let bytes = batch.iter().map(|part| part.len() as u64).sum();
            let thread = std::thread::spawn(move || {
                let mut first = 1;
                for last in lasts {
                    drop_entries(&log, first, last, bytes).map_err(|error| error.to_string())?;
                    first = last + 1;
                }
                Ok(())
            });
            Dropper { last, thread }
        });
        Ok(Node {
            log,
            next: 1,
            unreported_bytes: 0,
            dropper,
        })
    }
}

/// What a checkpoint does when entries are no longer needed.
fn drop_entries(log: &NodeLog, first: u64, last: u64, bytes: u64) -> Result<(), AnyError> {
    let (sender, receiver) = channel();
    let upto = PurgePoint {
        index: last,
        term: 1,
        leader: 1,
    };
    let done = Box::new(move |outcome| {
        // The receiver waits below.
        let _ = sender.send(outcome);
    });
    log.purge(GROUP, upto, done);
    receiver.recv()??;
    let released = (first..=last).map(|index| Released {
        index,
        slots: 0..SLOTS as u32,
        bytes,
    });
    let batch = CheckpointBatch {
        released: released.collect(),
        ..CheckpointBatch::default()
    };
    log.checkpoints().commit(GROUP, batch)?;
    log.drop_dead_segments()?;
    Ok(())
}

impl Layout for Node {
    fn name(&self) -> &'static str {
        match self.dropper {
            None => "node log, all kept",
            Some(_) => "node log, old ones dropped",
        }
    }

    fn write(&mut self, batch: &[Bytes]) -> Result<(), AnyError> {
        let body = EntryBody::builder().slots(batch.iter().cloned()).build()?;
        self.unreported_bytes += body.len() as u64;
        let entry = LogEntry {
            index: self.next,
            term: 1,
            leader: 1,
            kind: 0,
            body,
        };
        let (sender, receiver) = channel();
        let done = Box::new(move |outcome| {
            // The receiver waits below.
            let _ = sender.send(outcome);
        });
        self.log.append(GROUP, vec![entry], done);
        receiver.recv()??;
        if self.unreported_bytes >= SEGMENT_BYTES {
            self.unreported_bytes = 0;
            if let Some(dropper) = &self.dropper {
                dropper.last.send(self.next)?;
            }
        }
        self.next += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), AnyError> {
        if let Some(dropper) = self.dropper.take() {
            drop(dropper.last);
            let outcome = dropper.thread.join();
            outcome.map_err(|_| "the dropping thread panicked")??;
        }
        Ok(())
    }
}
