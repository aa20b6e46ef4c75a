//! Brings what became durable into the index, behind the writer and off its thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::applier::{LogOp, LoggedOp};
use crate::core::Core;
use crate::error::{Result, StorageError};
use crate::records::Space;

/// Frames that may wait; the writer stands still above that, which bounds memory.
const BACKLOG_MAX: usize = 65_536;
/// Frames taken at once.
const BATCH_MAX: usize = 4_096;
/// How long frames gather before they are written together.
const GATHER: Duration = Duration::from_millis(20);
/// How often the index is made durable; a restart scans the log written since.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    waiting: VecDeque<LoggedOp>,
    /// Frames ever queued, and ever applied: a barrier waits until the second reaches the first.
    queued: u64,
    applied: u64,
    hurry: bool,
    closed: bool,
    /// Do not even finish what waits.
    abandoned: bool,
    failed: bool,
}

#[derive(Default)]
pub(crate) struct IndexQueue {
    state: Mutex<State>,
    changed: Condvar,
}

impl IndexQueue {
    /// Waits while the backlog is at its bound.
    pub(crate) fn wait_for_room(&self) {
        let mut state = self.state.lock();
        while state.waiting.len() >= BACKLOG_MAX
            && !(state.closed || state.failed || state.abandoned)
        {
            state.hurry = true;
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
    }

    pub(crate) fn push(&self, frames: Vec<LoggedOp>) {
        let mut state = self.state.lock();
        if state.failed {
            // Without those before them they would be in the index as if those had never been.
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.queued += frames.len() as u64;
        state.waiting.extend(frames);
        // The thread sleeps without a limit only when nothing waits.
        if was_empty || state.waiting.len() >= BATCH_MAX {
            self.changed.notify_all();
        }
    }

    pub(crate) fn backlog(&self) -> u64 {
        self.state.lock().waiting.len() as u64
    }

    /// Returns when all that was queued before is in the index.
    pub(crate) fn barrier(&self) -> Result<()> {
        let mut state = self.state.lock();
        let target = state.queued;
        while state.applied < target {
            if state.failed || state.abandoned {
                return Err(StorageError::Failed {
                    reason: "the index could not be written".to_owned(),
                });
            }
            state.hurry = true;
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
        Ok(())
    }

    pub(crate) fn close(&self, abandon: bool) {
        let mut state = self.state.lock();
        state.closed = true;
        state.abandoned |= abandon;
        self.changed.notify_all();
    }

    /// The next frames; `None` at the end.
    fn next(&self, flush_due: Option<Instant>) -> Next {
        let mut state = self.state.lock();
        loop {
            if state.abandoned || state.failed || (state.closed && state.waiting.is_empty()) {
                return Next::End;
            }
            if !state.waiting.is_empty() {
                let gather_until = Instant::now() + GATHER;
                while !state.hurry
                    && !state.closed
                    && state.waiting.len() < BATCH_MAX
                    && !self
                        .changed
                        .wait_until(&mut state, gather_until)
                        .timed_out()
                {}
                state.hurry = false;
                if state.abandoned {
                    return Next::End;
                }
                let count = state.waiting.len().min(BATCH_MAX);
                return Next::Frames(state.waiting.drain(..count).collect());
            }
            match flush_due {
                Some(due) => {
                    if self.changed.wait_until(&mut state, due).timed_out() {
                        return Next::FlushDue;
                    }
                }
                None => self.changed.wait(&mut state),
            }
        }
    }

    fn finished(&self, frames: u64) {
        self.state.lock().applied += frames;
        self.changed.notify_all();
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.state.lock().failed
    }

    /// Nothing is brought into the index any more, and nobody waits for it. Only of the thread itself: frames
    /// that it has taken are in nobody's hands then.
    pub(crate) fn fail(&self) {
        let mut state = self.state.lock();
        state.failed = true;
        state.waiting.clear();
        self.changed.notify_all();
    }
}

enum Next {
    Frames(Vec<LoggedOp>),
    FlushDue,
    End,
}

/// Body of the thread. A failure here stops the log: without an index behind it, memory would grow.
pub(crate) fn run(core: &Arc<Core>) {
    let mut flush_due = None;
    loop {
        let outcome = match core.index_queue.next(flush_due) {
            Next::Frames(frames) => {
                let outcome = apply(core, &frames);
                if outcome.is_ok() {
                    core.index_queue.finished(frames.len() as u64);
                    flush_due.get_or_insert_with(|| Instant::now() + FLUSH_EVERY);
                }
                outcome
            }
            Next::FlushDue => Ok(()),
            Next::End => return,
        };
        let flushed = outcome.and_then(|()| {
            if flush_due.is_some_and(|due| due <= Instant::now()) {
                flush_due = None;
                return core.index.flush();
            }
            Ok(())
        });
        if let Err(error) = flushed {
            core.index_queue.fail();
            core.stop(Arc::new(error));
            return;
        }
    }
}

fn apply(core: &Core, frames: &[LoggedOp]) -> Result<()> {
    let mut applier = core.applier.lock();
    for frame in frames {
        applier.apply(frame)?;
    }
    applier.write()?;
    drop(applier);
    let mut state = core.state.lock();
    for frame in frames {
        if let LogOp::Entry {
            group,
            space: Space::Log,
            point,
            ..
        } = &frame.op
        {
            let place = (frame.at.segment.0, frame.at.offset);
            state.tail.indexed(*group, point.index, place);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Position;

    #[test]
    fn after_a_failure_nothing_is_taken_and_nobody_waits() {
        let mark = || LoggedOp {
            at: Position::default(),
            generation: 0,
            op: LogOp::Mark,
            next: Position::default(),
            round: 1,
        };
        let marks = || std::iter::repeat_with(mark).take(BACKLOG_MAX).collect();
        let queue = IndexQueue::default();
        queue.push(marks());
        assert_eq!(queue.backlog(), BACKLOG_MAX as u64);
        queue.fail();
        assert!(queue.has_failed());
        queue.push(marks());
        assert_eq!(queue.backlog(), 0);
        queue.wait_for_room();
        assert!(matches!(queue.next(None), Next::End));
        assert!(queue.barrier().is_err());
    }
}
