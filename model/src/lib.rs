//! Flotilla's vocabulary and its deterministic state machines.
//!
//! Nothing here does input or output, reads a clock or draws a random number: time comes with the
//! entry, and the same entries give the same state on every replica.
//!
//! ```text
//!   command, outcome, name, ids, settings     what is asked and answered
//!   message, pattern, batch, format           bytes of messages and entries, matching, merging
//!   machine                                   applies an entry:
//!     apply ─► topic, queue, cursor, session, outbox, metadata, ...
//!                 └─► overlay ─► records, key, record        state, a small record at a time
//!   query                                     reads the state
//!   mutation                                  checks that a build for development can leave out
//! ```

pub mod batch;
pub mod command;
pub mod error;
pub mod format;
pub mod ids;
pub mod key;
pub mod machine;
pub mod message;
pub mod metadata;
pub mod mutation;
pub mod name;
pub mod outcome;
pub mod pattern;
pub mod query;
pub mod record;
pub mod records;
pub mod settings;

mod apply;
mod attributes;
mod bag;
mod cursor;
mod dedup;
mod due;
mod graveyard;
mod level;
mod live;
mod objects;
mod origin;
mod outbox;
mod overlay;
mod places;
mod queue;
mod session;
mod timers;
mod topic;
mod trie;

pub use cursor::{CURSOR_NAME_BYTES_MAX, SETTLED_RANGES_MAX};
pub use origin::OUTCOMES_KEPT;
pub use queue::LEASE_MESSAGES_MAX;
