//! What an entry's bytes promise.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn body(head: &[u8], slots: &[Vec<u8>]) -> EntryBody {
    EntryBody::builder()
        .head(Bytes::copy_from_slice(head))
        .slots(slots.iter().map(|slot| Bytes::copy_from_slice(slot)))
        .build()
        .unwrap()
}

proptest! {
    #[test]
    fn what_was_put_in_comes_out(head in vec(any::<u8>(), 0..100), slots in vec(vec(any::<u8>(), 0..50), 0..20)) {
        let built = body(&head, &slots);
        let parsed = EntryBody::parse(built.as_bytes().clone()).unwrap();
        prop_assert_eq!(&parsed, &built);
        prop_assert_eq!(&parsed.head()[..], &head[..]);
        prop_assert_eq!(parsed.slot_count() as usize, slots.len());
        for (number, slot) in slots.iter().enumerate() {
            prop_assert_eq!(&parsed.slot(number as u32).unwrap()[..], &slot[..]);
        }
        prop_assert!(parsed.slot(slots.len() as u32).is_err());
    }

    /// One flipped bit anywhere is found, at the latest when the slot it hit is read.
    #[test]
    fn a_flipped_bit_is_never_served(slots in vec(vec(any::<u8>(), 1..30), 1..10), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let built = body(b"head", &slots);
        let mut bytes = built.as_bytes().to_vec();
        let position = at.index(bytes.len());
        bytes[position] ^= 1 << bit;
        if let Ok(parsed) = EntryBody::parse(Bytes::from(bytes)) {
            prop_assert!(parsed.verify().is_err());
            prop_assert_eq!(&parsed.head()[..], b"head");
            for (number, slot) in slots.iter().enumerate() {
                if let Ok(read) = parsed.slot(number as u32) {
                    prop_assert_eq!(&read[..], &slot[..]);
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = EntryBody::parse(Bytes::from(bytes));
    }

    /// Slots keep their numbers when others are removed, also when it is done twice.
    #[test]
    fn thinning_keeps_numbers(slots in vec(vec(any::<u8>(), 0..30), 1..20), first in any::<u32>(), second in any::<u32>()) {
        let once = body(b"h", &slots).thinned(|slot| first & (1 << slot) != 0);
        let twice = once.thinned(|slot| second & (1 << slot) != 0);
        let parsed = EntryBody::parse(twice.as_bytes().clone()).unwrap();
        parsed.verify().unwrap();
        prop_assert_eq!(&parsed.head()[..], b"h");
        for (number, slot) in slots.iter().enumerate() {
            let kept = first & second & (1 << number) != 0;
            prop_assert_eq!(parsed.has_slot(number as u32), kept);
            match parsed.slot(number as u32) {
                Ok(read) => { prop_assert!(kept); prop_assert_eq!(&read[..], &slot[..]); }
                Err(_) => prop_assert!(!kept),
            }
        }
    }
}
