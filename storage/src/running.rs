//! Starting and ending the threads of a log.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::config::LogConfig;
use crate::core::{Closing, Core};
use crate::disk::Disk;
use crate::error::{Result, StorageError};
use crate::recovery::{self, RecoveryReport};
use crate::{index_thread, writer};

/// A running core and its threads.
pub(crate) struct Running {
    pub core: Arc<Core>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(
        config: LogConfig,
        disk: Arc<dyn Disk>,
    ) -> Result<(Running, RecoveryReport)> {
        let recovered = recovery::recover(&config, disk.as_ref())?;
        let report = recovered.report.clone();
        let round = recovered.applier.reached().round + 1;
        let before = recovered.end;
        let first = recovered.first_segment;
        let core = Arc::new(Core::new(recovered, config, disk));
        let mut running = Running {
            core: core.clone(),
            threads: Vec::new(),
        };
        let groups = core.applier.lock().groups().clone();
        let segment = core.preparer.take(first)?;
        let writer = writer::Writer::begin(core.clone(), segment, groups, before, round)?;
        // Those who wait for the writer are answered as what they asked for is dropped.
        running.spawn("log-writer", |_| {}, move || writer.run())?;
        let for_index = core.clone();
        running.spawn(
            "log-index",
            |core| core.index_queue.fail(),
            move || index_thread::run(&for_index),
        )?;
        running.spawn(
            "log-preparer",
            |core| core.preparer.fail(),
            move || core.preparer.run(),
        )?;
        Ok((running, report))
    }

    fn spawn(
        &mut self,
        name: &'static str,
        panicked: fn(&Core),
        body: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let core = self.core.clone();
        let body = move || {
            let watch = PanicWatch {
                core,
                name,
                panicked,
            };
            body();
            drop(watch);
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(StorageError::io(
                "start a thread for",
                &self.core.config.dir,
            ))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Ends the threads. With `drain` everything queued is written and the index made durable
    /// first; without, it is as if the process had been killed.
    pub(crate) fn end(&mut self, drain: bool) -> Result<()> {
        let core = &self.core;
        core.close(if drain {
            Closing::Drain
        } else {
            Closing::Abandon
        });
        let mut outcome = Ok(());
        if !drain {
            core.index_queue.close(true);
        }
        let mut threads = self.threads.drain(..);
        let mut join = |thread: Option<JoinHandle<()>>| {
            // The last handle may be dropped by a completion, on the writer thread itself.
            if let Some(thread) = thread
                && thread.thread().id() != thread::current().id()
                && thread.join().is_err()
            {
                outcome = Err(StorageError::Failed {
                    reason: "a thread of the log panicked".to_owned(),
                });
            }
        };
        join(threads.next());
        core.index_queue.close(!drain);
        join(threads.next());
        core.preparer.close();
        join(threads.next());
        drop(threads);
        core.refuse_queue(&Arc::new(StorageError::Closed));
        // What was applied half way is applied again at the next start, from where the index ends on disk.
        if drain && outcome.is_ok() && !core.index_queue.has_failed() {
            core.applier.lock().write()?;
            core.index.flush()?;
        }
        outcome
    }
}

/// Stops the log when one of its threads panics: what that thread did for others is not done any more.
struct PanicWatch {
    core: Arc<Core>,
    name: &'static str,
    /// Lets those go who wait for that thread. The others go on: what they were given is done.
    panicked: fn(&Core),
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.panicked)(&self.core);
            self.core.stop(Arc::new(StorageError::Failed {
                reason: format!("its thread {} panicked", self.name),
            }));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.threads.is_empty()
            && let Err(error) = self.end(false)
        {
            tracing::error!(%error, "the log did not end well");
        }
    }
}
