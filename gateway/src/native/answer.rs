//! What became of a batch: collected record by record, told once if all of them fared alike.

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

#[cfg(test)]
mod tests {
    use flotilla_broker::BrokerError;

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
