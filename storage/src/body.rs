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

use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use crc32c::{crc32c, crc32c_append};

use crate::error::{Result, StorageError};

const VERSION: u8 = 1;
const FLAG_SPARSE: u8 = 1;
pub(crate) const FIXED_BYTES: usize = 20;
const SLOT_BYTES: usize = 8;
const TABLE_CRC_AT: usize = 16;

/// An entry's bytes, checked once when they are parsed. Cloning shares them.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryBody {
    bytes: Bytes,
    layout: Layout,
}

/// Where the parts of a body are; computed from its first [`FIXED_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub head_bytes: u32,
    pub slot_count: u32,
    pub sparse: bool,
    head_crc: u32,
    table_crc: u32,
}

impl Layout {
    /// Reads the fixed part. The numbers are not trusted until the table CRC was compared.
    pub(crate) fn parse(fixed: &[u8]) -> Result<Layout> {
        if fixed.len() < FIXED_BYTES {
            return Err(invalid("shorter than its fixed part"));
        }
        if fixed[0] != VERSION {
            return Err(StorageError::Version {
                what: "entry body",
                found: u32::from(fixed[0]),
                known: u32::from(VERSION),
            });
        }
        if fixed[1] & !FLAG_SPARSE != 0 || fixed[2] != 0 || fixed[3] != 0 {
            return Err(invalid("unknown flags"));
        }
        Ok(Layout {
            head_bytes: read_u32(fixed, 4),
            slot_count: read_u32(fixed, 8),
            sparse: fixed[1] & FLAG_SPARSE != 0,
            head_crc: read_u32(fixed, 12),
            table_crc: read_u32(fixed, TABLE_CRC_AT),
        })
    }

    pub(crate) fn table_crc(&self) -> u32 {
        self.table_crc
    }

    fn presence_bytes(&self) -> usize {
        if self.sparse {
            (self.slot_count as usize).div_ceil(8)
        } else {
            0
        }
    }

    /// Fixed part, table and presence bits: what a reader of slots needs.
    pub(crate) fn table_end(&self) -> usize {
        FIXED_BYTES + self.slot_count as usize * SLOT_BYTES + self.presence_bytes()
    }

    pub(crate) fn payload_start(&self) -> usize {
        self.table_end() + self.head_bytes as usize
    }
}

/// The checked position table of a body, kept apart from the body so that it can be cached.
#[derive(Clone, Debug)]
pub(crate) struct SlotTable {
    layout: Layout,
    /// Fixed part, table and presence bits, as stored.
    bytes: Bytes,
}

impl SlotTable {
    /// `prefix` holds at least the fixed part, the table and the presence bits.
    pub(crate) fn parse(prefix: &Bytes) -> Result<SlotTable> {
        let layout = Layout::parse(prefix)?;
        let end = layout.table_end();
        if prefix.len() < end {
            return Err(invalid("shorter than its table"));
        }
        let crc = crc32c_append(crc32c(&prefix[..TABLE_CRC_AT]), &prefix[FIXED_BYTES..end]);
        if crc != layout.table_crc {
            return Err(invalid("table fails its checksum"));
        }
        let table = SlotTable {
            layout,
            bytes: prefix.slice(..end),
        };
        let mut previous = 0;
        for slot in 0..layout.slot_count {
            let end = table.end_of(slot);
            if end < previous {
                return Err(invalid("slot offsets run backwards"));
            }
            previous = end;
        }
        Ok(table)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A copy that does not keep the bytes it was read with alive.
    pub(crate) fn detached(&self) -> SlotTable {
        SlotTable {
            layout: self.layout,
            bytes: Bytes::copy_from_slice(&self.bytes),
        }
    }

    /// Bytes the table holds in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.len() + std::mem::size_of::<SlotTable>()
    }

    fn end_of(&self, slot: u32) -> u32 {
        read_u32(&self.bytes, FIXED_BYTES + slot as usize * SLOT_BYTES)
    }

    pub(crate) fn crc_of(&self, slot: u32) -> u32 {
        read_u32(&self.bytes, FIXED_BYTES + slot as usize * SLOT_BYTES + 4)
    }

    fn start_of(&self, slot: u32) -> u32 {
        if slot == 0 { 0 } else { self.end_of(slot - 1) }
    }

    pub(crate) fn is_present(&self, slot: u32) -> bool {
        if !self.layout.sparse {
            return true;
        }
        let at = FIXED_BYTES + self.layout.slot_count as usize * SLOT_BYTES + slot as usize / 8;
        self.bytes[at] & (1 << (slot % 8)) != 0
    }

    /// The slot's place, counted from the start of the body.
    pub(crate) fn range_of(&self, slot: u32) -> Range<usize> {
        let base = self.layout.payload_start();
        base + self.start_of(slot) as usize..base + self.end_of(slot) as usize
    }

    pub(crate) fn payload_bytes(&self) -> u32 {
        match self.layout.slot_count {
            0 => 0,
            count => self.end_of(count - 1),
        }
    }

    pub(crate) fn body_bytes(&self) -> usize {
        self.layout.payload_start() + self.payload_bytes() as usize
    }

    pub(crate) fn check_slot(&self, slot: u32, payload: &[u8]) -> Result<()> {
        if crc32c(payload) != self.crc_of(slot) {
            return Err(invalid("slot fails its checksum"));
        }
        Ok(())
    }

