//! Position tables of entries read lately.

use std::collections::{HashMap, VecDeque};

use crate::body::SharedTable;
use crate::segment::SegmentKey;

const TABLE_CACHE_BYTES: usize = 8 << 20;

/// Tables of entries read lately, by their place, which no other entry ever has: a consumer that reads an entry bit by bit fetches it once.
#[derive(Default)]
pub(crate) struct TableCache {
    tables: HashMap<(SegmentKey, u32), SharedTable>,
    order: VecDeque<(SegmentKey, u32)>,
    bytes: usize,
}

impl TableCache {
    pub(crate) fn get(&self, key: &(SegmentKey, u32)) -> Option<SharedTable> {
        self.tables.get(key).cloned()
    }

    pub(crate) fn insert(&mut self, key: (SegmentKey, u32), table: SharedTable) {
        self.bytes += table.memory_bytes();
        if let Some(old) = self.tables.insert(key, table) {
            self.bytes -= old.memory_bytes();
        } else {
            self.order.push_back(key);
        }
        while self.bytes > TABLE_CACHE_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(old) = self.tables.remove(&oldest) {
                self.bytes -= old.memory_bytes();
            }
        }
    }
}
