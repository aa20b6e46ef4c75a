//! The newest entries of every group in memory.
//!
//! An entry is readable as soon as it was handed over, before it is durable; it stays here until it
//! is durable *and* the index knows it. Bodies are kept beyond that, oldest out first, within a
//! budget of bytes; bodies that are not durable yet are never dropped.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use crate::group::{GroupMeta, GroupTable};
use crate::records::IndexRecord;
use crate::{EntryBody, GroupId, LogEntry, LogPoint};

/// What the tail has of an entry.
pub(crate) enum Found {
    Entry(LogEntry),
    /// The body left memory; the index may not know the place yet.
    Stored(IndexRecord),
}

#[derive(Default)]
struct GroupTail {
    meta: GroupMeta,
    entries: BTreeMap<u64, TailEntry>,
}

struct TailEntry {
    id: u64,
    point: LogPoint,
    kind: u8,
    body: Option<EntryBody>,
    /// Set when the entry is durable.
    record: Option<IndexRecord>,
    indexed: bool,
}

struct Cached {
    group: GroupId,
    index: u64,
    id: u64,
}

pub(crate) struct Tail {
    groups: HashMap<GroupId, GroupTail>,
    /// Entries with a body, in the order they came.
    order: VecDeque<Cached>,
    cached_bytes: usize,
    budget_bytes: usize,
    next_id: u64,
}

impl Tail {
    pub(crate) fn new(budget_bytes: usize, groups: &GroupTable) -> Tail {
        let groups = groups
            .iter()
            .map(|(group, meta)| {
                let tail = GroupTail {
                    meta: meta.clone(),
                    entries: BTreeMap::new(),
                };
                (group, tail)
            })
            .collect();
        Tail {
            groups,
            order: VecDeque::new(),
            cached_bytes: 0,
            budget_bytes,
            next_id: 0,
        }
    }

    pub(crate) fn meta(&self, group: GroupId) -> Option<&GroupMeta> {
        self.groups.get(&group).map(|tail| &tail.meta)
    }

    pub(crate) fn meta_mut(&mut self, group: GroupId) -> &mut GroupMeta {
        &mut self.groups.entry(group).or_default().meta
    }

    pub(crate) fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// Takes entries that follow the group's last one. Returns the id of the first; the others'
    /// follow it. Ids tell an entry from a later one at the same index.
    pub(crate) fn append(&mut self, group: GroupId, entries: &[LogEntry]) -> u64 {
        let first_id = self.next_id;
        let tail = self.groups.entry(group).or_default();
        for entry in entries {
            let id = self.next_id;
            self.next_id += 1;
            self.cached_bytes += entry.body.len();
            self.order.push_back(Cached {
                group,
                index: entry.index,
                id,
            });
            tail.meta.last = Some(entry.point());
            tail.entries.insert(
                entry.index,
                TailEntry {
                    id,
                    point: entry.point(),
                    kind: entry.kind,
                    body: Some(entry.body.clone()),
                    record: None,
                    indexed: false,
                },
            );
        }
        self.evict();
        first_id
    }

    pub(crate) fn truncate(&mut self, group: GroupId, last_kept: Option<LogPoint>) {
        let tail = self.groups.entry(group).or_default();
        tail.meta.last = last_kept.or(tail.meta.purged);
        let first_dropped = last_kept.map_or(0, |kept| kept.index.saturating_add(1));
        for (_, entry) in tail.entries.split_off(&first_dropped) {
            self.cached_bytes -= entry.body.map_or(0, |body| body.len());
        }
    }

    pub(crate) fn durable(&mut self, group: GroupId, index: u64, id: u64, record: IndexRecord) {
        if let Some(entry) = self.entry_mut(group, index)
            && entry.id == id
        {
            entry.record = Some(record);
        }
    }

    /// The index has the entry now; the tail is no longer needed to find it.
    pub(crate) fn indexed(&mut self, group: GroupId, index: u64, record_at: (u32, u32)) {
        let Some(tail) = self.groups.get_mut(&group) else {
            return;
        };
        if let Some(entry) = tail.entries.get_mut(&index)
            && let Some(record) = entry.record
            && (record.segment.id.0, record.offset) == record_at
        {
            entry.indexed = true;
            if entry.body.is_none() {
                tail.entries.remove(&index);
            }
        }
    }

    fn entry_mut(&mut self, group: GroupId, index: u64) -> Option<&mut TailEntry> {
        self.groups.get_mut(&group)?.entries.get_mut(&index)
    }

    /// Drops the oldest durable bodies that are over the budget.
    pub(crate) fn evict(&mut self) {
        while self.cached_bytes > self.budget_bytes {
            let Some(oldest) = self.order.front() else {
                break;
            };
            let (group, index, id) = (oldest.group, oldest.index, oldest.id);
            if let Some(tail) = self.groups.get_mut(&group)
                && let Some(entry) = tail.entries.get_mut(&index)
                && entry.id == id
            {
                if entry.record.is_none() {
                    break;
                }
                self.cached_bytes -= entry.body.take().map_or(0, |body| body.len());
                if entry.indexed {
                    tail.entries.remove(&index);
                }
            }
            self.order.pop_front();
        }
        // Truncated entries leave stale places behind the front; they go when they reach it.
    }

    pub(crate) fn find(&self, group: GroupId, index: u64) -> Option<Found> {
        let entry = self.groups.get(&group)?.entries.get(&index)?;
        match (&entry.body, entry.record) {
            (Some(body), _) => Some(Found::Entry(LogEntry {
                index,
                term: entry.point.term,
                leader: entry.point.leader,
                kind: entry.kind,
                body: body.clone(),
            })),
            (None, record) => record.map(Found::Stored),
        }
    }

    /// The first index at or above `index` that the tail has something of.
    pub(crate) fn next_present(&self, group: GroupId, index: u64) -> Option<u64> {
        self.groups
            .get(&group)?
            .entries
            .range((Bound::Included(index), Bound::Unbounded))
            .next()
            .map(|(index, _)| *index)
    }

    pub(crate) fn point(&self, group: GroupId, index: u64) -> Option<LogPoint> {
        Some(self.groups.get(&group)?.entries.get(&index)?.point)
    }
}
