//! The byte string that is an entry: the same in memory, on disk and on the wire.
//!
//! ```text
//!  0        1      2         4         8           12        16         20
//!  +--------+------+---------+---------+-----------+---------+----------+
//!  | version| flags| zero    | head len| slot count| head crc| table crc|
//!  +--------+------+---------+---------+-----------+---------+----------+
//!  | table: per slot, end offset in the payload area (u32), CRC-32C (u32)|
//!  | presence bits, one per slot: only if the sparse flag is set         |
//!  | head                                                                |
//!  | payload area: the slots, one after another                          |
//!  +---------------------------------------------------------------------+
//! ```
//!
//! Numbers are little-endian. The table CRC covers the first 16 bytes, the table and the presence
//! bits; the table holds the slots' CRCs and the first 16 bytes the head's, so this one number
//! vouches for the whole entry. A reader of one slot fetches the table and that slot, nothing else.
//!
//! A sparse body is what compaction leaves: a slot that was released has no bytes and its presence
//! bit is clear; every other slot keeps its number.

mod builder;
mod table;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Result, StorageError};

pub use builder::EntryBodyBuilder;
pub(crate) use table::{Layout, SharedTable, SlotTable};

use builder::Assembler;

const VERSION: u8 = 1;
const FLAG_SPARSE: u8 = 1;
pub(crate) const FIXED_BYTES: usize = 20;
const SLOT_BYTES: usize = 8;
const TABLE_CRC_AT: usize = 16;

/// An entry's bytes, checked once when they are parsed. Cloning shares them.
///
/// It is one byte string, kept in one or more parts: a long slot stays where its producer made it
/// and is never copied. Each slot lies in one part.
#[derive(Clone)]
pub struct EntryBody {
    layout: Layout,
    /// Fixed part, table, presence bits, head, and the payload up to the next part.
    first: Bytes,
    rest: Option<Arc<[Part]>>,
}

struct Part {
    /// Its place, counted from the start of the body.
    start: usize,
    bytes: Bytes,
}

impl EntryBody {
    pub fn builder() -> EntryBodyBuilder {
        EntryBodyBuilder::default()
    }

    /// Takes bytes from disk or from a peer. Layout, bounds, table and head are checked here; a
    /// slot's own CRC is checked when it is read.
    pub fn parse(bytes: Bytes) -> Result<EntryBody> {
        let table = SlotTable::parse(&bytes)?;
        let layout = *table.layout();
        if bytes.len() != table.body_bytes() {
            return Err(invalid("length differs from its table"));
        }
        table.check_head(&bytes[layout.table_end()..layout.payload_start()])?;
        Ok(EntryBody {
            layout,
            first: bytes,
            rest: None,
        })
    }

    /// `rest` follows `first` without a gap, and no slot lies in two of them.
    fn from_parts(layout: Layout, first: Bytes, rest: Vec<Bytes>) -> EntryBody {
        let mut start = first.len();
        let rest: Arc<[Part]> = rest
            .into_iter()
            .map(|bytes| {
                let part = Part { start, bytes };
                start += part.bytes.len();
                part
            })
            .collect();
        EntryBody {
            layout,
            first,
            rest: (!rest.is_empty()).then_some(rest),
        }
    }

    pub(crate) fn table(&self) -> SlotTable {
        SlotTable {
            layout: self.layout,
            bytes: self.first.slice(..self.layout.table_end()),
        }
    }

    pub(crate) fn table_crc(&self) -> u32 {
        self.layout.table_crc
    }

    /// Checks every stored slot.
    pub fn verify(&self) -> Result<()> {
        let table = self.table();
        for slot in 0..self.layout.slot_count {
            if table.is_present(slot) {
                table.check_slot(slot, &self.slice(table.range_of(slot)))?;
            }
        }
        Ok(())
    }

    pub fn head(&self) -> Bytes {
        self.first
            .slice(self.layout.table_end()..self.layout.payload_start())
    }

    pub fn slot_count(&self) -> u32 {
        self.layout.slot_count
    }