    pub(crate) fn check_head(&self, head: &[u8]) -> Result<()> {
        if crc32c(head) != self.layout.head_crc {
            return Err(invalid("head fails its checksum"));
        }
        Ok(())
    }
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
        Ok(EntryBody { bytes, layout })
    }

    pub(crate) fn table(&self) -> SlotTable {
        SlotTable {
            layout: self.layout,
            bytes: self.bytes.slice(..self.layout.table_end()),
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
                table.check_slot(slot, &self.bytes[table.range_of(slot)])?;
            }
        }
        Ok(())
    }

    pub fn head(&self) -> Bytes {
        self.bytes
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
        let payload = self.bytes.slice(table.range_of(slot));
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
        (self.bytes.len() - self.layout.payload_start()) as u32
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A body is never empty: its fixed part is always there.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The same entry with only the slots for which `keep` says yes.
    pub(crate) fn thinned(&self, keep: impl Fn(u32) -> bool) -> EntryBody {
        let table = self.table();
        let count = self.layout.slot_count;
        let mut builder = Assembler::new(self.layout.head_bytes as usize, count as usize, true);
        for slot in 0..count {
            if table.is_present(slot) && keep(slot) {
                let payload = self.bytes.slice(table.range_of(slot));
                builder.push(payload.len(), table.crc_of(slot), true);
            } else {
                builder.push(0, table.crc_of(slot), false);
            }
        }
        let payload = (0..count)
            .filter(|slot| table.is_present(*slot) && keep(*slot))
            .map(|slot| self.bytes.slice(table.range_of(slot)));
        builder.finish(&self.head(), payload)
    }
}

impl std::fmt::Debug for EntryBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EntryBody")
            .field("bytes", &self.bytes.len())
            .field("head_bytes", &self.layout.head_bytes)
            .field("slots", &self.layout.slot_count)
            .finish()
    }
}

/// Collects a head and slots; the bytes are copied once, into the finished body.
#[derive(Default)]
pub struct EntryBodyBuilder {
    head: Bytes,
    slots: Vec<Bytes>,
}

impl EntryBodyBuilder {
    pub fn head(mut self, head: impl Into<Bytes>) -> Self {
        self.head = head.into();
        self
    }

    pub fn push_slot(&mut self, payload: impl Into<Bytes>) -> &mut Self {
        self.slots.push(payload.into());
        self
    }

    pub fn slots(mut self, payloads: impl IntoIterator<Item = Bytes>) -> Self {
        self.slots.extend(payloads);
        self
    }

    /// Bytes the body will have.
    pub fn len(&self) -> usize {
        FIXED_BYTES
            + self.slots.len() * SLOT_BYTES
            + self.head.len()
            + self.slots.iter().map(Bytes::len).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.slots.is_empty()
    }

    /// Fails when head and payload do not fit the table's 32-bit offsets.
    pub fn build(self) -> Result<EntryBody> {
        if self.len() > crate::ENTRY_BYTES_MAX {
            return Err(StorageError::TooLarge {
                what: "entry body",
                bytes: self.len() as u64,
                allowed: crate::ENTRY_BYTES_MAX as u64,
            });
        }
        let mut assembler = Assembler::new(self.head.len(), self.slots.len(), false);
        for slot in &self.slots {
            assembler.push(slot.len(), crc32c(slot), true);
        }
        Ok(assembler.finish(&self.head, self.slots.iter().cloned()))
    }
}

/// Writes the table of a body; sizes were checked by the caller.
struct Assembler {
    fixed_and_table: BytesMut,
    presence: Vec<u8>,
    sparse: bool,
    count: u32,
    end: u32,
}

impl Assembler {
    fn new(head_bytes: usize, slot_count: usize, sparse: bool) -> Assembler {
        let mut table = BytesMut::with_capacity(FIXED_BYTES + slot_count * SLOT_BYTES);
        table.put_u8(VERSION);
        table.put_u8(if sparse { FLAG_SPARSE } else { 0 });
        table.put_u16_le(0);
        table.put_u32_le(head_bytes as u32);
        table.put_u32_le(slot_count as u32);
        table.put_u64_le(0);
        Assembler {
            fixed_and_table: table,
            presence: if sparse {
                vec![0; slot_count.div_ceil(8)]
            } else {
                Vec::new()
            },
            sparse,
            count: 0,
            end: 0,
        }
    }

    fn push(&mut self, bytes: usize, crc: u32, present: bool) {
        self.end += bytes as u32;
        self.fixed_and_table.put_u32_le(self.end);
        self.fixed_and_table.put_u32_le(crc);
        if self.sparse && present {
            self.presence[self.count as usize / 8] |= 1 << (self.count % 8);
        }
        self.count += 1;
    }

    fn finish(self, head: &[u8], payload: impl Iterator<Item = Bytes>) -> EntryBody {
        let mut table = self.fixed_and_table;
        let head_crc = crc32c(head);
        table[12..16].copy_from_slice(&head_crc.to_le_bytes());
        let mut table_crc = crc32c(&table[..TABLE_CRC_AT]);
        table_crc = crc32c_append(table_crc, &table[FIXED_BYTES..]);
        table_crc = crc32c_append(table_crc, &self.presence);
        table[TABLE_CRC_AT..FIXED_BYTES].copy_from_slice(&table_crc.to_le_bytes());
        table.reserve(self.presence.len() + head.len() + self.end as usize);
        table.extend_from_slice(&self.presence);
        table.extend_from_slice(head);
        for slot in payload {
            table.extend_from_slice(&slot);
        }
        EntryBody {
            layout: Layout {
                head_bytes: head.len() as u32,
                slot_count: self.count,
                sparse: self.sparse,
                head_crc,
                table_crc,
            },
            bytes: table.freeze(),
        }
    }
}

pub(crate) type SharedTable = Arc<SlotTable>;

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn invalid(what: &'static str) -> StorageError {
    StorageError::InvalidBody { what }
}

#[cfg(test)]
mod tests;
