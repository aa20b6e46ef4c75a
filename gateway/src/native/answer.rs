//! What became of a batch: known item by item, collected record by record, told once if all of them fared
//! alike.

use std::iter::Peekable;
use std::vec;

use flotilla_broker::BrokerError;

use super::error::RequestError;
use super::protocol::{Error, RecordError};

/// The answer to a batch in the making.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    pub batch: u64,
    /// An [`Ack`](super::protocol::Ack) as it is echoed.
    pub ack: i32,
    /// How many records the batch has.
    pub records: usize,
    /// Of the records that were stored; as long as the place of the last one.
    pub offsets: Vec<u64>,
    pub duplicates: Vec<u32>,
    pub errors: Vec<RecordError>,
    pub error: Option<Error>,
}

impl Answer {
    /// Notes that a record failed. Places ascend.
    pub fn failed(&mut self, place: u32, error: &RequestError) {
        self.errors.push(RecordError {
            index: place,
            error: Some(error.wire()),
        });
    }

    /// Says once what befell all records alike.
    pub fn finish(&mut self) {
        let Some(first) = self.errors.first() else {
            return;
        };
        let alike = self.errors.len() == self.records
            && self.errors.iter().all(|one| one.error == first.error);
        if alike {
            self.error = self.errors.swap_remove(0).error;
            self.errors.clear();
        }
    }
}

/// What is known of the items of a group, one after the other.
pub enum Fates<S> {
    All(vec::IntoIter<Result<S, BrokerError>>),
    /// Only that some are refused.
    Early {
        refused: Peekable<vec::IntoIter<(usize, BrokerError)>>,
        next_place: usize,
    },
}

impl<S> Fates<S> {
    pub fn all(results: Vec<Result<S, BrokerError>>) -> Self {
        Self::All(results.into_iter())
    }

    pub fn early(refused: Vec<(usize, BrokerError)>) -> Self {
        Self::Early {
            refused: refused.into_iter().peekable(),
            next_place: 0,
        }
    }

    /// Of the next item; `None` if it is not known yet.
    pub fn next_fate(&mut self) -> Option<Result<S, BrokerError>> {
        match self {
            Self::All(results) => Some(results.next().unwrap_or(Err(BrokerError::OutcomeUnknown))),
            Self::Early {
                refused,
                next_place,
            } => {
                let place = *next_place;
                *next_place += 1;
                let (_, error) = refused.next_if(|(of, _)| *of == place)?;
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(errors: &[(u32, BrokerError)]) -> Answer {
        let mut answer = Answer {
            records: 2,
            ..Answer::default()
        };
        for (place, error) in errors {
            answer.failed(*place, &error.clone().into());
        }
        answer.finish();
        answer
    }

    #[test]
    fn only_refusals_are_known_early_each_at_its_place() {
        let busy = || BrokerError::Busy {
            what: "busy".to_owned(),
        };
        let mut fates = Fates::<()>::early(vec![(1, busy()), (2, busy()), (4, busy())]);
        let known: Vec<bool> = (0..6).map(|_| fates.next_fate().is_some()).collect();
        assert_eq!(known, [false, true, true, false, true, false]);
        let mut fates = Fates::all(vec![Ok(7)]);
        assert_eq!(fates.next_fate(), Some(Ok(7)));
        assert_eq!(fates.next_fate(), Some(Err(BrokerError::OutcomeUnknown)));
    }

    #[test]
    fn what_befell_all_alike_is_said_once_and_nothing_else_is() {
        let unknown = BrokerError::OutcomeUnknown;
        let alike = answer(&[(0, unknown.clone()), (1, unknown.clone())]);
        assert!(alike.errors.is_empty());
        assert_eq!(
            alike.error.map(|error| error.text).as_deref(),
            Some("unavailable: the outcome is unknown")
        );
        for apart in [
            answer(&[(1, unknown.clone())]),
            answer(&[(0, BrokerError::StaleLease), (1, unknown)]),
        ] {
            assert!(apart.error.is_none() && !apart.errors.is_empty());
        }
    }
}