    /// False for a slot that compaction has removed.
    pub fn has_slot(&self, slot: u32) -> bool {
        slot < self.layout.slot_count && self.table().is_present(slot)
    }

    pub fn slot(&self, slot: u32) -> Result<Bytes> {
        let table = self.table();
        if slot >= self.layout.slot_count {
            return Err(StorageError::NoSuchSlot {
                slot,
                count: self.layout.slot_count,
            });
        }
        if !table.is_present(slot) {
            return Err(invalid("slot was released"));
        }
        let payload = self.slice(table.range_of(slot));
        table.check_slot(slot, &payload)?;
        Ok(payload)
    }

    /// Zero for a slot that does not exist or was released.
    pub fn slot_len(&self, slot: u32) -> u32 {
        if slot >= self.layout.slot_count {
            return 0;
        }
        let table = self.table();
        table.end_of(slot) - table.start_of(slot)
    }

    /// Bytes of all stored slots together.
    pub fn payload_len(&self) -> u32 {
        (self.len() - self.layout.payload_start()) as u32
    }

    /// The parts that follow one another, for a vectored write.
    pub fn parts(&self) -> impl Iterator<Item = &Bytes> {
        let rest = self.rest.iter().flat_map(|parts| parts.iter());
        std::iter::once(&self.first).chain(rest.map(|part| &part.bytes))
    }

    /// All of it in one piece: shared when it is one, else copied together.
    pub fn to_bytes(&self) -> Bytes {
        if self.rest.is_none() {
            return self.first.clone();
        }
        let mut joined = Vec::with_capacity(self.len());
        for part in self.parts() {
            joined.extend_from_slice(part);
        }
        joined.into()
    }

    /// See [`EntryBody::to_bytes`].
    pub fn as_bytes(&self) -> Bytes {
        self.to_bytes()
    }

    pub fn len(&self) -> usize {
        match self.rest.as_ref().and_then(|parts| parts.last()) {
            Some(last) => last.start + last.bytes.len(),
            None => self.first.len(),
        }
    }

    /// The bytes of one slot, or of none.
    fn slice(&self, range: Range<usize>) -> Bytes {
        match &self.rest {
            Some(parts) if range.end > self.first.len() => {
                let following = parts.partition_point(|part| part.start <= range.start);
                let part = &parts[following - 1];
                part.bytes
                    .slice(range.start - part.start..range.end - part.start)
            }
            _ => self.first.slice(range),
        }
    }

    /// Whether there is neither a head nor a slot.
    pub fn is_bare(&self) -> bool {
        self.layout.head_bytes == 0 && self.layout.slot_count == 0
    }

    /// A body is never empty: its fixed part is always there.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The same entry with only the slots for which `keep` says yes. They are copied, so that the
    /// bytes of the others can leave memory.
    pub(crate) fn thinned(&self, keep: impl Fn(u32) -> bool) -> EntryBody {
        let table = self.table();
        let count = self.layout.slot_count;
        let mut assembler = Assembler::sparse(self.layout.head_bytes, count);
        for slot in 0..count {
            if table.is_present(slot) && keep(slot) {
                assembler.push(table.range_of(slot).len(), table.crc_of(slot), true);
            } else {
                assembler.push(0, table.crc_of(slot), false);
            }
        }
        let payload = (0..count)
            .filter(|slot| table.is_present(*slot) && keep(*slot))
            .map(|slot| self.slice(table.range_of(slot)));
        assembler.finish(&self.head(), payload)
    }
}

impl PartialEq for EntryBody {
    /// Compares the byte strings, however they are divided.
    fn eq(&self, other: &EntryBody) -> bool {
        self.layout == other.layout
            && self.len() == other.len()
            && self.parts().flatten().eq(other.parts().flatten())
    }
}

impl Eq for EntryBody {}

impl std::fmt::Debug for EntryBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EntryBody")
            .field("bytes", &self.len())
            .field("head_bytes", &self.layout.head_bytes)
            .field("slots", &self.layout.slot_count)
            .finish()
    }
}

fn invalid(what: &'static str) -> StorageError {
    StorageError::InvalidBody { what }
}

#[cfg(test)]
mod tests;
