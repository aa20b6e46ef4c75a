//! Makes bodies: long slots are shared with their producer, short ones are copied together.

use bytes::{BufMut, Bytes, BytesMut};
use crc32c::{crc32c, crc32c_append};

use super::{EntryBody, FIXED_BYTES, FLAG_SPARSE, Layout, SLOT_BYTES, TABLE_CRC_AT, VERSION};
use crate::error::{Result, StorageError};

/// Slots from this length on are not copied. Shorter ones are: a part keeps alive the whole buffer it
/// was cut from, which the memory for entries just written does not count.
const SHARED_SLOT_BYTES_MIN: usize = 4 << 10;

/// Collects a head and slots.
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
        let mut assembler = Assembler::new(self.head.len() as u32, self.slots.len() as u32);
        for slot in &self.slots {
            assembler.push(slot.len(), crc32c(slot), true);
        }
        Ok(assembler.finish(&self.head, self.slots.into_iter()))
    }
}

/// Writes the table of a body; sizes were checked by the caller.
pub(super) struct Assembler {
    fixed_and_table: BytesMut,
    /// Of a sparse body.
    presence: Option<Vec<u8>>,
    /// Slots from this length on are parts of their own.
    shared_from: usize,
    copied_bytes: usize,
    head_bytes: u32,
    count: u32,
    end: u32,
}

impl Assembler {
    fn new(head_bytes: u32, slot_count: u32) -> Assembler {
        let mut table = BytesMut::with_capacity(FIXED_BYTES + slot_count as usize * SLOT_BYTES);
        table.put_u8(VERSION);
        table.put_u8(0);
        table.put_u16_le(0);
        table.put_u32_le(head_bytes);
        table.put_u32_le(slot_count);
        table.put_u64_le(0);
        Assembler {
            fixed_and_table: table,
            presence: None,
            shared_from: SHARED_SLOT_BYTES_MIN,
            copied_bytes: 0,
            head_bytes,
            count: 0,
            end: 0,
        }
    }

    /// For a body without some of its slots. It shares nothing.
    pub(super) fn sparse(head_bytes: u32, slot_count: u32) -> Assembler {
        let mut assembler = Assembler::new(head_bytes, slot_count);
        assembler.fixed_and_table[1] = FLAG_SPARSE;
        assembler.presence = Some(vec![0; (slot_count as usize).div_ceil(8)]);
        assembler.shared_from = usize::MAX;
        assembler
    }

    pub(super) fn push(&mut self, bytes: usize, crc: u32, is_present: bool) {
        self.end += bytes as u32;
        if bytes < self.shared_from {
            self.copied_bytes += bytes;
        }
        self.fixed_and_table.put_u32_le(self.end);
        self.fixed_and_table.put_u32_le(crc);
        if let Some(presence) = &mut self.presence
            && is_present
        {
            presence[self.count as usize / 8] |= 1 << (self.count % 8);
        }
        self.count += 1;
    }

    /// `payload` has the slots that were pushed as present.
    pub(super) fn finish(self, head: &[u8], payload: impl Iterator<Item = Bytes>) -> EntryBody {
        let is_sparse = self.presence.is_some();
        let presence = self.presence.unwrap_or_default();
        let mut gathered = self.fixed_and_table;
        let head_crc = crc32c(head);
        gathered[12..16].copy_from_slice(&head_crc.to_le_bytes());
        let mut table_crc = crc32c(&gathered[..TABLE_CRC_AT]);
        table_crc = crc32c_append(table_crc, &gathered[FIXED_BYTES..]);
        table_crc = crc32c_append(table_crc, &presence);
        gathered[TABLE_CRC_AT..FIXED_BYTES].copy_from_slice(&table_crc.to_le_bytes());
        gathered.reserve(presence.len() + head.len() + self.copied_bytes);
        gathered.extend_from_slice(&presence);
        gathered.extend_from_slice(head);
        let layout = Layout {
            head_bytes: self.head_bytes,
            slot_count: self.count,
            sparse: is_sparse,
            head_crc,
            table_crc,
        };
        let mut parts = Vec::new();
        for slot in payload {
            if slot.len() < self.shared_from {
                gathered.extend_from_slice(&slot);
                continue;
            }
            if !gathered.is_empty() {
                parts.push(gathered.split().freeze());
            }
            parts.push(slot);
        }
        if !gathered.is_empty() {
            parts.push(gathered.freeze());
        }
        // The fixed part comes before any slot, so there is a first part, and it holds the head.
        let first = parts.remove(0);
        EntryBody::from_parts(layout, first, parts)
    }
}
