//! The access rules: a list of records, of which one that says yes is enough. Pure.
//!
//! A record is for clients and channels by regular expressions, each matched against the whole text, for some of
//! the five patterns of messaging, and for reading, writing or both. The form is that of KubeMQ's servers.

use regex_lite::{Regex, RegexBuilder};
use serde::Deserialize;

use flotilla_model::name::Kind;

/// Records at most: a decision that is not remembered looks at each of them.
pub const RECORDS_MAX: usize = 1_024;
/// Longest expression, in bytes.
const EXPRESSION_BYTES_MAX: usize = 1_024;
/// What a compiled expression may take, in bytes.
const COMPILED_BYTES_MAX: usize = 256 * 1024;

/// The five ways in which names are used, as the records call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    Events,
    EventsStore,
    Queues,
    Commands,
    Queries,
}

impl Pattern {
    /// How names of this kind are used.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Signal => Self::Events,
            Kind::Topic => Self::EventsStore,
            Kind::Queue => Self::Queues,
            Kind::Command => Self::Commands,
            Kind::Request => Self::Queries,
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Subscribe, receive, peek, acknowledge.
    Read,
    /// Send, create, delete.
    Write,
}

/// Why rules cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    #[error("not a JSON array of access records: {reason}")]
    Json { reason: String },
    #[error("{count} access records, at most {RECORDS_MAX} are allowed")]
    TooMany { count: usize },
    #[error("access record {record}: {field} {expression:?} is not a regular expression: {reason}")]
    Expression {
        /// Its place in the array, from 1.
        record: usize,
        field: &'static str,
        expression: String,
        reason: String,
    },
    #[error(
        "access record {record}: {field} has {bytes} bytes, 1 to {EXPRESSION_BYTES_MAX} are allowed"
    )]
    Length {
        record: usize,
        field: &'static str,
        bytes: usize,
    },
}

/// A record as it is written. Who leaves out a flag does not give that right; a misspelt one is refused,
/// because it would silently give none.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    #[serde(rename = "ClientID")]
    client_id: String,
    channel: String,
    #[serde(default)]
    events: bool,
    #[serde(default)]
    events_store: bool,
    #[serde(default)]
    queues: bool,
    #[serde(default)]
    commands: bool,
    #[serde(default)]
    queries: bool,
    #[serde(default)]
    read: bool,
    #[serde(default)]
    write: bool,
}

struct Record {
    client: Regex,
    channel: Regex,
    written: Written,
}

/// A list of records.
#[derive(Default)]
pub struct Rules {
    records: Vec<Record>,
}

impl Rules {
    /// Reads a JSON array of records. An empty one allows nothing.
    pub fn parse(json: &[u8]) -> Result<Self, RulesError> {
        let written: Vec<Written> =
            serde_json::from_slice(json).map_err(|error| RulesError::Json {
                reason: error.to_string(),
            })?;
        if written.len() > RECORDS_MAX {
            return Err(RulesError::TooMany {
                count: written.len(),
            });
        }
        let records = (1..).zip(written).map(|(record, written)| {
            Ok(Record {
                client: compile(record, "ClientID", &written.client_id)?,
                channel: compile(record, "Channel", &written.channel)?,
                written,
            })
        });
        Ok(Self {
            records: records.collect::<Result<_, _>>()?,
        })
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none, so that nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether any record allows a client this.
    pub fn allow(&self, client: &str, pattern: Pattern, channel: &str, action: Action) -> bool {
        self.records.iter().any(|record| {
            record.written.is_for(pattern, action)
                && record.client.is_match(client)
                && record.channel.is_match(channel)
        })
    }
}

impl Written {
    fn is_for(&self, pattern: Pattern, action: Action) -> bool {
        let of_pattern = match pattern {
            Pattern::Events => self.events,
            Pattern::EventsStore => self.events_store,
            Pattern::Queues => self.queues,
            Pattern::Commands => self.commands,
            Pattern::Queries => self.queries,
        };
        let of_action = match action {
            Action::Read => self.read,
            Action::Write => self.write,
        };
        of_pattern && of_action
    }
}

/// An expression for whole texts.
fn compile(record: usize, field: &'static str, expression: &str) -> Result<Regex, RulesError> {
    let bytes = expression.len();
    if !(1..=EXPRESSION_BYTES_MAX).contains(&bytes) {
        return Err(RulesError::Length {
            record,
            field,
            bytes,
        });
    }
    let build = |text: &str| {
        let built = RegexBuilder::new(text)
            .size_limit(COMPILED_BYTES_MAX)
            .build();
        built.map_err(|error| RulesError::Expression {
            record,
            field,
            expression: expression.to_owned(),
            reason: error.to_string(),
        })
    };
    // By itself first: in brackets `a)|(b` would be one that matches parts of texts.
    build(expression)?;
    build(&format!("^(?:{expression})$"))
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod tests;
