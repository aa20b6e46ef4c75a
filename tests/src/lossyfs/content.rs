//! The bytes of one file, sparse, in pages.
//!
//! The volatile and the durable side of a file hold the same pages until a write makes a copy, so a
//! synced file takes its size in memory once.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A power cut keeps or drops whole pages of this size.
pub const PAGE_BYTES: u64 = 4096;

type Page = [u8; PAGE_BYTES as usize];

/// Bytes of a file; a page that is not there reads as zeros.
#[derive(Clone, Default)]
pub struct Content {
    pages: BTreeMap<u64, Arc<Page>>,
    len: u64,
}

impl Content {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Memory in use, counting a page that both sides share once for each.
    pub fn allocated_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES
    }

    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let end = offset.saturating_add(len).min(self.len);
        if offset >= end {
            return Vec::new();
        }
        let mut bytes = vec![0; (end - offset) as usize];
        for (number, within, range) in pieces(offset, end - offset) {
            if let Some(page) = self.pages.get(&number) {
                let count = range.len();
                bytes[range].copy_from_slice(&page[within..within + count]);
            }
        }
        bytes
    }

    /// Writes and tells which pages changed.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Vec<u64> {
        let count = data.len() as u64;
        let mut changed = Vec::new();
        for (number, within, range) in pieces(offset, count) {
            let page = self
                .pages
                .entry(number)
                .or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            Arc::make_mut(page)[within..within + range.len()].copy_from_slice(&data[range]);
            changed.push(number);
        }
        self.len = self.len.max(offset + count);
        changed
    }

    /// Sets a range to zeros, within the file's length.
    pub fn zero(&mut self, offset: u64, len: u64) -> Vec<u64> {
        let end = offset.saturating_add(len).min(self.len);
        let mut changed = Vec::new();
        for (number, within, range) in pieces(offset, end.saturating_sub(offset)) {
            if let Some(page) = self.pages.get_mut(&number) {
                Arc::make_mut(page)[within..within + range.len()].fill(0);
                changed.push(number);
            }
        }
        changed
    }

    /// Cuts or extends, and tells which pages changed.
    pub fn set_len(&mut self, len: u64) -> Vec<u64> {
        let mut changed = Vec::new();
        // Also for an unchanged length: a page taken over may reach behind the end.
        if len <= self.len {
            let first_dropped = len.div_ceil(PAGE_BYTES);
            changed.extend(self.pages.split_off(&first_dropped).into_keys());
            let within = (len % PAGE_BYTES) as usize;
            // The rest of the last page must read as zeros if the file grows again.
            if within > 0
                && let Some(page) = self.pages.get_mut(&(len / PAGE_BYTES))
            {
                Arc::make_mut(page)[within..].fill(0);
                changed.push(len / PAGE_BYTES);
            }
        }
        self.len = len;
        changed
    }

    /// Takes over one page of `other`, also when `other` has none there.
    pub fn copy_page(&mut self, other: &Content, number: u64) {
        match other.pages.get(&number) {
            Some(page) => self.pages.insert(number, page.clone()),
            None => self.pages.remove(&number),
        };
    }

    /// Takes over only the length of `other`.
    pub fn copy_len(&mut self, other: &Content) {
        self.set_len(other.len);
    }
}

/// Splits a range of bytes at page borders: (page, offset in the page, range in the data).
fn pieces(
    offset: u64,
    len: u64,
) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> + use<> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done;
        let within = at % PAGE_BYTES;
        let count = (PAGE_BYTES - within).min(len - done);
        let range = done as usize..(done + count) as usize;
        done += count;
        Some((at / PAGE_BYTES, within as usize, range))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_across_page_borders() {
        let mut content = Content::default();
        let data: Vec<u8> = (0..10_000u32).map(|number| number as u8).collect();
        content.write(4000, &data);
        assert_eq!(content.len(), 14_000);
        assert_eq!(content.read(4000, 20_000), data);
        assert_eq!(content.read(0, 4000), vec![0; 4000]);
    }

    #[test]
    fn bytes_cut_off_do_not_come_back_when_the_file_grows_again() {
        let mut content = Content::default();
        content.write(0, &[7; 9000]);
        content.set_len(5000);
        content.set_len(9000);
        assert_eq!(content.read(0, 5000), vec![7; 5000]);
        assert_eq!(content.read(5000, 4000), vec![0; 4000]);
    }

    #[test]
    fn a_copy_keeps_its_bytes_while_the_other_is_written() {
        let mut volatile = Content::default();
        volatile.write(0, b"before");
        let durable = volatile.clone();
        volatile.write(0, b"behind");
        assert_eq!(durable.read(0, 6), b"before");
    }
}
