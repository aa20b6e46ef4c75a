//! The protocol's records and names to the broker's, and back.

use std::fmt::Write;

use flotilla_model::ids::{DedupId, WallTime};
use flotilla_model::message::{Message, Text};
use flotilla_model::name::{DEFAULT_NAMESPACE, Kind, Name, NameError};

use super::error::RequestError;
use super::protocol::{Record, Tag};

/// Longest id by which a repeat is known.
pub const DEDUP_ID_BYTES_MAX: usize = 1_024;
/// Longest name of a producer.
pub const PRODUCER_BYTES_MAX: usize = 512;

/// Longest name of a group of those who are there now.
const GROUP_BYTES_MAX: usize = 1_024;

const MILLISECOND_NS: u64 = 1_000_000;

/// The namespace that is meant: an empty one stands for the default.
pub fn namespace(given: &str) -> &str {
    if given.is_empty() {
        DEFAULT_NAMESPACE
    } else {
        given
    }
}

/// A name as a request gives it.
pub fn name(given_namespace: &str, kind: Kind, text: &str) -> Result<Name, NameError> {
    Name::new(namespace(given_namespace), kind, text)
}

/// The group that is meant: an empty one stands for none. It is told to every node, so it has a bound.
pub fn group(given: String) -> Result<Option<String>, RequestError> {
    if given.len() > GROUP_BYTES_MAX {
        return Err(RequestError::Length {
            what: "group",
            bytes: given.len(),
            allowed: GROUP_BYTES_MAX,
        });
    }
    Ok((!given.is_empty()).then_some(given))
}

/// A time of the broker, for a client.
pub fn unix_ms(at: WallTime) -> u64 {
    at.0 / MILLISECOND_NS
}

/// A time of a client, for the broker.
pub fn wall_time(unix_ms: u64) -> WallTime {
    WallTime(unix_ms.saturating_mul(MILLISECOND_NS))
}

/// What a record says, without its id for repeats.
pub fn message_in(record: Record) -> Message {
    Message {
        id: Text::from(record.id),
        source: Text::from(record.source),
        metadata: Text::from(record.metadata),
        tags: record
            .tags
            .into_iter()
            .map(|tag| (Text::from(tag.key), Text::from(tag.value)))
            .collect(),
        body: record.body,
    }
}

/// A message as clients get it.
pub fn record_out(message: &Message) -> Record {
    let text = |text: &Text| text.as_str().to_owned();
    Record {
        body: message.body.clone(),
        id: text(&message.id),
        source: text(&message.source),
        metadata: text(&message.metadata),
        tags: message
            .tags
            .iter()
            .map(|(key, value)| Tag {
                key: text(key),
                value: text(value),
            })
            .collect(),
        dedup_id: String::new(),
    }
}

/// By what repeats of the records of a batch are known.
pub struct RepeatIds<'a> {
    producer: &'a str,
    first_sequence: u64,
    /// `<producer>/<sequence>` of one record after the other.
    buffer: String,
}

impl<'a> RepeatIds<'a> {
    /// Of a batch without a producer.
    pub fn of_records() -> Self {
        Self {
            producer: "",
            first_sequence: 0,
            buffer: String::new(),
        }
    }

    /// Of a batch of a producer, if it names one.
    pub fn of_producer(
        producer: &'a str,
        first_sequence: u64,
        records: usize,
    ) -> Result<Self, RequestError> {
        if producer.len() > PRODUCER_BYTES_MAX {
            return Err(RequestError::Producer {
                bytes: producer.len(),
            });
        }
        let after_first = (records as u64).saturating_sub(1);
        if !producer.is_empty() && first_sequence.checked_add(after_first).is_none() {
            return Err(RequestError::Sequence {
                first: first_sequence,
                records,
            });
        }
        Ok(Self {
            producer,
            first_sequence,
            buffer: String::new(),
        })
    }

    /// Of the record at a place of the batch.
    pub fn of(&mut self, record: &Record, place: u32) -> Result<Option<DedupId>, RequestError> {
        if !record.dedup_id.is_empty() {
            let bytes = record.dedup_id.len();
            if bytes > DEDUP_ID_BYTES_MAX {
                return Err(RequestError::DedupId { bytes });
            }
            return Ok(Some(DedupId::of(record.dedup_id.as_bytes())));
        }
        if self.producer.is_empty() {
            return Ok(None);
        }
        self.buffer.clear();
        let sequence = self.first_sequence + u64::from(place);
        // Writing to a string does not fail.
        let _ = write!(self.buffer, "{}/{sequence}", self.producer);
        Ok(Some(DedupId::of(self.buffer.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_record_comes_out_as_it_went_in() {
        let record = Record {
            body: Bytes::from_static(b"body"),
            id: "id".to_owned(),
            source: "source".to_owned(),
            metadata: "metadata".to_owned(),
            tags: vec![
                Tag {
                    key: "k".to_owned(),
                    value: "1".to_owned(),
                },
                Tag {
                    key: "k".to_owned(),
                    value: "2".to_owned(),
                },
            ],
            dedup_id: String::new(),
        };
        assert_eq!(record_out(&message_in(record.clone())), record);
    }

    #[test]
    fn a_producers_records_are_known_by_their_sequence_unless_they_have_ids_of_their_own() {
        let mut ids = RepeatIds::of_producer("p", 7, 3).unwrap();
        let own = Record {
            dedup_id: "p/8".to_owned(),
            ..Record::default()
        };
        let id_of = |id: &str| Ok(Some(DedupId::of(id.as_bytes())));
        assert_eq!(ids.of(&Record::default(), 0), id_of("p/7"));
        assert_eq!(ids.of(&own, 2), id_of("p/8"));
        assert_eq!(ids.of(&Record::default(), 2), id_of("p/9"));
        assert_eq!(RepeatIds::of_records().of(&Record::default(), 0), Ok(None));
    }

    #[test]
    fn ids_that_cannot_be_are_refused_with_what_is_allowed() {
        let long = Record {
            dedup_id: "x".repeat(DEDUP_ID_BYTES_MAX + 1),
            ..Record::default()
        };
        let refused = RepeatIds::of_records().of(&long, 0).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the dedup_id has 1025 bytes, at most 1024 are allowed"
        );
        let producer = "x".repeat(PRODUCER_BYTES_MAX + 1);
        assert!(RepeatIds::of_producer(&producer, 1, 1).is_err());
        assert!(RepeatIds::of_producer("p", u64::MAX, 1).is_ok());
        assert!(RepeatIds::of_producer("p", u64::MAX, 2).is_err());
    }
}
