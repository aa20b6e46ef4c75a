//! No message of a transaction is settled twice or forgotten, whatever a client sends.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::access::Caller;
use crate::kubemq::downstream::holders::{Desk, Holders};

fn with_one(sequences: &[u64]) -> Transactions {
    listed_with_one(sequences).0
}

/// With where other streams look for it.
fn listed_with_one(sequences: &[u64]) -> (Transactions, Arc<Holders>) {
    let holders = Arc::<Holders>::default();
    let desk = Desk::new(Arc::clone(&holders), Caller::default());
    let mut transactions = Transactions::default();
    transactions.open(
        "t".to_owned(),
        Name::queue("q").unwrap(),
        LeaseId(9),
        sequences.iter().map(|number| Sequence(*number)),
        desk.list("t", "c".to_owned()),
    );
    (transactions, holders)
}

fn numbers(sequences: &[Sequence]) -> Vec<u64> {
    sequences.iter().map(|sequence| sequence.0).collect()
}

#[test]
fn a_range_stops_at_its_first_bad_sequence_and_keeps_what_came_before() {
    let mut transactions = with_one(&[1, 2, 3]);
    let (taken, refused) = transactions.take("t", Verb::Ack, &[3, 7, 1]).unwrap();
    assert_eq!(numbers(&taken.unwrap().sequences), [3]);
    assert_eq!(refused.unwrap().to_string(), "invalid ack sequence id 7");
    assert_eq!(numbers(&transactions.held("t").unwrap()), [1, 2]);
}

#[test]
fn a_sequence_named_twice_is_bad_the_second_time() {
    let mut transactions = with_one(&[1, 2]);
    let (taken, refused) = transactions.take("t", Verb::Nack, &[2, 2]).unwrap();
    assert_eq!(numbers(&taken.unwrap().sequences), [2]);
    assert_eq!(refused.unwrap().to_string(), "invalid nack sequence id 2");
}

#[test]
fn negative_sequences_are_bad() {
    let mut transactions = with_one(&[1]);
    for bad in [-1, i64::MIN, 0] {
        let (taken, refused) = transactions.take("t", Verb::Ack, &[bad]).unwrap();
        assert_eq!(taken, None);
        assert_eq!(
            refused.unwrap().to_string(),
            format!("invalid ack sequence id {bad}")
        );
    }
}

#[test]
fn a_complete_transaction_is_unknown() {
    let mut transactions = with_one(&[1]);
    let taken = transactions.take_all("t", Verb::Ack).unwrap();
    assert!(taken.is_all);
    assert_eq!(taken.selection(), Selection::All);
    assert!(!transactions.is_complete("t"), "it may yet fail");
    transactions.settled("t", &[]);
    assert!(transactions.is_complete("t"));
    assert_eq!(transactions.len(), 0);
    assert_eq!(transactions.ids(), Vec::<String>::new());
    assert_eq!(
        transactions.take_all("t", Verb::Ack),
        Err(RequestError::TransactionUnknown)
    );
    assert_eq!(
        transactions.take("t", Verb::Ack, &[1]),
        Err(RequestError::TransactionUnknown)
    );
    assert_eq!(
        transactions.held("t"),
        Err(RequestError::TransactionUnknown)
    );
}

#[test]
fn a_transaction_that_settled_itself_is_closed_and_not_unknown() {
    let mut transactions = Transactions::default();
    transactions.remember_closed("t".to_owned());
    assert_eq!(
        transactions
            .take_all("t", Verb::Nack)
            .unwrap_err()
            .to_string(),
        "cannot nack messages with closed response "
    );
    for number in 0..CLOSED_REMEMBERED_MAX {
        transactions.remember_closed(number.to_string());
    }
    assert_eq!(
        transactions.take_all("t", Verb::Nack),
        Err(RequestError::TransactionUnknown)
    );
    assert_eq!(transactions.closed.len(), CLOSED_REMEMBERED_MAX);
}

#[test]
fn an_empty_list_is_refused_with_its_verb() {
    let mut transactions = with_one(&[1]);
    assert_eq!(
        transactions
            .take("t", Verb::Ack, &[])
            .unwrap_err()
            .to_string(),
        "cannot ack empty list of of offsets"
    );
}

#[test]
fn all_is_not_said_to_the_broker_while_a_part_is_under_way() {
    let mut transactions = with_one(&[1, 2, 3]);
    transactions.take("t", Verb::Ack, &[2]).unwrap();
    let rest = transactions.take_all("t", Verb::Nack).unwrap();
    assert_eq!(
        rest.selection(),
        Selection::Sequences(vec![Sequence(1), Sequence(3)])
    );
}

