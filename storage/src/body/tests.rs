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

/// A slot that is copied, or one that is long enough to be shared.
fn short_or_long() -> impl Strategy<Value = Vec<u8>> {
    let long = (any::<u8>(), 4096usize..5000).prop_map(|(fill, length)| vec![fill; length]);
    prop_oneof![2 => vec(any::<u8>(), 0..50), 1 => long]
}

proptest! {
    #[test]
    fn what_was_put_in_comes_out(head in vec(any::<u8>(), 0..100), slots in vec(short_or_long(), 0..20)) {
        let built = body(&head, &slots);
        prop_assert_eq!(built.len(), built.to_bytes().len());
        prop_assert_eq!(&built.parts().flatten().copied().collect::<Bytes>(), &built.to_bytes());
        built.verify().unwrap();
        for (number, slot) in slots.iter().enumerate() {
            prop_assert_eq!(&built.slot(number as u32).unwrap()[..], &slot[..]);
        }
        let parsed = EntryBody::parse(built.to_bytes()).unwrap();
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
        let mut bytes = built.to_bytes().to_vec();
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
    fn thinning_keeps_numbers(slots in vec(short_or_long(), 1..20), first in any::<u32>(), second in any::<u32>()) {
        let once = body(b"h", &slots).thinned(|slot| first & (1 << slot) != 0);
        let twice = once.thinned(|slot| second & (1 << slot) != 0);
        let parsed = EntryBody::parse(twice.to_bytes()).unwrap();
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

#[test]
fn long_slots_are_shared_and_short_ones_do_not_keep_their_buffer() {
    let buffer = Bytes::from(vec![7; 10_000]);
    let built = EntryBody::builder()
        .slots([
            buffer.slice(..100),
            buffer.slice(100..9_000),
            buffer.slice(9_000..),
        ])
        .build()
        .unwrap();
    let source = buffer.as_ptr_range();
    let shares = |slot: u32| source.contains(&built.slot(slot).unwrap().as_ptr());
    assert_eq!([shares(0), shares(1), shares(2)], [false, true, false]);
    assert_eq!(built.parts().count(), 3);
    // What compaction keeps of it must not keep the rest.
    let thinned = built.thinned(|slot| slot == 1);
    assert!(!source.contains(&thinned.slot(1).unwrap().as_ptr()));
}

#[test]
fn bodies_are_equal_however_they_are_divided() {
    let slots = [vec![1; 10], vec![2; 5_000], vec![3; 10]];
    let built = body(b"head", &slots);
    let joined = EntryBody::parse(built.to_bytes()).unwrap();
    assert_eq!((built.parts().count(), joined.parts().count()), (3, 1));
    assert_eq!(built, joined);
    let mut others = slots.clone();
    others[2][9] = 4;
    assert_ne!(built, body(b"head", &others));
}
