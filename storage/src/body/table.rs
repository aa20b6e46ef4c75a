//! The fixed part and the position table of a body: all that a reader of single slots needs.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

use super::{FIXED_BYTES, FLAG_SPARSE, SLOT_BYTES, TABLE_CRC_AT, VERSION, invalid};
use crate::error::Result;

/// Where the parts of a body are; computed from its first [`FIXED_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub head_bytes: u32,
    pub slot_count: u32,
    pub sparse: bool,
    pub(super) head_crc: u32,
    pub(super) table_crc: u32,
}

impl Layout {
    /// Reads the fixed part. The numbers are not trusted until the table CRC was compared.
    pub(crate) fn parse(fixed: &[u8]) -> Result<Layout> {
        if fixed.len() < FIXED_BYTES {
            return Err(invalid("shorter than its fixed part"));
        }
        // Damage or a tear: a build with another layout announces it in the frame's header, whose
        // checksum vouches for what it says.
        if fixed[0] != VERSION {
            return Err(invalid("unknown version"));
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
    pub(super) layout: Layout,
    /// Fixed part, table and presence bits, as stored.
    pub(super) bytes: Bytes,
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

    pub(super) fn end_of(&self, slot: u32) -> u32 {
        read_u32(&self.bytes, FIXED_BYTES + slot as usize * SLOT_BYTES)
    }

    pub(crate) fn crc_of(&self, slot: u32) -> u32 {
        read_u32(&self.bytes, FIXED_BYTES + slot as usize * SLOT_BYTES + 4)
    }

    pub(super) fn start_of(&self, slot: u32) -> u32 {
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

pub(crate) type SharedTable = Arc<SlotTable>;

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
