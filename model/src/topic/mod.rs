//! Topics: append-only logs with retention by count, bytes and age.
//!
//! ```text
//!   index records   [ 40..52 ][ 52..53 ][ 53..99 ]      one per append: where its messages are
//!                         ▲                      ▲
//!                       first                   next     offsets
//! ```
//!
//! Retention by count moves `first` exactly, into the middle of a record if it must; the record's
//! bytes are released when its last message is dropped. Retention by bytes and age drops records
//! whole. What is too much for one step is left to a timer that is due at once.

mod append;
mod configure;
mod retention;

pub(crate) use append::append;
pub(crate) use configure::configure;
pub(crate) use retention::{bury_step, fire_retention};

use crate::ids::ObjectId;
use crate::key::Key;
use crate::record::{PAGE_RECORDS, TopicPage, TopicRecord};
use crate::records::{NeedsKeys, Records, find};

/// The page of an index record and its position there.
pub(crate) fn place_of(record: u64) -> (u64, usize) {
    (record / PAGE_RECORDS, (record % PAGE_RECORDS) as usize)
}

/// An index record that is stored.
pub(crate) fn record_at(
    records: &dyn Records,
    object: ObjectId,
    number: u64,
) -> Result<TopicRecord, NeedsKeys> {
    let (page, at) = place_of(number);
    let found = find::<TopicPage>(records, Key::TopicPage(object, page))?
        .expect("a topic has a page for every index record from its first to its last");
    Ok(found.records[at])
}
