//! The transactions of one downstream: which messages each still holds. Pure bookkeeping.
//!
//! ```text
//!   get answered --> open: held {1 2 3} --take [2]--> held {1 3}, 1 settlement under way
//!                                                       |             |
//!                                             failed: held {1 2 3}   done: held {1 3}
//!   held {} and nothing under way: complete, forgotten
//! ```
//!
//! A sequence leaves `held` when its settlement begins, so no message is settled twice, whatever
//! order requests come in.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use flotilla_model::command::Selection;
use flotilla_model::ids::{LeaseId, Sequence};
use flotilla_model::name::Name;

use super::holders::Listed;
use crate::kubemq::error::{RequestError, Verb};

/// Auto-acknowledged transactions that are remembered, to be told from unknown ones.
const CLOSED_REMEMBERED_MAX: usize = 1_024;

/// The transactions of one stream.
#[derive(Default)]
pub struct Transactions {
    open: HashMap<String, Transaction>,
    /// In the order of their opening, for [`Transactions::ids`].
    order: BTreeMap<u64, String>,
    opened: u64,
    closed: HashSet<String>,
    closed_order: VecDeque<String>,
}

struct Transaction {
    queue: Name,
    lease: LeaseId,
    held: BTreeSet<Sequence>,
    settlements_under_way: u32,
    opened: u64,
    /// Other streams find it for as long as it is open.
    _listed: Listed,
}

/// Messages on their way out of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    pub transaction: String,
    pub queue: Name,
    pub lease: LeaseId,
    /// Ascending, not empty.
    pub sequences: Vec<Sequence>,
    /// These are all that the lease holds.
    pub is_all: bool,
}

impl Taken {
    /// The messages as the broker wants them named.
    pub fn selection(&self) -> Selection {
        if self.is_all {
            Selection::All
        } else {
            Selection::Sequences(self.sequences.clone())
        }
    }
}

impl Transactions {
    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// The ids of the open ones, oldest first.
    pub fn ids(&self) -> Vec<String> {
        self.order.values().cloned().collect()
    }

    /// Opens a transaction on the messages of a lease, of which there is at least one.
    pub fn open(
        &mut self,
        id: String,
        queue: Name,
        lease: LeaseId,
        held: impl IntoIterator<Item = Sequence>,
        listed: Listed,
    ) {
        self.opened += 1;
        self.order.insert(self.opened, id.clone());
        let transaction = Transaction {
            queue,
            lease,
            held: held.into_iter().collect(),
            settlements_under_way: 0,
            opened: self.opened,
            _listed: listed,
        };
        self.open.insert(id, transaction);
    }

    /// Whether this stream can say what became of a transaction.
    pub fn knows(&self, id: &str) -> bool {
        self.open.contains_key(id) || self.closed.contains(id)
    }

    /// Remembers a transaction that settles itself. Other streams do not know it: there is nothing to settle.
    pub fn remember_closed(&mut self, id: String) {
        if self.closed_order.len() == CLOSED_REMEMBERED_MAX
            && let Some(oldest) = self.closed_order.pop_front()
        {
            self.closed.remove(&oldest);
        }
        self.closed_order.push_back(id.clone());
        self.closed.insert(id);
    }

    /// The sequences that a transaction still holds, ascending.
    pub fn held(&self, id: &str) -> Result<Vec<Sequence>, RequestError> {
        match self.open.get(id) {
            Some(transaction) => Ok(transaction.held.iter().copied().collect()),
            None => Err(RequestError::TransactionUnknown),
        }
    }

    /// Whether a transaction holds nothing any more, for certain; so does one that this stream never had.
    pub fn is_complete(&self, id: &str) -> bool {
        !self.open.contains_key(id)
    }

    /// Takes all that a transaction holds. If settlements under way have it all, it is as good as
    /// complete.
    pub fn take_all(&mut self, id: &str, verb: Verb) -> Result<Taken, RequestError> {
        let transaction = self.find(id, verb)?;
        let sequences = std::mem::take(&mut transaction.held).into_iter().collect();
        transaction
            .taken(id, sequences)
            .ok_or(RequestError::TransactionUnknown)
    }

    /// Takes these sequences, up to the first that the transaction does not hold: that one is the
    /// second part of the answer.
    pub fn take(
        &mut self,
        id: &str,
        verb: Verb,
        sequences: &[i64],
    ) -> Result<(Option<Taken>, Option<RequestError>), RequestError> {
        let transaction = self.find(id, verb)?;
        if sequences.is_empty() {
            return Err(RequestError::SequencesEmpty { verb });
        }
        let mut taken = Vec::with_capacity(sequences.len());
        let mut refused = None;
        for &sequence in sequences {
            let is_held = u64::try_from(sequence)
                .is_ok_and(|number| transaction.held.remove(&Sequence(number)));
            if !is_held {
                refused = Some(RequestError::SequenceUnknown { verb, sequence });
                break;
            }
            taken.push(Sequence(sequence.unsigned_abs()));
        }
        taken.sort_unstable();
        Ok((transaction.taken(id, taken), refused))
    }

    /// A settlement is over; the sequences given back are held again.
    pub fn settled(&mut self, id: &str, given_back: &[Sequence]) {
        let Some(transaction) = self.open.get_mut(id) else {
            return;
        };
        transaction.settlements_under_way = transaction.settlements_under_way.saturating_sub(1);
        transaction.held.extend(given_back);
        if transaction.held.is_empty() && transaction.settlements_under_way == 0 {
            self.order.remove(&transaction.opened);
            self.open.remove(id);
        }
    }

    /// The lease is over, other than by its settlement: nothing is held any more.
    pub fn lost(&mut self, id: &str) {
        if let Some(transaction) = self.open.get_mut(id) {
            transaction.held.clear();
        }
        self.settled(id, &[]);
    }

    fn find(&mut self, id: &str, verb: Verb) -> Result<&mut Transaction, RequestError> {
        if self.closed.contains(id) {
            return Err(RequestError::TransactionClosed { verb });
        }
        self.open
            .get_mut(id)
            .ok_or(RequestError::TransactionUnknown)
    }
}

impl Transaction {
    fn taken(&mut self, id: &str, sequences: Vec<Sequence>) -> Option<Taken> {
        if sequences.is_empty() {
            return None;
        }
        let is_all = self.held.is_empty() && self.settlements_under_way == 0;
        self.settlements_under_way += 1;
        Some(Taken {
            transaction: id.to_owned(),
            queue: self.queue.clone(),
            lease: self.lease,
            sequences,
            is_all,
        })
    }
}

#[cfg(test)]
#[path = "transactions_test.rs"]
mod tests;