#[test]
fn a_lost_lease_leaves_nothing_to_settle() {
    let mut transactions = with_one(&[1, 2]);
    transactions.take("t", Verb::Ack, &[1]).unwrap();
    transactions.lost("t");
    assert_eq!(transactions.len(), 0);
}

#[test]
fn what_a_stream_has_open_at_its_end_is_not_listed_any_more() {
    let (mut transactions, holders) = listed_with_one(&[1, 2]);
    transactions.take("t", Verb::Ack, &[1]).unwrap();
    assert_eq!(holders.len(), 1);
    drop(transactions);
    assert_eq!(holders.len(), 0);
}

/// Several on one stream, with sequences that others have too.
const TRANSACTIONS: [(&str, std::ops::RangeInclusive<u64>); 3] =
    [("t", 1..=9), ("u", 5..=7), ("v", 1..=1)];

#[derive(Clone, Debug)]
enum Step {
    Take(usize, Vec<i64>),
    TakeAll(usize),
    Finish { which: usize, fails: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = 0..TRANSACTIONS.len();
    let sequences = proptest::collection::vec(0i64..12, 0..4);
    let step = prop_oneof![
        (place.clone(), sequences).prop_map(|(place, sequences)| Step::Take(place, sequences)),
        place.prop_map(Step::TakeAll),
        (0usize..4, any::<bool>()).prop_map(|(which, fails)| Step::Finish { which, fails }),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// At every moment each message is held, or in exactly one settlement under way, or settled, whatever is
    /// done with other transactions of its stream.
    #[test]
    fn each_message_is_in_one_place(steps in steps()) {
        let holders = Arc::<Holders>::default();
        let desk = Desk::new(Arc::clone(&holders), Caller::default());
        let mut transactions = Transactions::default();
        for (id, sequences) in TRANSACTIONS {
            transactions.open(
                id.to_owned(),
                Name::queue(&format!("queue-{id}")).unwrap(),
                LeaseId(9),
                sequences.map(Sequence),
                desk.list(id, "c".to_owned()),
            );
        }
        let mut under_way: Vec<Taken> = Vec::new();
        let mut settled: BTreeSet<(String, u64)> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Take(place, sequences) => {
                    let (id, _) = TRANSACTIONS[place];
                    if let Ok((taken, refused)) = transactions.take(id, Verb::Ack, &sequences) {
                        let count = taken.as_ref().map_or(0, |taken| taken.sequences.len());
                        prop_assert_eq!(refused.is_none(), count == sequences.len());
                        under_way.extend(taken);
                    }
                }
                Step::TakeAll(place) => {
                    let (id, _) = TRANSACTIONS[place];
                    under_way.extend(transactions.take_all(id, Verb::Ack).ok());
                }
                Step::Finish { which, fails } if !under_way.is_empty() => {
                    let over = under_way.remove(which % under_way.len());
                    let id = &over.transaction;
                    if fails {
                        transactions.settled(id, &over.sequences);
                    } else {
                        for number in numbers(&over.sequences) {
                            let is_first = settled.insert((id.clone(), number));
                            prop_assert!(is_first, "{} of {} settled twice", number, id);
                        }
                        transactions.settled(id, &[]);
                    }
                }
                Step::Finish { .. } => {}
            }
            let mut open = 0;
            for (id, all) in TRANSACTIONS {
                let under_way: Vec<_> =
                    under_way.iter().filter(|taken| taken.transaction == id).collect();
                for taken in under_way.iter().filter(|taken| taken.is_all) {
                    prop_assert!(
                        under_way.len() == 1,
                        "all of the lease was named while other settlements were under way: {:?}", taken
                    );
                }
                let queue = Name::queue(&format!("queue-{id}")).unwrap();
                prop_assert!(under_way.iter().all(|taken| taken.queue == queue));
                let held = transactions.held(id).map_or_else(|_| Vec::new(), |held| numbers(&held));
                let done = settled.iter().filter(|(of, _)| of == id).map(|(_, number)| *number);
                let mut places: Vec<u64> = held.into_iter().chain(done.clone()).collect();
                for taken in &under_way {
                    places.extend(numbers(&taken.sequences));
                }
                places.sort_unstable();
                let is_over = under_way.is_empty() && done.count() == places.len();
                prop_assert_eq!(places, all.collect::<Vec<_>>());
                prop_assert_eq!(transactions.is_complete(id), is_over);
                open += usize::from(!is_over);
            }
            prop_assert_eq!(transactions.len(), open);
            prop_assert_eq!(holders.len(), open);
            let listed = TRANSACTIONS.map(|(id, _)| id).into_iter();
            let listed: Vec<_> = listed.filter(|id| !transactions.is_complete(id)).collect();
            prop_assert_eq!(transactions.ids(), listed, "in the order of their opening");
        }
    }
}
