//! Bytes that an earlier build wrote, as they are in its logs and stores, mean what they meant.

use std::sync::Arc;

use flotilla_model::command::*;
use flotilla_model::format::{decode_head, encode_head};
use flotilla_model::ids::*;
use flotilla_model::key::{BagId, Key, TrieId};
use flotilla_model::record::Record;

#[test]
fn a_head_is_still_understood() {
    // The last command that the first build knew.
    let bytes = [1, 7, 8, 1, 0, 1, 2, 3, 0, 1, 16, 9, 5];
    let head = EntryHead {
        now: ShardTime(7),
        wall: WallTime(8),
        proposals: vec![Proposal {
            origin: Origin::Node {
                node: NodeId(1),
                incarnation: 2,
            },
            sequence: 3,
            first_slot: 0,
            commands: vec![Command::ConfirmOutbox {
                target: ShardId(9),
                upto: 5,
            }],
        }],
    };
    assert_eq!(decode_head(&bytes, 1), Ok(head.clone()));
    assert_eq!(encode_head(&head), bytes);
}

#[test]
fn keys_are_still_understood() {
    assert_eq!(Key::Grave(3).encode(), [22, 0, 0, 0, 0, 0, 0, 0, 3]);
    let cursors = TrieId::Bag(BagId::Cursors(ObjectId(2)));
    let bytes = [
        6, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 9,
    ];
    assert_eq!(Key::Trie(cursors, 1, 9).encode(), bytes);
}

#[test]
fn records_and_the_outcomes_in_them_are_still_understood() {
    let grave = [1, 22, 3, 4, 5];
    let record = Record::decode(&Key::Grave(3), &grave).unwrap();
    assert_eq!(format!("{record:?}"), "Grave(OldSessions(NodeId(4), 5))");
    assert_eq!(record.encode(), grave);

    // Outcomes of batch 3 of a node's life 2: done, and a gap between batches 9 and 11.
    let kept = [1, 16, 2, 3, 2, 6, 7, 4, 9, 11];
    let key = Key::decode(&[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3]).unwrap();
    let record = Arc::new(Record::decode(&key, &kept).unwrap());
    let shown = format!("{record:?}");
    assert!(
        shown.contains("[Done, Refused(OriginGap { last: 9, got: 11 })]"),
        "{shown}"
    );
    assert_eq!(record.encode(), kept);
}
