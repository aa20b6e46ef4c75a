//! Which slots of entries are still referred to, see [`crate::live`].
//!
//! An entry is written as runs of slots or as plain bits, whichever is shorter. The tag in front
//! leaves room for a form with reference counts.

use bincode::de::{BorrowDecoder, Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

use super::columns::{read_length, read_number, write_length, write_number};

/// Entries in one page.
pub const LIVE_PAGE_ENTRIES: u64 = 16;

/// The live slots of neighbouring entries, by place within the page, ascending; none is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LivePage(pub Vec<(u8, SlotSet)>);

/// A set of slots of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotSet {
    /// Bits, 64 slots a word, without zero words at the end.
    words: Vec<u64>,
}

impl SlotSet {
    /// Adds `count` slots from `first`.
    pub fn insert(&mut self, first: u32, count: u32) {
        if count == 0 {
            return;
        }
        let last_word = ((u64::from(first) + u64::from(count) - 1) / 64) as usize;
        if self.words.len() <= last_word {
            self.words.resize(last_word + 1, 0);
        }
        for (word, mask) in masks(first, count) {
            self.words[word] |= mask;
        }
    }

    /// Takes out `count` slots from `first`; returns whether all of them were in.
    pub fn remove(&mut self, first: u32, count: u32) -> bool {
        let mut all = true;
        for (word, mask) in masks(first, count) {
            match self.words.get_mut(word) {
                Some(bits) => {
                    all &= *bits & mask == mask;
                    *bits &= !mask;
                }
                None => all = false,
            }
        }
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
        all
    }

    /// Whether a slot is in.
    pub fn contains(&self, slot: u32) -> bool {
        self.words
            .get((slot / 64) as usize)
            .is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    /// Whether no slot is in.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The runs of neighbouring slots, as (first, count).
    pub fn runs(&self) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (place, word) in self.words.iter().enumerate() {
            let mut bits = *word;
            while bits != 0 {
                let skip = bits.trailing_zeros();
                let length = (bits >> skip).trailing_ones();
                let first = place as u32 * 64 + skip;
                match runs.last_mut() {
                    Some((before, count)) if *before + *count == first => *count += length,
                    _ => runs.push((first, length)),
                }
                let through = skip + length;
                bits = if through == 64 {
                    0
                } else {
                    bits >> through << through
                };
            }
        }
        runs
    }
}

/// The words and bits that a run of slots covers.
fn masks(first: u32, count: u32) -> impl Iterator<Item = (usize, u64)> {
    let end = u64::from(first) + u64::from(count);
    let mut at = u64::from(first);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let word = at / 64;
        let low = at % 64;
        let high = (end - word * 64).min(64);
        at = (word + 1) * 64;
        let below_high = if high == 64 {
            u64::MAX
        } else {
            (1 << high) - 1
        };
        Some((word as usize, below_high & !((1 << low) - 1)))
    })
}

const AS_RUNS: u8 = 0;
const AS_BITS: u8 = 1;
/// Slots are numbered with 32 bits.
const WORDS_MAX: usize = 1 << 26;

impl Encode for SlotSet {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let runs = self.runs();
        // A run takes at least two bytes and seldom more than four, a word eight.
        if runs.len() * 3 <= self.words.len() * 8 {
            AS_RUNS.encode(encoder)?;
            write_length(encoder, runs.len())?;
            let mut end = 0;
            for (first, count) in runs {
                write_number(encoder, first - end)?;
                write_number(encoder, count)?;
                end = first + count;
            }
        } else {
            AS_BITS.encode(encoder)?;
            write_length(encoder, self.words.len())?;
            for word in &self.words {
                encoder_write(encoder, *word)?;
            }
        }
        Ok(())
    }
}

/// Eight plain bytes: a varint of a full word takes nine.
fn encoder_write<E: Encoder>(encoder: &mut E, word: u64) -> Result<(), EncodeError> {
    use bincode::enc::write::Writer;
    encoder.writer().write(&word.to_le_bytes())
}

impl<Context> Decode<Context> for SlotSet {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        use bincode::de::read::Reader;
        let mut set = Self::default();
        match u8::decode(decoder)? {
            AS_RUNS => {
                let mut end: u32 = 0;
                for _ in 0..read_length(decoder, WORDS_MAX)? {
                    let skip: u32 = read_number(decoder)?;
                    let count: u32 = read_number(decoder)?;
                    let first = end.checked_add(skip);
                    let next = first.and_then(|first| first.checked_add(count));
                    let (Some(first), Some(next)) = (first, next) else {
                        return Err(DecodeError::Other(
                            "a run of slots ends beyond the last slot",
                        ));
                    };
                    // A damaged length must not make this allocate half a gigabyte.
                    decoder.claim_bytes_read(count as usize / 8)?;
                    decoder.claim_bytes_read(skip as usize / 8)?;
                    set.insert(first, count);
                    end = next;
                }
            }
            AS_BITS => {
                let length = read_length(decoder, WORDS_MAX)?;
                decoder.claim_container_read::<u64>(length)?;
                for _ in 0..length {
                    let mut bytes = [0; 8];
                    decoder.reader().read(&mut bytes)?;
                    set.words.push(u64::from_le_bytes(bytes));
                }
            }
            _ => return Err(DecodeError::Other("a set of slots has an unknown form")),
        }
        Ok(set)
    }
}

impl Encode for LivePage {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        write_length(encoder, self.0.len())?;
        for (place, set) in &self.0 {
            place.encode(encoder)?;
            set.encode(encoder)?;
        }
        Ok(())
    }
}

impl<Context> Decode<Context> for LivePage {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let length = read_length(decoder, LIVE_PAGE_ENTRIES as usize)?;
        let mut entries = Vec::with_capacity(length);
        for _ in 0..length {
            entries.push((u8::decode(decoder)?, SlotSet::decode(decoder)?));
        }
        Ok(Self(entries))
    }
}

impl<'de, Context> bincode::BorrowDecode<'de, Context> for LivePage {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

impl LivePage {
    /// The set of an entry, by its place.
    pub fn set(&self, place: u8) -> Option<&SlotSet> {
        let found = self.0.binary_search_by_key(&place, |(at, _)| *at).ok()?;
        Some(&self.0[found].1)
    }

    pub(super) fn weight(&self) -> usize {
        let words: usize = self.0.iter().map(|(_, set)| set.words.capacity()).sum();
        words * 8 + self.0.capacity() * size_of::<(u8, SlotSet)>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slot_set_is_a_set(
            steps in proptest::collection::vec((any::<bool>(), 0u32..600, 0u32..150), 0..40),
        ) {
            let mut set = SlotSet::default();
            let mut expected = BTreeSet::new();
            for (insert, first, count) in steps {
                let slots = first..first + count;
                if insert {
                    set.insert(first, count);
                    expected.extend(slots);
                } else {
                    let all = slots.clone().all(|slot| expected.contains(&slot));
                    prop_assert_eq!(set.remove(first, count), all);
                    slots.for_each(|slot| { expected.remove(&slot); });
                }
                let members: Vec<u32> = set.runs().into_iter().flat_map(|(f, c)| f..f + c).collect();
                prop_assert_eq!(members, expected.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(set.is_empty(), expected.is_empty());
                let page = LivePage(vec![(3, set.clone())]);
                let bytes = bincode::encode_to_vec(&page, bincode::config::standard()).unwrap();
                let (again, _): (LivePage, usize) =
                    bincode::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
                prop_assert_eq!(again, page);
            }
        }
    }
}
