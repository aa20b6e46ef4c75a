//! Snapshots that are being installed: their payload is in the log, and no durable state refers to it yet.
//!
//! Until one does, nothing but a mark in memory tells it from what a failed attempt left behind. A restart
//! forgets the marks, and with them the attempts.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::GroupId;
use crate::core::Core;

/// The imports whose payload is kept although it is not their group's yet.
#[derive(Default)]
pub(crate) struct Installing(Mutex<BTreeSet<(GroupId, u32)>>);

impl Installing {
    pub(crate) fn contains(&self, group: GroupId, import: u32) -> bool {
        self.0.lock().contains(&(group, import))
    }
}

/// Has the payload of an import kept as long as it lives.
pub(crate) struct InstallMark<'a> {
    core: &'a Core,
    group: GroupId,
    pub import: u32,
}

impl Core {
    /// To be called before anything of the import is written: a segment may be sealed and rewritten as
    /// soon as it holds a frame.
    pub(crate) fn mark_installing(&self, group: GroupId, import: u32) -> InstallMark<'_> {
        self.installing.0.lock().insert((group, import));
        InstallMark {
            core: self,
            group,
            import,
        }
    }
}

impl Drop for InstallMark<'_> {
    fn drop(&mut self) {
        // Of a log that stopped, only a restart can tell whether the state on the disk refers to it.
        if !self.core.is_stopped() {
            let installing = &self.core.installing;
            installing.0.lock().remove(&(self.group, self.import));
        }
    }
}
