//! What the load processes wrote down about their work, one file each, a line an event.
//!
//! ```text
//! I CHANNEL FIRST COUNT                            about to send these numbers
//! A CHANNEL NUMBER                                 that one was acknowledged
//! G CHANNEL NUMBER                                 its removal was acknowledged
//! M CHANNEL SEQUENCE PRODUCER NUMBER INTACT        a message was received
//! P CHANNEL NUMBER                                 about to remove what was sent up to there
//! C CHANNEL                                        so was the removal of those received before
//! S CHANNEL KIND VALUE SEQUENCE...                 what a subscription from there began with
//! ```
//!
//! A number that was about to be sent and has no acknowledgement may have been stored or not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One message as its producer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub producer: u32,
    pub number: u64,
    pub acknowledged: bool,
}

/// One message as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub sequence: u64,
    pub producer: u32,
    pub number: u64,
    /// Whether body and metadata are what the producer made.
    pub intact: bool,
}

/// What a consumer of a queue saw, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumed {
    Received(Seen),
    /// The removal of everything received before has taken effect.
    Confirmed,
}

/// The first sequences that a subscription from a start position delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub kind: String,
    pub value: u64,
    pub sequences: Vec<u64>,
}

/// One process's notes, by channel.
#[derive(Debug, Default)]
pub struct Journal {
    pub attempts: BTreeMap<String, Vec<Attempt>>,
    pub removed: BTreeMap<String, BTreeSet<u64>>,
    /// The newest number that a removal may have reached.
    pub purged_up_to: BTreeMap<String, u64>,
    pub consumed: BTreeMap<String, Vec<Consumed>>,
    pub starts: BTreeMap<String, Vec<Start>>,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("could not read {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("line {line} of a journal makes no sense: {text:?}")]
    Line { line: usize, text: String },
}

impl Journal {
    pub fn read(path: &Path, producer: u32) -> Result<Self, JournalError> {
        let text = std::fs::read_to_string(path).map_err(|source| JournalError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(&text, producer)
    }

    /// A last line without its end was cut off with the process and is left out.
    pub fn parse(text: &str, producer: u32) -> Result<Self, JournalError> {
        let mut journal = Self::default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (index, line) in whole.lines().enumerate() {
            let words: Vec<&str> = line.split(' ').collect();
            journal
                .note(&words, producer)
                .ok_or_else(|| JournalError::Line {
                    line: index + 1,
                    text: line.to_owned(),
                })?;
        }
        Ok(journal)
    }

    fn note(&mut self, words: &[&str], producer: u32) -> Option<()> {
        let number = |index: usize| words.get(index)?.parse::<u64>().ok();
        let channel = (*words.get(1)?).to_owned();
        match *words.first()? {
            "I" => {
                let first = number(2)?;
                let new = (first..first + number(3)?).map(|number| Attempt {
                    producer,
                    number,
                    acknowledged: false,
                });
                self.attempts.entry(channel).or_default().extend(new);
            }
            "A" => {
                let number = number(2)?;
                let attempts = self.attempts.get_mut(&channel)?;
                // Recent ones are at the end.
                attempts
                    .iter_mut()
                    .rfind(|attempt| attempt.number == number)?
                    .acknowledged = true;
            }
            "G" => {
                self.removed.entry(channel).or_default().insert(number(2)?);
            }
            "P" => {
                self.purged_up_to.insert(channel, number(2)?);
            }
            "M" => {
                let seen = Seen {
                    sequence: number(2)?,
                    producer: u32::try_from(number(3)?).ok()?,
                    number: number(4)?,
                    intact: number(5)? == 1,
                };
                self.consumed
                    .entry(channel)
                    .or_default()
                    .push(Consumed::Received(seen));
            }
            "C" => self
                .consumed
                .entry(channel)
                .or_default()
                .push(Consumed::Confirmed),
            "S" => {
                let (kind, value) = ((*words.get(2)?).to_owned(), number(3)?);
                let sequences = (4..words.len()).map(number).collect::<Option<_>>()?;
                let start = Start {
                    kind,
                    value,
                    sequences,
                };
                self.starts.entry(channel).or_default().push(start);
            }
            _ => return None,
        }
        Some(())
    }

    /// The messages received on a channel, without the confirmations.
    pub fn received(&self, channel: &str) -> Vec<Seen> {
        let consumed = self.consumed.get(channel).map_or(&[][..], Vec::as_slice);
        consumed
            .iter()
            .filter_map(|event| match event {
                Consumed::Received(seen) => Some(*seen),
                Consumed::Confirmed => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_acknowledgement_is_unknown() {
        let journal = Journal::parse("I t 1 1\nA t 1\nI t 2 3\nA t 3\n", 7).unwrap();
        let acknowledged: Vec<_> = journal.attempts["t"]
            .iter()
            .map(|attempt| (attempt.producer, attempt.number, attempt.acknowledged))
            .collect();
        assert_eq!(
            acknowledged,
            [(7, 1, true), (7, 2, false), (7, 3, true), (7, 4, false)]
        );
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out() {
        let journal = Journal::parse("I t 1 2\nA t 1\nA t 2", 0).unwrap();
        assert!(!journal.attempts["t"][1].acknowledged);
    }

    #[test]
    fn a_line_that_makes_no_sense_is_an_error() {
        assert!(Journal::parse("A t 1\n", 0).is_err(), "never sent");
        assert!(Journal::parse("X t 1\n", 0).is_err());
        assert!(Journal::parse("M t 1 2 three 1\n", 0).is_err());
    }
}
